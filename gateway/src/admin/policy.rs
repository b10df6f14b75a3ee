//! `/v1/policy`: what is in force, and putting another in its place.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use fairlead_runtime::audit::Record;

use super::api::{PolicyFile, PolicyFiles, PolicyReloaded, PolicyTried};
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

/// What a reload would do. Changes nothing, so it stands in no audit line.
pub(super) async fn attempt(State(office): State<Arc<Office>>) -> Result<Json<PolicyTried>, ApiError> {
    let tried = office.live().try_policy().await;
    tried
        .map(Json)
        .map_err(|refused| ApiError::policy_as_it_would_be(&refused.mistakes))
}

pub(super) async fn files(State(office): State<Arc<Office>>) -> Result<Json<PolicyFiles>, ApiError> {
    let within = Arc::clone(&office);
    let read = office
        .blocking("policy-files", move || within.live().policy_files())
        .await?;
    let files = read.map_err(ApiError::failed)?.into_iter();
    Ok(Json(PolicyFiles {
        digest: office.live().policy().digest(),
        files: files
            .map(|source| PolicyFile {
                name: source.name,
                text: source.text,
            })
            .collect(),
    }))
}
