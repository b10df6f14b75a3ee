//! The routes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use fairlead_runtime::tasks::TaskGroup;

use super::desk::{Desk, Office};
use super::error::ApiError;
use super::{
    agents, authority, callers, explain, fleet, health, hosts, keys, policy, revocations, sessions, tokens, users,
    workloads,
};
use crate::store::CallerKind;

/// From the request's head to the answer's.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The routes of the unix socket, and the few of the TCP address.
pub(super) fn build(desk: Desk, tasks: TaskGroup) -> (Router, Router) {
    let office = Office::new(desk, tasks);
    let public = watching().with_state(Arc::clone(&office));
    let admin = Router::new()
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/users", get(users::list).post(users::add))
        .nest("/v1/users/{name}", of_caller(CallerKind::User))
        .route("/v1/users/{name}/keys", post(keys::add))
        .route("/v1/workloads", get(workloads::list).post(workloads::add))
        .nest("/v1/workloads/{name}", of_caller(CallerKind::Workload))
        .route("/v1/revocations", post(revocations::revoke))
        .route("/v1/agents", get(agents::list).post(fleet::import))
        .route("/v1/agents/{site}/{name}/rename", post(agents::rename))
        .route("/v1/agents/approve", post(fleet::approve))
        .route(
            "/v1/agents/{site}/{name}",
            get(agents::show).patch(agents::change).delete(agents::delete),
        )
        .route("/v1/agents/{site}/{name}/trust-hostkey", post(agents::trust_host_keys))
        .route("/v1/hosts", get(hosts::list).post(hosts::bind))
        .route("/v1/hosts/{site}/{host}/{agent}", delete(hosts::unbind))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/{id}", get(sessions::show).delete(sessions::kill))
        .route("/v1/policy", get(policy::files))
        .route("/v1/policy/reload", post(policy::reload))
        .route("/v1/policy/try", post(policy::attempt))
        .route("/v1/policy/explain", post(explain::explain))
        .route("/v1/policy/inventory", get(explain::inventory))
        .route("/v1/ca/reload", post(authority::reload))
        .merge(watching())
        .with_state(office);
    (finished(admin), finished(public))
}

/// What is done to one user or workload. A fingerprint may hold slashes, so it is the rest of the path.
fn of_caller(kind: CallerKind) -> Router<Arc<Office>> {
    Router::new()
        .route("/", get(callers::show).patch(callers::change).delete(callers::delete))
        .route("/keys", get(keys::list))
        .route("/keys/{*fingerprint}", delete(keys::remove).post(keys::renew))
        .layer(Extension(kind))
}

fn watching() -> Router<Arc<Office>> {
    Router::new()
        .route("/metrics", get(health::metrics))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
}

fn finished(routes: Router) -> Router {
    routes
        .fallback(async || ApiError::not_found("there is no such route", "compare `--version` of both programs"))
        .method_not_allowed_fallback(async || ApiError::method())
        .layer(from_fn(in_time))
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            ApiError::busy(format!("the gateway had no answer within {} s", ANSWER_LIMIT.as_secs())).into_response()
        }
    }
}
