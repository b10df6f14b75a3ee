//! `/v1/sessions`: who is connected now, and ending it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use fairlead_runtime::audit::Record;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;

use super::api::{self, Sessions};
use super::desk::{Office, unix};
use super::error::ApiError;
use super::extract::{Actor, Scope, Segments};
use super::live::LiveSession;
use crate::store::SiteScope;

pub(super) async fn list(State(office): State<Arc<Office>>, Scope(scope): Scope) -> Json<Sessions> {
    let within = |session: &LiveSession| match &scope {
        SiteScope::Every => true,
        SiteScope::One(site) => session.agent.site == *site,
    };
    let sessions = office.live().sessions().into_iter().filter(within).map(shown);
    Json(Sessions {
        sessions: sessions.collect(),
    })
}

pub(super) async fn kill(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Segments(id): Segments<String>,
) -> Result<StatusCode, ApiError> {
    let session = session_id(&id)?;
    let mut record = Record::new("session.kill");
    record.session = Some(session.to_string());
    let within = Arc::clone(&office);
    let ended = async move {
        if within.live().end(session, Reason::Killed) {
            return Ok(());
        }
        Err(unknown(session))
    };
    office.settle(actor, record, ended).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn show(
    State(office): State<Arc<Office>>,
    Segments(id): Segments<String>,
) -> Result<Json<api::Session>, ApiError> {
    let session = session_id(&id)?;
    let found = office
        .live()
        .sessions()
        .into_iter()
        .find(|live| live.session == session);
    found.map(|live| Json(shown(live))).ok_or_else(|| unknown(session))
}

pub(super) fn session_id(text: &str) -> Result<SessionId, ApiError> {
    let help = "copy it from `fairlead sessions list` or from the refusal";
    text.parse()
        .map_err(|_| ApiError::invalid("that is not a session id", help))
}

pub(super) fn unknown(session: SessionId) -> ApiError {
    ApiError::not_found(
        format!("there is no live session {session}"),
        "it may have ended by itself",
    )
}

fn shown(session: LiveSession) -> api::Session {
    api::Session {
        id: session.session.to_string(),
        caller: session.caller,
        kind: session.kind.to_owned(),
        endpoint: session.endpoint,
        agent: session.agent.name,
        site: session.agent.site,
        rule: session.rule,
        client_ip: session.client_ip,
        proved: session.proved,
        acts: session.acts,
        started: unix(session.started),
        bytes_in: session.bytes_in,
        bytes_out: session.bytes_out,
    }
}
