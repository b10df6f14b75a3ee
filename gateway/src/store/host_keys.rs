//! The SSH host keys of endpoints: what their agents report, what the gateway vouches for, and what is held.
//!
//! Keys are pinned to the agent's own key and the endpoint, never to an address. The first report after an enrolment is
//! trusted; a key that a later report adds is held until the operator trusts it. Nothing takes a pin away but the agent's
//! end or a new enrolment: an endpoint that is withdrawn and offered again is no first report.

use rusqlite::{Connection, Row, params};

use super::columns::{agent_id, from_json, json, json_column, label};
use super::{
    AgentId, HostKeyNews, HostKeyRow, KeyLines, MAX_ENDPOINTS_PER_AGENT, ReportedHostKeys, StoreError, agents,
};

/// An audit line for one endpoint at most once in this.
const TELL_EVERY_SECONDS: i64 = 3600;
/// Most keys of one endpoint.
const MAX_KEYS: usize = 8;
/// Longest key line.
const MAX_LINE_BYTES: usize = 1024;

const SELECT: &str = "SELECT k.host, k.port, k.trusted, k.held, k.held_at, k.seen_at FROM host_keys k
     JOIN agents a ON a.site = k.site AND a.name = k.agent AND a.spki = k.spki";

pub(super) fn report(
    db: &Connection,
    agent: &AgentId,
    spki: &[u8; 32],
    report: &ReportedHostKeys,
    now: i64,
) -> Result<HostKeyNews, StoreError> {
    check(agent, report)?;
    if agents::get(db, agent)?.and_then(|row| row.spki) != Some(*spki) {
        return Err(agents::unknown(agent));
    }
    let pinned = Pin::find(db, agent, spki, report)?;
    let Some(pin) = pinned else {
        first(db, agent, spki, report, now)?;
        return Ok(HostKeyNews::Trusted);
    };
    let unknown = report.keys.difference(&pin.trusted).next().is_some();
    let (held, held_at) = match (unknown, &pin.held) {
        (false, _) => (None, None),
        (true, Some(held)) if *held == report.keys => (pin.held.clone(), pin.held_at),
        (true, _) => (Some(report.keys.clone()), Some(now)),
    };
    let seen_lately = now.saturating_sub(pin.seen_at) < TELL_EVERY_SECONDS;
    if held == pin.held && seen_lately {
        // Nothing to write: an agent that reports all day long does not keep the disk busy.
        return Ok(if unknown {
            HostKeyNews::Held { tell: false }
        } else {
            HostKeyNews::Known
        });
    }
    let is_news = unknown && pin.held.as_ref() != held.as_ref();
    let told_long_ago = pin
        .told_at
        .is_none_or(|told| now.saturating_sub(told) >= TELL_EVERY_SECONDS);
    let tell = is_news && told_long_ago;
    let held_text = held.as_ref().map(|keys| json(keys, "host_keys.held")).transpose()?;
    db.execute(
        "UPDATE host_keys SET held = ?5, held_at = ?6, seen_at = ?7, told_at = ?8
         WHERE site = ?1 AND agent = ?2 AND host = ?3 AND port = ?4",
        params![
            agent.site,
            agent.name,
            report.host,
            report.port,
            held_text,
            held_at,
            now,
            if tell { Some(now) } else { pin.told_at }
        ],
    )?;
    Ok(match (unknown, tell) {
        (false, _) => HostKeyNews::Known,
        (true, tell) => HostKeyNews::Held { tell },
    })
}

pub(super) fn of(db: &Connection, agent: &AgentId) -> Result<Vec<HostKeyRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "{SELECT} WHERE k.site = ?1 AND k.agent = ?2 ORDER BY k.host, k.port"
    ))?;
    let rows = statement.query_and_then([&agent.site, &agent.name], from_row)?;
    rows.collect()
}

pub(super) fn trusted(db: &Connection, agent: &AgentId, host: &str, port: u16) -> Result<KeyLines, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "{SELECT} WHERE k.site = ?1 AND k.agent = ?2 AND k.host = ?3 AND k.port = ?4"
    ))?;
    let mut rows = statement.query_and_then(params![agent.site, agent.name, host, port], from_row)?;
    Ok(rows.next().transpose()?.map(|row| row.trusted).unwrap_or_default())
}

/// What was held is trusted, and what was trusted before is not. Returns the rows as they were.
pub(super) fn trust(db: &Connection, agent: &AgentId) -> Result<Vec<HostKeyRow>, StoreError> {
    if agents::get(db, agent)?.is_none() {
        return Err(agents::unknown(agent));
    }
    let held: Vec<HostKeyRow> = of(db, agent)?.into_iter().filter(|row| row.held.is_some()).collect();
    db.execute(
        "UPDATE host_keys SET trusted = held, held = NULL, held_at = NULL, told_at = NULL
         WHERE site = ?1 AND agent = ?2 AND held IS NOT NULL
           AND spki = (SELECT spki FROM agents WHERE site = ?1 AND name = ?2)",
        [&agent.site, &agent.name],
    )?;
    Ok(held)
}

/// A pin of the agent's present key.
struct Pin {
    trusted: KeyLines,
    held: Option<KeyLines>,
    held_at: Option<i64>,
    told_at: Option<i64>,
    seen_at: i64,
}

impl Pin {
    fn find(
        db: &Connection,
        agent: &AgentId,
        spki: &[u8; 32],
        report: &ReportedHostKeys,
    ) -> Result<Option<Self>, StoreError> {
        let mut statement = db.prepare_cached(
            "SELECT trusted, held, held_at, told_at, seen_at FROM host_keys
             WHERE site = ?1 AND agent = ?2 AND host = ?3 AND port = ?4 AND spki = ?5",
        )?;
        let mut rows = statement.query(params![agent.site, agent.name, report.host, report.port, spki])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some(Self {
            trusted: json_column(row, "trusted", "host_keys.trusted")?,
            held: held_column(row)?,
            held_at: row.get("held_at")?,
            told_at: row.get("told_at")?,
            seen_at: row.get("seen_at")?,
        }))
    }
}

/// Pins of an earlier key of the agent give way: the operator has enrolled it anew.
fn first(
    db: &Connection,
    agent: &AgentId,
    spki: &[u8; 32],
    report: &ReportedHostKeys,
    now: i64,
) -> Result<(), StoreError> {
    db.execute(
        "DELETE FROM host_keys WHERE site = ?1 AND agent = ?2 AND spki <> ?3",
        params![agent.site, agent.name, spki],
    )?;
    let known: u32 = db.query_row(
        "SELECT count(*) FROM host_keys WHERE site = ?1 AND agent = ?2",
        [&agent.site, &agent.name],
        |row| row.get(0),
    )?;
    let limit = MAX_ENDPOINTS_PER_AGENT as u32;
    if known >= limit {
        let what = "endpoints of one agent with host keys";
        return Err(StoreError::Limit { what, limit });
    }
    db.execute(
        "INSERT INTO host_keys (site, agent, host, port, spki, trusted, seen_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            agent.site,
            agent.name,
            report.host,
            report.port,
            spki,
            json(&report.keys, "host_keys.trusted")?,
            now
        ],
    )?;
    Ok(())
}

fn check(agent: &AgentId, report: &ReportedHostKeys) -> Result<(), StoreError> {
    agent_id(agent)?;
    label(&report.host, "host")?;
    let lines = (1..=MAX_KEYS).contains(&report.keys.len());
    let good = |line: &String| (1..=MAX_LINE_BYTES).contains(&line.len()) && !line.chars().any(char::is_control);
    if report.port != 0 && lines && report.keys.iter().all(good) {
        return Ok(());
    }
    Err(StoreError::Invalid {
        what: "host keys",
        why: "1 to 8 key lines of at most 1 KiB, and a port",
    })
}

fn held_column(row: &Row<'_>) -> Result<Option<KeyLines>, StoreError> {
    let held: Option<String> = row.get("held")?;
    held.map(|text| from_json(&text, "host_keys.held")).transpose()
}

fn from_row(row: &Row<'_>) -> Result<HostKeyRow, StoreError> {
    Ok(HostKeyRow {
        host: row.get("host")?,
        port: row.get("port")?,
        trusted: json_column(row, "trusted", "host_keys.trusted")?,
        held: held_column(row)?,
        held_at: row.get("held_at")?,
        seen_at: row.get("seen_at")?,
    })
}
