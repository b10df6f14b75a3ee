//! `/v1/tokens`: join strings.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use fairlead_identity::join::{JoinKind, JoinSecret, JoinString};
use fairlead_identity::ssh;
use secrecy::ExposeSecret;

use super::api::{CreateToken, DEFAULT_SITE, DEFAULT_TTL_SECONDS, MAX_TTL_SECONDS, Token, TokenCreated, Tokens};
use super::desk::{Office, about_agent, about_caller, label};
use super::error::ApiError;
use super::extract::{Actor, Body};
use crate::store::{
    AgentId, CallerKind, CallerName, NamePattern, NewToken, Terms, TokenGrant, TokenKind, WaitingToken,
};

/// The shortest life of a join string, in seconds.
const MIN_TTL_SECONDS: u64 = 10;

pub(super) async fn create(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<CreateToken>,
) -> Result<Response, ApiError> {
    let (ttl, terms) = (ttl(&request)?, terms(&request)?);
    let grant = grant(request)?;
    let created = office.now();
    let expires = created.saturating_add(ttl);
    let secret = JoinSecret::generate().map_err(|error| ApiError::failed(error.to_string()))?;
    let token = NewToken {
        secret_sha256: secret.sha256(),
        grant: grant.clone(),
        terms,
        created,
        expires,
    };
    let join = JoinString {
        kind: join_kind(grant.kind),
        addresses: office.join().addresses.clone(),
        domain: office.join().domain.clone(),
        ca_sha256: *office.join().ca_sha256.borrow(),
        secret,
    };
    let id = join
        .secret
        .sha256()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // Written before it is kept: a string that cannot be shown must not be good.
    let text = join.encode().map_err(|error| ApiError::failed(error.to_string()))?;

    let mut record = match (&grant.kind, &grant.site) {
        (TokenKind::Agent, Some(site)) => about_agent("token.create", &AgentId::new(site, &grant.name)),
        (kind, _) => about_caller(
            "token.create",
            &CallerName::new(kind.caller().unwrap_or(CallerKind::User), &grant.name),
        ),
    };
    record.fact("expires", expires);
    match terms {
        Terms::Once => {}
        Terms::Replace => record.fact("replace", true),
        Terms::Fleet { uses, approval } => {
            record.fact("uses", uses);
            record.fact("approval", approval);
        }
    }
    record.fact("labels", serde_json::json!(grant.labels));
    record.fact("groups", grant.groups.iter().cloned().collect::<Vec<_>>());
    record.fact("hosts", grant.hosts.iter().cloned().collect::<Vec<_>>());
    office
        .change(actor, record, Vec::new(), move |store| store.create_token(&token))
        .await?;

    let answer = TokenCreated {
        join: text.expose_secret().to_owned(),
        id,
        kind: join.kind.as_str().to_owned(),
        name: grant.name,
        site: grant.site,
        expires,
        uses: match terms {
            Terms::Fleet { uses, .. } => uses,
            _ => 1,
        },
        approval: matches!(terms, Terms::Fleet { approval: true, .. }),
    };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

pub(super) async fn list(State(office): State<Arc<Office>>) -> Result<Json<Tokens>, ApiError> {
    let now = office.now();
    let waiting = office.ask(move |store| store.waiting_tokens(now)).await?;
    let shown = |token: WaitingToken| Token {
        id: token.id,
        kind: token.kind,
        name: token.name,
        site: token.site,
        created: token.created,
        expires: token.expires,
        uses: token.uses,
        used: token.used,
    };
    let tokens = waiting.into_iter().map(shown).collect();
    Ok(Json(Tokens { tokens }))
}

fn ttl(request: &CreateToken) -> Result<i64, ApiError> {
    let seconds = request.ttl_seconds.unwrap_or(DEFAULT_TTL_SECONDS);
    if !(MIN_TTL_SECONDS..=MAX_TTL_SECONDS).contains(&seconds) {
        return Err(ApiError::invalid(
            format!("a join string cannot be good for {seconds} s"),
            format!(
                "choose between {MIN_TTL_SECONDS} s and {} days",
                MAX_TTL_SECONDS / 86_400
            ),
        ));
    }
    i64::try_from(seconds).map_err(|_| ApiError::failed("time overflow"))
}

fn terms(request: &CreateToken) -> Result<Terms, ApiError> {
    let fleet_only = request.uses.is_some() || request.no_approval;
    if request.agents.is_some() {
        return match request.replace {
            true => Err(ApiError::invalid(
                "a fleet's join string replaces no key",
                "make one per agent",
            )),
            false => Ok(Terms::Fleet {
                uses: request.uses.unwrap_or(1),
                approval: !request.no_approval,
            }),
        };
    }
    if fleet_only {
        let reason = "uses and approval are for fleets (agents, not agent, user or workload)";
        return Err(ApiError::invalid(
            reason,
            "leave them out: every other join string is for one use",
        ));
    }
    if !request.replace {
        return Ok(Terms::Once);
    }
    if request.agent.is_none() || !request.labels.is_empty() || !request.hosts.is_empty() {
        let reason = "only an agent's key is replaced, and its labels and hosts stay as they are";
        return Err(ApiError::invalid(
            reason,
            "change labels with `fairlead agents label`, hosts with `fairlead hosts`",
        ));
    }
    Ok(Terms::Replace)
}

fn grant(request: CreateToken) -> Result<TokenGrant, ApiError> {
    let is_fleet = request.agents.is_some();
    let named = [
        (TokenKind::Agent, request.agent),
        (TokenKind::Agent, request.agents),
        (TokenKind::User, request.user),
        (TokenKind::Workload, request.workload),
    ];
    let mut named = named.into_iter().filter_map(|(kind, name)| Some((kind, name?)));
    let (Some((kind, name)), None) = (named.next(), named.next()) else {
        let reason = "a join string is for one agent, a fleet of agents, one user or one workload";
        return Err(ApiError::invalid(reason, "name exactly one of them"));
    };
    let site = match kind {
        TokenKind::Agent => Some(request.site.unwrap_or_else(|| DEFAULT_SITE.to_owned())),
        TokenKind::User | TokenKind::Workload => request.site,
    };
    match kind {
        TokenKind::Agent if is_fleet => drop(NamePattern::new(&name)?),
        TokenKind::Agent => label("agent name", &name)?,
        TokenKind::User | TokenKind::Workload => caller_name(&name)?,
    }
    site.iter().try_for_each(|site| label("site", site))?;
    Ok(TokenGrant {
        kind,
        name,
        site,
        labels: request.labels,
        groups: request.groups,
        hosts: request.hosts,
    })
}

/// Refuses names that no SSH certificate may carry.
pub(super) fn caller_name(name: &str) -> Result<(), ApiError> {
    let label = name
        .parse()
        .map_err(|error| ApiError::invalid(format!("name: {error}"), ""))?;
    if ssh::is_reserved_user_name(&label) {
        let reason = format!("nobody can be called {name}: in SSH certificates g-… stands for a group");
        return Err(ApiError::invalid(reason, "choose another name"));
    }
    Ok(())
}

fn join_kind(kind: TokenKind) -> JoinKind {
    match kind {
        TokenKind::Agent => JoinKind::Agent,
        TokenKind::User => JoinKind::User,
        TokenKind::Workload => JoinKind::Workload,
    }
}
