//! `POST /v1/ca/reload`: `fairlead-gateway ca` has changed the files.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use fairlead_runtime::audit::Record;

use super::api::CaReloaded;
use super::desk::Office;
use super::error::ApiError;
use super::extract::Actor;

pub(super) async fn reload(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
) -> Result<Json<CaReloaded>, ApiError> {
    let within = Arc::clone(&office);
    let taken = async move { within.live().reload_authority().await.map_err(ApiError::failed) };
    let taken = office.settle(actor, Record::new("ca.reload"), taken).await?;
    Ok(Json(CaReloaded {
        issuing: taken.number,
        roots: taken.roots,
    }))
}
