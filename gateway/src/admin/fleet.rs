//! `POST /v1/agents` and `POST /v1/agents/approve`: many agents in one request, all of them or none.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use fairlead_runtime::audit::Record;

use super::api::{ApproveAgents, ImportAgents, Imported, MAX_APPROVALS, MAX_IMPORT, MAX_IMPORT_BYTES};
use super::desk::{Office, about_agent, agent_id};
use super::error::ApiError;
use super::extract::{Actor, Body};
use crate::store::{AgentId, NewAgent};

/// Registers agents that have no key yet.
pub(super) async fn import(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<ImportAgents, MAX_IMPORT_BYTES>,
) -> Result<(StatusCode, Json<Imported>), ApiError> {
    bounded(request.agents.len(), MAX_IMPORT)?;
    let agents = request.agents.into_iter().map(|agent| {
        Ok(NewAgent {
            id: agent_id(agent.site, agent.name)?,
            labels: agent.labels,
        })
    });
    let agents = agents.collect::<Result<Vec<_>, ApiError>>()?;
    let imported = agents.len();
    let lines = agents.iter().map(|agent| {
        let mut line = about_agent("agent.import", &agent.id);
        line.fact("labels", serde_json::json!(agent.labels));
        line
    });
    let lines = lines.collect();
    office
        .change_many(actor, lines, move |store| store.import_agents(&agents))
        .await?;
    Ok((StatusCode::CREATED, Json(Imported { imported })))
}

/// Approves names that devices hold.
pub(super) async fn approve(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<ApproveAgents>,
) -> Result<Json<ApproveAgents>, ApiError> {
    bounded(request.agents.len(), MAX_APPROVALS)?;
    let named = request.agents.clone().into_iter();
    let ids = named.map(|agent| agent_id(agent.site, agent.name));
    let ids = ids.collect::<Result<Vec<AgentId>, ApiError>>()?;
    let lines: Vec<Record> = ids.iter().map(|id| about_agent("agent.approve", id)).collect();
    office
        .change_many(actor, lines, move |store| store.approve_agents(&ids))
        .await?;
    Ok(Json(request))
}

fn bounded(count: usize, most: usize) -> Result<(), ApiError> {
    if (1..=most).contains(&count) {
        return Ok(());
    }
    let reason = format!("{count} agents in one request");
    Err(ApiError::invalid(reason, format!("name 1 to {most}")))
}
