//! `/metrics`, `/healthz`, `/readyz`: for machines that watch.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fairlead_runtime::metrics::CONTENT_TYPE;

use super::desk::Office;

pub(super) async fn metrics(State(office): State<Arc<Office>>) -> Response {
    match office.live().metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written as text");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Answers as long as the process turns; it says nothing about whether work is taken.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(office): State<Arc<Office>>) -> (StatusCode, String) {
    match office.live().ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
