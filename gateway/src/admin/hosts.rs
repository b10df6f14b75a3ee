//! `/v1/hosts`: names beside its own on which an agent may offer endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use fairlead_runtime::audit::Record;

use super::api::{BindHost, Host, Hosts};
use super::desk::{Office, about_agent, agent_id, label};
use super::error::ApiError;
use super::extract::{Actor, Body, Scope, Segments};
use super::live::Change;
use crate::store::{AgentId, HostRow, SiteScope, Store, StoreError};

pub(super) async fn list(State(office): State<Arc<Office>>, Scope(scope): Scope) -> Result<Json<Hosts>, ApiError> {
    let rows = office.ask(move |store| store.hosts(&scope)).await?;
    Ok(Json(Hosts { hosts: grouped(rows) }))
}

pub(super) async fn bind(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<BindHost>,
) -> Result<(StatusCode, Json<Host>), ApiError> {
    if request.agents.is_empty() {
        return Err(ApiError::invalid(
            "a host is bound to agents, and none is named",
            "name at least one agent",
        ));
    }
    label("host", &request.host)?;
    label("site", &request.site)?;
    let ids = request
        .agents
        .iter()
        .map(|agent| agent_id(request.site.clone(), agent.clone()));
    let told = ids
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(Change::Agent)
        .collect();
    let mut record = Record::new("host.bind");
    record.site = Some(request.site.clone());
    record.fact("host", request.host.clone());
    record.fact("agents", request.agents.iter().cloned().collect::<Vec<_>>());
    let host = office
        .change(actor, record, told, move |store| bind_all(store, &request))
        .await?;
    Ok((StatusCode::CREATED, Json(host)))
}

pub(super) async fn unbind(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Segments((site, host, agent)): Segments<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let id = agent_id(site, agent)?;
    label("host", &host)?;
    let mut record = about_agent("host.unbind", &id);
    record.fact("host", host.clone());
    let told = Change::Agent(id.clone());
    office
        .change(actor, record, vec![told], move |store| {
            if store.unbind_host(&id, &host)? {
                return Ok(());
            }
            Err(StoreError::NotFound {
                what: format!("binding of host {host} in site {} to agent {}", id.site, id.name),
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Looks at every agent before it binds the first, so that a slip in the last name leaves nothing behind.
fn bind_all(store: &mut dyn Store, request: &BindHost) -> Result<Host, StoreError> {
    let ids: Vec<_> = request
        .agents
        .iter()
        .map(|agent| AgentId::new(&request.site, agent))
        .collect();
    for id in &ids {
        if store.agent(id)?.is_none() {
            return Err(StoreError::NotFound {
                what: format!("agent {} in site {}", id.name, id.site),
            });
        }
    }
    ids.iter().try_for_each(|id| store.bind_host(id, &request.host))?;
    let rows = store.hosts(&SiteScope::One(request.site.clone()))?;
    let agents = rows
        .into_iter()
        .filter(|row| row.host == request.host)
        .map(|row| row.agent.name)
        .collect();
    Ok(Host {
        host: request.host.clone(),
        site: request.site.clone(),
        agents,
    })
}

fn grouped(rows: Vec<HostRow>) -> Vec<Host> {
    let mut hosts = BTreeMap::new();
    for HostRow { host, agent } in rows {
        let key = (agent.site.clone(), host.clone());
        let entry = hosts.entry(key).or_insert_with(|| Host {
            host,
            site: agent.site,
            agents: Default::default(),
        });
        entry.agents.insert(agent.name);
    }
    hosts.into_values().collect()
}
