//! `POST /v1/revocations`: shutting out an agent, a caller, a login key, a session or a join string's bearers, at once and
//! across restarts.
//!
//! The store is changed first, so that nothing new is let in; then the running gateway cuts what lives.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use fairlead_identity::name;
use fairlead_runtime::audit::Record;
use fairlead_wire::refusal::Reason;

use super::api::{Revoke, Revoked};
use super::desk::{Office, about_agent, about_caller, label};
use super::error::ApiError;
use super::extract::{Actor, Body};
use super::keys::one_key;
use super::live::{Change, LiveSession};
use super::sessions::{session_id, unknown};
use crate::store::{AgentId, CallerKind, CallerName, KeyKind};

pub(super) async fn revoke(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<Revoke>,
) -> Result<Json<Revoked>, ApiError> {
    let Revoke {
        agent,
        user,
        workload,
        login_key,
        session,
        token,
    } = request;
    let done = match (agent, user, workload, login_key, session, token) {
        (Some(agent), None, None, None, None, None) => revoke_agent(&office, actor, &agent).await,
        (None, Some(user), None, None, None, None) => revoke_caller(&office, actor, CallerName::user(user)).await,
        (None, None, Some(name), None, None, None) => revoke_caller(&office, actor, CallerName::workload(name)).await,
        (None, None, None, Some(key), None, None) => revoke_key(&office, actor, key).await,
        (None, None, None, None, Some(session), None) => revoke_session(&office, actor, &session).await,
        (None, None, None, None, None, Some(token)) => revoke_token(&office, actor, token).await,
        _ => Err(ApiError::invalid(
            "one thing is revoked at a time",
            "name an agent, a user, a workload, a login key, a session or a join string",
        )),
    };
    done.map(Json)
}

/// The agent stays known: its name is free again only when it is deleted.
async fn revoke_agent(office: &Office, actor: Actor, text: &str) -> Result<Revoked, ApiError> {
    let (host, site) = name::parse_host(text, "").map_err(|error| ApiError::invalid(error.to_string(), ""))?;
    let id = AgentId::new(site.as_str(), host.as_str());
    let sessions = count(office, |live| live.agent == id);
    let (told, shown) = (Change::AgentGone(id.clone()), id.to_string());
    let record = about_agent("agent.revoke", &id);
    office
        .change(actor, record, vec![told], move |store| store.revoke_agent(&id))
        .await?;
    Ok(revoked("agent", shown, None, sessions))
}

async fn revoke_caller(office: &Office, actor: Actor, id: CallerName) -> Result<Revoked, ApiError> {
    label("name", &id.name)?;
    let sessions = count(office, |live| is_of(live, &id));
    let event = match id.kind {
        CallerKind::User => "user.revoke",
        CallerKind::Workload => "workload.revoke",
    };
    let (told, record, shown) = (Change::Caller(id.clone()), about_caller(event, &id), id.clone());
    office
        .change(actor, record, vec![told], move |store| store.revoke_caller(&id))
        .await?;
    Ok(revoked(shown.kind.as_str(), shown.name, None, sessions))
}

async fn revoke_key(office: &Office, actor: Actor, beginning: String) -> Result<Revoked, ApiError> {
    let key = office
        .ask(move |store| one_key(store, &beginning, |key| key.kind == KeyKind::Login))
        .await?;
    let proved = format!("certificate {}", key.fingerprint);
    let sessions = count(office, |live| is_of(live, &key.caller) && live.proved == proved);
    let mut record = about_caller("key.revoke", &key.caller);
    record.fact("keys", vec![key.fingerprint.clone()]);
    let (told, of, id) = (
        Change::Caller(key.caller.clone()),
        key.caller.to_string(),
        key.fingerprint.clone(),
    );
    office
        .change(actor, record, vec![told], move |store| {
            store.remove_caller_key(&key.caller, &key.fingerprint).map(drop)
        })
        .await?;
    Ok(revoked("login-key", id, Some(of), sessions))
}

async fn revoke_session(office: &Arc<Office>, actor: Actor, text: &str) -> Result<Revoked, ApiError> {
    let session = session_id(text)?;
    let mut record = Record::new("session.revoke");
    record.session = Some(session.to_string());
    let within = Arc::clone(office);
    let ended = async move {
        match within.live().end(session, Reason::Revoked) {
            true => Ok(()),
            false => Err(unknown(session)),
        }
    };
    office.settle(actor, record, ended).await?;
    Ok(revoked("session", session.to_string(), None, 1))
}

/// What was enrolled by the string stays.
async fn revoke_token(office: &Office, actor: Actor, beginning: String) -> Result<Revoked, ApiError> {
    if beginning.is_empty() || !beginning.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let reason = "a join string is named by its id, in hex digits: never by the string itself";
        return Err(ApiError::invalid(reason, "see `fairlead token list`"));
    }
    let (beginning, now) = (beginning.to_ascii_lowercase(), office.now());
    let mut record = Record::new("token.revoke");
    record.fact("token", beginning.clone());
    let token = office
        .change(actor, record, Vec::new(), move |store| {
            store.withdraw_token(&beginning, now)
        })
        .await?;
    let site = token.site.map(|site| format!(".{site}")).unwrap_or_default();
    let of = format!("{} {}{site}", token.kind, token.name);
    Ok(revoked("token", token.id, Some(of), 0))
}

fn revoked(kind: &str, id: String, of: Option<String>, sessions: usize) -> Revoked {
    Revoked {
        kind: kind.to_owned(),
        id,
        of,
        sessions,
    }
}

fn is_of(live: &LiveSession, id: &CallerName) -> bool {
    live.kind == id.kind.as_str() && live.caller == id.name
}

fn count(office: &Office, concerned: impl Fn(&LiveSession) -> bool) -> usize {
    office.live().sessions().iter().filter(|live| concerned(live)).count()
}
