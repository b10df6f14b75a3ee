//! A refusal: the status for programs, the words for people.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::api::ErrorBody;
use super::live::NotAudited;
use crate::store::StoreError;

/// Why a request was refused. Prints as JSON `{error, reason, help}`.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    error: &'static str,
    reason: String,
    help: String,
}

impl ApiError {
    fn new(status: StatusCode, error: &'static str, reason: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            status,
            error,
            reason: reason.into(),
            help: help.into(),
        }
    }

    /// The request cannot be meant.
    pub(super) fn invalid(reason: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", reason, help)
    }

    /// The bytes are not the request this route takes.
    pub(super) fn unreadable(reason: impl Into<String>) -> Self {
        let help = "the command line and the gateway may be of different releases: compare `--version`";
        Self::new(StatusCode::BAD_REQUEST, "invalid", reason, help)
    }

    pub(super) fn not_found(reason: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", reason, help)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let reason = format!("the request is larger than {limit} bytes");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            reason,
            "ask for less at a time",
        )
    }

    pub(super) fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method",
            "this route does not know that method",
            "",
        )
    }

    pub(super) fn policy(mistakes: &[String]) -> Self {
        let help =
            "the last good policy stays in force; correct the files, try them with `fairlead policy check`, reload";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "policy", mistakes.join("\n"), help)
    }

    /// The mistakes of a policy that was only tried.
    pub(super) fn policy_as_it_would_be(mistakes: &[String]) -> Self {
        let help = "nothing was changed; try the files with `fairlead policy check`";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "policy", mistakes.join("\n"), help)
    }

    pub(super) fn limit(reason: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "limit", reason, help)
    }

    pub(super) fn busy(reason: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            reason,
            "look whether it was done, then try again",
        )
    }

    pub(super) fn failed(reason: impl Into<String>) -> Self {
        let help = "the gateway's log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", reason, help)
    }

    /// The word for programs, also the `reason` in the audit.
    pub(super) fn error(&self) -> &'static str {
        self.error
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } => Self::not_found(error.to_string(), "look at the list for its name"),
            StoreError::Conflict { what, help } => Self::new(StatusCode::CONFLICT, "conflict", what, help),
            StoreError::Limit { .. } => {
                Self::new(StatusCode::CONFLICT, "limit", error.to_string(), "remove some first")
            }
            StoreError::Invalid { .. } => Self::invalid(error.to_string(), ""),
            StoreError::Busy { .. } | StoreError::TimedOut { .. } | StoreError::Closed => Self::busy(error.to_string()),
            StoreError::Open { .. }
            | StoreError::NewerSchema { .. }
            | StoreError::Foreign { .. }
            | StoreError::Panicked
            | StoreError::Damaged { .. }
            | StoreError::Engine(_) => {
                tracing::error!(%error, "the state store failed an administrator's request");
                Self::failed(error.to_string())
            }
        }
    }
}

impl From<NotAudited> for ApiError {
    fn from(error: NotAudited) -> Self {
        let help = "make room on its disk or mend its file; the gateway's log says more";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "audit-failed", error.to_string(), help)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: self.error.to_owned(),
            reason: self.reason,
            help: self.help,
        };
        (self.status, Json(body)).into_response()
    }
}
