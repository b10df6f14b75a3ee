//! `POST /v1/policy/reload`.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use fairlead_runtime::audit::Record;

use super::api::PolicyReloaded;
use super::desk::Office;
use super::error::ApiError;
use super::extract::Actor;

pub(super) async fn reload(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
) -> Result<Json<PolicyReloaded>, ApiError> {
    let within = Arc::clone(&office);
    let reloaded = async move {
        let outcome = within.live().reload().await;
        outcome.map_err(|refused| ApiError::policy(&refused.mistakes))
    };
    let in_force = office.settle(actor, Record::new("policy.reload"), reloaded).await?;
    Ok(Json(PolicyReloaded {
        digest: in_force.digest,
        warnings: in_force.warnings,
    }))
}
