//! `/v1/agents`: what the store knows of agents, joined with who is online.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use fairlead_identity::ssh;

use super::api::{self, AgentDetail, Agents, ChangeAgent, HostKeysTrusted, RenameAgent};
use super::desk::{Office, about_agent, agent_id, unix};
use super::error::ApiError;
use super::extract::{Actor, Body, Scope, Segments};
use super::live::Change;
use crate::store::{AgentId, AgentRow, EndpointRow, HostKeyRow, KeyLines, Mode, Store, StoreError};

pub(super) async fn list(State(office): State<Arc<Office>>, Scope(scope): Scope) -> Result<Json<Agents>, ApiError> {
    let rows = office.ask(move |store| store.agents(&scope)).await?;
    let mut live = seen(&office);
    let agents = rows.into_iter().map(|row| {
        let seen = live.remove(&row.id).unwrap_or_default();
        shown(row, seen)
    });
    Ok(Json(Agents {
        agents: agents.collect(),
    }))
}

pub(super) async fn show(
    State(office): State<Arc<Office>>,
    Segments((site, name)): Segments<(String, String)>,
) -> Result<Json<AgentDetail>, ApiError> {
    let id = agent_id(site, name)?;
    let asked = id.clone();
    let (row, hosts, endpoints, host_keys) = office
        .ask(move |store| {
            Ok((
                present(store, &asked)?,
                store.hosts_of(&asked)?,
                store.endpoints_of(&asked)?,
                store.host_keys_of(&asked)?,
            ))
        })
        .await?;
    let seen = seen(&office).remove(&id).unwrap_or_default();
    let endpoints = endpoints.into_iter().map(shown_endpoint).collect();
    Ok(Json(AgentDetail {
        agent: shown(row, seen),
        hosts,
        endpoints,
        host_keys: host_keys.into_iter().map(shown_keys).collect(),
    }))
}

pub(super) async fn change(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Segments((site, name)): Segments<(String, String)>,
    Body(request): Body<ChangeAgent>,
) -> Result<Json<api::Agent>, ApiError> {
    let id = agent_id(site, name)?;
    let mut record = about_agent("agent.label", &id);
    record.fact("labels", serde_json::json!(request.labels));
    let told = Change::Agent(id.clone());
    let seen = seen(&office).remove(&id).unwrap_or_default();
    let row = office
        .change(actor, record, vec![told], move |store| {
            let mut labels = present(store, &id)?.labels;
            for (key, value) in request.labels {
                match value {
                    Some(value) => drop(labels.insert(key, value)),
                    None => drop(labels.remove(&key)),
                }
            }
            store.set_agent_labels(&id, &labels)?;
            present(store, &id)
        })
        .await?;
    Ok(Json(shown(row, seen)))
}

pub(super) async fn trust_host_keys(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Segments((site, name)): Segments<(String, String)>,
) -> Result<Json<HostKeysTrusted>, ApiError> {
    let id = agent_id(site, name)?;
    let asked = id.clone();
    let held = office.ask(move |store| store.host_keys_of(&asked)).await?;
    let mut record = about_agent("hostkey.trust", &id);
    let held = held
        .into_iter()
        .filter_map(|row| Some((row.port, fingerprints(&row.held?))));
    record.fact("keys", held.flat_map(|(_, keys)| keys).collect::<Vec<_>>());
    let rows = office
        .change(actor, record, Vec::new(), move |store| store.trust_host_keys(&id))
        .await?;
    Ok(Json(HostKeysTrusted {
        host_keys: rows.into_iter().map(shown_keys).collect(),
    }))
}

pub(super) async fn rename(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Segments((site, name)): Segments<(String, String)>,
    Body(request): Body<RenameAgent>,
) -> Result<Json<api::Agent>, ApiError> {
    let id = agent_id(site, name)?;
    let new = agent_id(id.site.clone(), request.to)?;
    let mut record = about_agent("agent.rename", &id);
    record.fact("to", new.name.clone());
    let told = Change::AgentRenamed(id.clone());
    let row = office
        .change(actor, record, vec![told], move |store| {
            store.rename_agent(&id, &new.name)?;
            present(store, &new)
        })
        .await?;
    Ok(Json(shown(row, Seen::default())))
}

pub(super) async fn delete(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Segments((site, name)): Segments<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let id = agent_id(site, name)?;
    let record = about_agent("agent.delete", &id);
    let told = Change::AgentGone(id.clone());
    office
        .change(actor, record, vec![told], move |store| store.delete_agent(&id))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the running gateway sees of an agent.
#[derive(Default)]
struct Seen {
    link: Option<api::Link>,
    conflict: Option<api::Conflict>,
}

fn seen(office: &Office) -> BTreeMap<AgentId, Seen> {
    let mut seen: BTreeMap<AgentId, Seen> = BTreeMap::new();
    for agent in office.live().online() {
        seen.entry(agent.agent).or_default().link = Some(api::Link {
            transport: agent.transport.to_owned(),
            address: agent.address.to_string(),
            since: unix(agent.since),
        });
    }
    for conflict in office.live().conflicts() {
        seen.entry(conflict.agent).or_default().conflict = Some(api::Conflict {
            serving: conflict.serving.to_string(),
            other: conflict.other.to_string(),
            since: unix(conflict.since),
            last: unix(conflict.last),
            tries: conflict.tries,
        });
    }
    seen
}

fn present(store: &mut dyn Store, id: &AgentId) -> Result<AgentRow, StoreError> {
    let unknown = || StoreError::NotFound {
        what: format!("agent {} in site {}", id.name, id.site),
    };
    store.agent(id)?.ok_or_else(unknown)
}

fn shown(row: AgentRow, seen: Seen) -> api::Agent {
    api::Agent {
        name: row.id.name,
        site: row.id.site,
        labels: row.labels,
        reported: row.reported,
        enrolled_at: row.enrolled_at,
        last_seen: row.last_seen,
        certificate_serial: row.serial,
        certificate_not_after: row.not_after,
        disabled: row.disabled,
        pending: row.pending,
        online: seen.link,
        conflict: seen.conflict,
    }
}

fn shown_endpoint(row: EndpointRow) -> api::Endpoint {
    let mode = match row.mode {
        Mode::Tunnel => "tunnel",
        Mode::Builtin => "builtin",
    };
    api::Endpoint {
        host: row.host,
        protocol: row.protocol,
        port: row.port,
        mode: mode.to_owned(),
    }
}

fn shown_keys(row: HostKeyRow) -> api::HostKeys {
    api::HostKeys {
        trusted: fingerprints(&row.trusted),
        held: row.held.as_ref().map(fingerprints),
        held_at: row.held_at,
        seen_at: row.seen_at,
        host: row.host,
        port: row.port,
    }
}

/// The keys as OpenSSH prints their fingerprints.
fn fingerprints(keys: &KeyLines) -> Vec<String> {
    let key = |line: &String| ssh::parse_public_line(line).ok();
    keys.iter().filter_map(key).map(|key| ssh::fingerprint(&key)).collect()
}
