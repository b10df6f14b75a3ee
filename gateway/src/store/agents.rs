//! The agents, and the certificates that were issued.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};

use super::callers::optional;
use super::columns::{agent_id, json, json_column, labels as check_labels, token_kind};
use super::{
    AgentId, AgentRow, CertificateRecord, Holder, Labels, MAX_AGENTS, Names, SiteScope, StoreError, TokenKind, callers,
};

/// Records of certificates are kept for so long after their end, for those who read an old audit log.
const KEEP_AFTER_END_SECONDS: i64 = 90 * 86_400;

/// Most roots that an agent may say it trusts.
const MAX_ROOTS: usize = 8;

const SELECT: &str = "SELECT site, name, labels, spki, serial, not_after, enrolled_at, last_seen, reported, disabled, pending, roots FROM agents";

pub(super) fn get(db: &Connection, id: &AgentId) -> Result<Option<AgentRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!("{SELECT} WHERE site = ?1 AND name = ?2"))?;
    let mut rows = statement.query([&id.site, &id.name])?;
    rows.next()?.map(from_row).transpose()
}

pub(super) fn with_key(db: &Connection, spki: &[u8; 32]) -> Result<Option<AgentRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!("{SELECT} WHERE spki = ?1"))?;
    let found = statement
        .query_and_then([spki], from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    // One key under two names proves neither.
    Ok(<[AgentRow; 1]>::try_from(found).ok().map(|[agent]| agent))
}

pub(super) fn had_key(db: &Connection, id: &AgentId, spki: &[u8; 32]) -> Result<bool, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT 1 FROM certificates WHERE kind = ?1 AND site = ?2 AND name = ?3 AND spki = ?4")?;
    Ok(statement.exists(params![token_kind(TokenKind::Agent), id.site, id.name, spki])?)
}

pub(super) fn list(db: &Connection, scope: &SiteScope) -> Result<Vec<AgentRow>, StoreError> {
    let order = "ORDER BY pending DESC, site, name";
    let (mut statement, site) = match scope {
        SiteScope::Every => (db.prepare_cached(&format!("{SELECT} {order}"))?, None),
        SiteScope::One(site) => (
            db.prepare_cached(&format!("{SELECT} WHERE site = ?1 {order}"))?,
            Some(site),
        ),
    };
    let rows = statement.query_and_then(rusqlite::params_from_iter(site), from_row)?;
    rows.collect()
}

/// Writes the agent that a join string grants, with the key that spent it. The caller has checked that no other key stands.
pub(super) fn enrol(
    db: &Connection,
    id: &AgentId,
    labels: &Labels,
    spki: &[u8; 32],
    now: i64,
) -> Result<(), StoreError> {
    agent_id(id)?;
    if get(db, id)?.is_none() {
        let known: u32 = db.query_row("SELECT count(*) FROM agents", [], |row| row.get(0))?;
        if known >= MAX_AGENTS {
            return Err(StoreError::Limit {
                what: "agents",
                limit: MAX_AGENTS,
            });
        }
    }
    db.execute(
        "INSERT INTO agents (site, name, labels, spki, enrolled_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (site, name) DO UPDATE
         SET labels = excluded.labels, spki = excluded.spki, enrolled_at = excluded.enrolled_at",
        params![id.site, id.name, json(labels, "agents.labels")?, spki, now],
    )?;
    Ok(())
}

/// Puts `spki` in the place of the agent's key, whose certificates are worth nothing from then on, and lets an agent in
/// again that was revoked; `false` when it is the agent's key already.
pub(super) fn replace_key(db: &Connection, id: &AgentId, spki: &[u8; 32], now: i64) -> Result<bool, StoreError> {
    let replaced = db.execute(
        "UPDATE agents SET spki = ?3, serial = NULL, not_after = NULL, roots = '[]', enrolled_at = ?4, disabled = 0
         WHERE site = ?1 AND name = ?2 AND spki <> ?3",
        params![id.site, id.name, spki, now],
    )?;
    Ok(replaced == 1)
}

pub(super) fn record_certificate(
    db: &Connection,
    holder: &Holder,
    record: &CertificateRecord,
    now: i64,
) -> Result<(), StoreError> {
    if record.serial.is_empty() || record.serial.len() > 40 || !record.serial.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(StoreError::Invalid {
            what: "serial number",
            why: "1 to 40 hexadecimal digits",
        });
    }
    let (kind, site, name) = match holder {
        Holder::Agent(id) => {
            set_certificate(db, id, record)?;
            (TokenKind::Agent, id.site.clone(), &id.name)
        }
        Holder::Caller(id) => {
            let caller = callers::get(db, id)?.ok_or_else(|| callers::unknown(id))?;
            (id.kind.into(), caller.site.unwrap_or_default(), &id.name)
        }
    };
    db.execute(
        "DELETE FROM certificates WHERE not_after < ?1",
        [now.saturating_sub(KEEP_AFTER_END_SECONDS)],
    )?;
    db.execute(
        "INSERT OR REPLACE INTO certificates (kind, site, name, serial, spki, issued_at, not_after, issuer)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            token_kind(kind),
            site,
            name,
            record.serial,
            record.spki,
            now,
            record.not_after,
            record.issuer
        ],
    )?;
    Ok(())
}

/// The key was fixed when the join string was spent: a certificate for another one would be a certificate for a stranger.
fn set_certificate(db: &Connection, id: &AgentId, record: &CertificateRecord) -> Result<(), StoreError> {
    let changed = db.execute(
        "UPDATE agents SET serial = ?3, not_after = ?4 WHERE site = ?1 AND name = ?2 AND spki = ?5 AND pending = 0",
        params![id.site, id.name, record.serial, record.not_after, record.spki],
    )?;
    if changed == 1 {
        return Ok(());
    }
    match get(db, id)? {
        None => Err(unknown(id)),
        Some(_) => Err(StoreError::Conflict {
            what: format!("agent {} in site {} is enrolled with another key", id.name, id.site),
            help: format!("delete it first with `fairlead agents delete {id}` and enrol it anew"),
        }),
    }
}

pub(super) fn set_labels(db: &Connection, id: &AgentId, labels: &Labels) -> Result<(), StoreError> {
    check_labels(labels, "labels")?;
    let text = json(labels, "agents.labels")?;
    one(
        db.execute(
            "UPDATE agents SET labels = ?3 WHERE site = ?1 AND name = ?2",
            [&id.site, &id.name, &text],
        )?,
        id,
    )
}

pub(super) fn set_disabled(db: &Connection, id: &AgentId, disabled: bool) -> Result<(), StoreError> {
    let statement = "UPDATE agents SET disabled = ?3 WHERE site = ?1 AND name = ?2";
    one(db.execute(statement, params![id.site, id.name, disabled])?, id)
}

/// As a deletion, but the name stays taken.
pub(super) fn shut_out(db: &Connection, id: &AgentId) -> Result<(), StoreError> {
    set_disabled(db, id, true)?;
    withdraw(db, id)
}

/// Join strings for the agent end to be good, the spent ones included.
fn withdraw(db: &Connection, id: &AgentId) -> Result<(), StoreError> {
    db.execute(
        "DELETE FROM tokens WHERE kind = 'agent' AND site = ?1 AND name = ?2",
        [&id.site, &id.name],
    )?;
    Ok(())
}

/// The join strings go too: one that is still good, or spent by the key that is now gone, would bring the agent back.
pub(super) fn delete(db: &Connection, id: &AgentId) -> Result<(), StoreError> {
    withdraw(db, id)?;
    one(
        db.execute("DELETE FROM agents WHERE site = ?1 AND name = ?2", [&id.site, &id.name])?,
        id,
    )
}

pub(super) fn touch(db: &Connection, id: &AgentId, reported: &Labels, now: i64) -> Result<(), StoreError> {
    check_labels(reported, "reported facts")?;
    let statement = "UPDATE agents SET last_seen = ?3, reported = ?4 WHERE site = ?1 AND name = ?2";
    one(
        db.execute(
            statement,
            params![id.site, id.name, now, json(reported, "agents.reported")?],
        )?,
        id,
    )
}

pub(super) fn unknown(id: &AgentId) -> StoreError {
    StoreError::NotFound {
        what: format!("agent {} in site {}", id.name, id.site),
    }
}

fn one(changed: usize, id: &AgentId) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(unknown(id)) }
}

fn from_row(row: &Row<'_>) -> Result<AgentRow, StoreError> {
    Ok(AgentRow {
        id: AgentId {
            site: row.get("site")?,
            name: row.get("name")?,
        },
        labels: json_column(row, "labels", "agents.labels")?,
        spki: row.get("spki")?,
        serial: row.get("serial")?,
        not_after: row.get("not_after")?,
        enrolled_at: row.get("enrolled_at")?,
        last_seen: row.get("last_seen")?,
        reported: json_column(row, "reported", "agents.reported")?,
        disabled: row.get("disabled")?,
        pending: row.get("pending")?,
        roots: json_column(row, "roots", "agents.roots")?,
    })
}

/// Writes only what differs: an agent says the same with every link.
pub(super) fn note_roots(db: &Connection, id: &AgentId, roots: &Names) -> Result<(), StoreError> {
    if roots.len() > MAX_ROOTS || !roots.iter().all(|root| root.len() == 64) {
        return Err(StoreError::Invalid {
            what: "roots",
            why: "at most 8 digests of 32 bytes in hex",
        });
    }
    let statement = "UPDATE agents SET roots = ?3 WHERE site = ?1 AND name = ?2 AND roots <> ?3";
    db.execute(statement, params![id.site, id.name, json(roots, "agents.roots")?])?;
    Ok(())
}

/// How many certificates that are good at `now` each issuing authority has signed, by its number.
pub(super) fn certificates_by_issuer(db: &Connection, now: i64) -> Result<BTreeMap<u32, u64>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT issuer, count(*) FROM certificates WHERE not_after > ?1 GROUP BY issuer")?;
    let rows = statement.query_map([now], |row| {
        let count: i64 = row.get(1)?;
        Ok((row.get(0)?, u64::try_from(count).unwrap_or_default()))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Refuses a new agent's name that is a bound host: then two owners would answer to it.
pub(super) fn name_is_free(db: &Connection, id: &AgentId) -> Result<(), StoreError> {
    let statement = "SELECT agent FROM hosts WHERE site = ?1 AND host = ?2 AND agent <> ?2 LIMIT 1";
    let owner: Option<String> = optional(db.query_row(statement, [&id.site, &id.name], |row| row.get(0)))?;
    let Some(owner) = owner else { return Ok(()) };
    Err(StoreError::Conflict {
        what: format!("{} in site {} is a host bound to agent {owner}", id.name, id.site),
        help: "choose another agent name, or take the binding away first".into(),
    })
}
