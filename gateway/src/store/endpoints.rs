//! What agents offered last, so that a name has an owner while its agent is away.

use rusqlite::{Connection, Row, params};

use super::columns::{json_column, label, mode, mode_from};
use super::{
    AgentId, Candidate, EndpointPlace, EndpointRow, MAX_ENDPOINTS_PER_AGENT, OwnedEndpoint, SiteScope, StoreError,
    agents,
};

pub(super) fn replace(db: &Connection, agent: &AgentId, endpoints: &[EndpointRow], now: i64) -> Result<(), StoreError> {
    if endpoints.len() > MAX_ENDPOINTS_PER_AGENT {
        return Err(StoreError::Limit {
            what: "endpoints of one agent",
            limit: MAX_ENDPOINTS_PER_AGENT as u32,
        });
    }
    if agents::get(db, agent)?.is_none() {
        return Err(agents::unknown(agent));
    }
    db.execute(
        "DELETE FROM endpoints WHERE site = ?1 AND agent = ?2",
        [&agent.site, &agent.name],
    )?;
    let mut insert = db.prepare_cached(
        "INSERT OR REPLACE INTO endpoints (site, host, port, protocol, agent, mode, pooling, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for endpoint in endpoints {
        label(&endpoint.host, "host")?;
        label(&endpoint.protocol, "protocol")?;
        if endpoint.port == 0 {
            return Err(StoreError::Invalid {
                what: "port",
                why: "1 to 65535",
            });
        }
        insert.execute(params![
            agent.site,
            endpoint.host,
            endpoint.port,
            endpoint.protocol,
            agent.name,
            mode(endpoint.mode),
            endpoint.pooling,
            now
        ])?;
    }
    Ok(())
}

pub(super) fn of(db: &Connection, agent: &AgentId) -> Result<Vec<EndpointRow>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT host, protocol, port, mode, pooling FROM endpoints WHERE site = ?1 AND agent = ?2
         ORDER BY host, port, protocol",
    )?;
    let rows = statement.query_and_then([&agent.site, &agent.name], from_row)?;
    rows.collect()
}

/// Asks the bindings as they are now, not as they were when the agent offered: an unbound host is lost at once.
pub(super) fn owner(db: &Connection, site: &str, host: &str, port: u16) -> Result<Vec<Candidate>, StoreError> {
    let found = at(db, site, host, Some(port))?.into_iter();
    Ok(found.map(|(_, candidate)| candidate).collect())
}

/// As [`owner`], at every port where none is given.
pub(super) fn at(
    db: &Connection,
    site: &str,
    host: &str,
    port: Option<u16>,
) -> Result<Vec<(u16, Candidate)>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT e.port, e.agent, e.protocol, e.mode, e.pooling, a.labels
         FROM endpoints e JOIN agents a ON a.site = e.site AND a.name = e.agent
         WHERE e.site = ?1 AND e.host = ?2 AND (?3 IS NULL OR e.port = ?3) AND a.disabled = 0
           AND (e.host = e.agent OR EXISTS
                (SELECT 1 FROM hosts h WHERE h.site = e.site AND h.host = e.host AND h.agent = e.agent))
         ORDER BY e.port, e.protocol, e.agent",
    )?;
    let rows = statement.query_and_then(params![site, host, port], |row| {
        Ok((row.get("port")?, candidate(site, row)?))
    })?;
    rows.collect()
}

/// As [`owner`], for every host and port.
pub(super) fn owned(db: &Connection, at_most: usize) -> Result<Vec<OwnedEndpoint>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT e.site, e.host, e.port, e.agent, e.protocol, e.mode, e.pooling, a.labels
         FROM endpoints e JOIN agents a ON a.site = e.site AND a.name = e.agent
         WHERE a.disabled = 0
           AND (e.host = e.agent OR EXISTS
                (SELECT 1 FROM hosts h WHERE h.site = e.site AND h.host = e.host AND h.agent = e.agent))
         ORDER BY e.site, e.host, e.port, e.protocol, e.agent LIMIT ?1",
    )?;
    let rows = statement.query_and_then([i64::try_from(at_most).unwrap_or(i64::MAX)], owned_row)?;
    rows.collect()
}

/// In the order of the primary key, so that a page costs what stands on it.
pub(super) fn after(
    db: &Connection,
    scope: &SiteScope,
    after: &EndpointPlace,
    limit: usize,
) -> Result<Vec<OwnedEndpoint>, StoreError> {
    let site = match scope {
        SiteScope::Every => None,
        SiteScope::One(site) => Some(site),
    };
    let mut statement = db.prepare_cached(
        "SELECT e.site, e.host, e.port, e.agent, e.protocol, e.mode, e.pooling, a.labels
         FROM endpoints e JOIN agents a ON a.site = e.site AND a.name = e.agent
         WHERE (e.site, e.host, e.port, e.protocol, e.agent) > (?1, ?2, ?3, ?4, ?5) AND a.disabled = 0
           AND (?6 IS NULL OR e.site = ?6)
           AND (e.host = e.agent OR EXISTS
                (SELECT 1 FROM hosts h WHERE h.site = e.site AND h.host = e.host AND h.agent = e.agent))
         ORDER BY e.site, e.host, e.port, e.protocol, e.agent LIMIT ?7",
    )?;
    let EndpointPlace {
        site: last_site,
        host,
        port,
        protocol,
        agent,
    } = after;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_and_then(params![last_site, host, port, protocol, agent, site, limit], owned_row)?;
    rows.collect()
}

fn owned_row(row: &Row<'_>) -> Result<OwnedEndpoint, StoreError> {
    let site: String = row.get("site")?;
    Ok(OwnedEndpoint {
        host: row.get("host")?,
        port: row.get("port")?,
        owner: candidate(&site, row)?,
    })
}

fn from_row(row: &Row<'_>) -> Result<EndpointRow, StoreError> {
    Ok(EndpointRow {
        host: row.get("host")?,
        protocol: row.get("protocol")?,
        port: row.get("port")?,
        mode: mode_from(&row.get::<_, String>("mode")?)?,
        pooling: row.get("pooling")?,
    })
}

fn candidate(site: &str, row: &Row<'_>) -> Result<Candidate, StoreError> {
    Ok(Candidate {
        agent: AgentId {
            site: site.to_owned(),
            name: row.get("agent")?,
        },
        labels: json_column(row, "labels", "agents.labels")?,
        protocol: row.get("protocol")?,
        mode: mode_from(&row.get::<_, String>("mode")?)?,
        pooling: row.get("pooling")?,
    })
}
