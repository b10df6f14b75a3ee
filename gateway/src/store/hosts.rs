//! Hosts bound to agents: the names beside its own on which an agent may offer endpoints.

use rusqlite::{Connection, Row, params_from_iter};

use super::columns::{agent_id, label};
use super::{AgentId, HostRow, MAX_BINDINGS, Names, SiteScope, StoreError, agents};

pub(super) fn bind(db: &Connection, agent: &AgentId, host: &str) -> Result<(), StoreError> {
    agent_id(agent)?;
    label(host, "host")?;
    if agents::get(db, agent)?.is_none() {
        return Err(agents::unknown(agent));
    }
    name_is_free(db, agent, host)?;
    if bindings(db, "host", &agent.site, host)? >= MAX_BINDINGS {
        return Err(StoreError::Limit {
            what: "agents bound to one host",
            limit: MAX_BINDINGS,
        });
    }
    if bindings(db, "agent", &agent.site, &agent.name)? >= MAX_BINDINGS {
        return Err(StoreError::Limit {
            what: "hosts bound to one agent",
            limit: MAX_BINDINGS,
        });
    }
    let statement = "INSERT INTO hosts (site, host, agent) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    db.execute(statement, [&agent.site, host, &agent.name])?;
    Ok(())
}

/// Refuses a host that is another agent's own name.
pub(super) fn name_is_free(db: &Connection, agent: &AgentId, host: &str) -> Result<(), StoreError> {
    let as_agent = AgentId::new(&agent.site, host);
    if as_agent != *agent && agents::get(db, &as_agent)?.is_some() {
        return Err(StoreError::Conflict {
            what: format!("{host} in site {} is an agent's own name", agent.site),
            help: "bind another host name: an agent's name stays its own, even while it is offline".into(),
        });
    }
    Ok(())
}

pub(super) fn unbind(db: &Connection, agent: &AgentId, host: &str) -> Result<bool, StoreError> {
    let statement = "DELETE FROM hosts WHERE site = ?1 AND host = ?2 AND agent = ?3";
    Ok(db.execute(statement, [&agent.site, host, &agent.name])? == 1)
}

pub(super) fn of(db: &Connection, agent: &AgentId) -> Result<Names, StoreError> {
    let mut statement = db.prepare_cached("SELECT host FROM hosts WHERE site = ?1 AND agent = ?2")?;
    let hosts = statement.query_map([&agent.site, &agent.name], |row| row.get(0))?;
    Ok(hosts.collect::<Result<_, _>>()?)
}

pub(super) fn list(db: &Connection, scope: &SiteScope) -> Result<Vec<HostRow>, StoreError> {
    let order = "ORDER BY site, host, agent";
    let (mut statement, site) = match scope {
        SiteScope::Every => (
            db.prepare_cached(&format!("SELECT site, host, agent FROM hosts {order}"))?,
            None,
        ),
        SiteScope::One(site) => (
            db.prepare_cached(&format!("SELECT site, host, agent FROM hosts WHERE site = ?1 {order}"))?,
            Some(site),
        ),
    };
    let rows = statement.query_map(params_from_iter(site), from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many rows hold this name in `column` (`host` or `agent`, never a caller's text).
fn bindings(db: &Connection, column: &'static str, site: &str, name: &str) -> Result<u32, StoreError> {
    let statement = format!("SELECT count(*) FROM hosts WHERE site = ?1 AND {column} = ?2");
    Ok(db.query_row(&statement, [site, name], |row| row.get(0))?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<HostRow> {
    Ok(HostRow {
        host: row.get("host")?,
        agent: AgentId {
            site: row.get("site")?,
            name: row.get("agent")?,
        },
    })
}
