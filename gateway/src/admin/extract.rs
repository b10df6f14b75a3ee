//! Taking a request apart, so that whatever is wrong with it is said as JSON.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::MAX_BODY_BYTES;
use super::error::ApiError;
use crate::store::SiteScope;

/// Who sits at the other end of the connection, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Actor {
    /// User id on this machine.
    pub(super) uid: u32,
}

/// The body: JSON of at most `MAX` bytes, 64 KiB unless the route takes more.
pub(super) struct Body<T, const MAX: usize = MAX_BODY_BYTES>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned, const MAX: usize> FromRequest<S> for Body<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let collected = Limited::new(request.into_body(), MAX).collect().await;
        let bytes = collected.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return ApiError::too_large(MAX);
            }
            ApiError::unreadable(format!("the request ended early: {error}"))
        })?;
        let parsed = serde_json::from_slice(&bytes.to_bytes());
        parsed
            .map(Self)
            .map_err(|error| ApiError::unreadable(format!("the request is not what this route takes: {error}")))
    }
}

/// The variable parts of the path.
pub(super) struct Segments<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        let Path(segments) = path.map_err(|error: PathRejection| ApiError::unreadable(error.body_text()))?;
        Ok(Self(segments))
    }
}

/// The scope of a list, `?site=S` or every site.
pub(super) struct Scope(pub(super) SiteScope);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    site: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Scope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<Filter>::from_request_parts(parts, state).await;
        let Query(filter) = query.map_err(|error: QueryRejection| ApiError::unreadable(error.body_text()))?;
        Ok(Self(filter.site.map_or(SiteScope::Every, SiteScope::One)))
    }
}
