//! `/v1/users/{name}` and `/v1/workloads/{name}`: one caller, shown, changed and deleted. The kind is the route's.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};

use super::api::{self, ChangeUser};
use super::desk::{Office, about_caller, label};
use super::error::ApiError;
use super::extract::{Actor, Body, Segments};
use super::live::Change;
use super::workloads::shown_workload;
use crate::store::{CallerKind, CallerName, CallerRow, Store, StoreError};

pub(super) async fn show(
    State(office): State<Arc<Office>>,
    Extension(kind): Extension<CallerKind>,
    Segments(name): Segments<String>,
) -> Result<Json<api::Workload>, ApiError> {
    let id = CallerName::new(kind, name);
    let row = office.ask(move |store| present(store, &id)).await?;
    Ok(Json(shown_workload(row)))
}

pub(super) async fn change(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Extension(kind): Extension<CallerKind>,
    Segments(name): Segments<String>,
    Body(request): Body<ChangeUser>,
) -> Result<Json<api::Workload>, ApiError> {
    label("name", &name)?;
    let id = CallerName::new(kind, name);
    let mut record = about_caller(event(kind, "user.change", "workload.change"), &id);
    if let Some(groups) = &request.groups {
        record.fact("groups", groups.iter().cloned().collect::<Vec<_>>());
    }
    if !request.labels.is_empty() {
        record.fact("labels", serde_json::json!(request.labels));
    }
    if let Some(disabled) = request.disabled {
        record.fact("disabled", disabled);
    }
    let told = Change::Caller(id.clone());
    let row = office
        .change(actor, record, vec![told], move |store| apply(store, &id, request))
        .await?;
    Ok(Json(shown_workload(row)))
}

pub(super) async fn delete(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Extension(kind): Extension<CallerKind>,
    Segments(name): Segments<String>,
) -> Result<StatusCode, ApiError> {
    label("name", &name)?;
    let id = CallerName::new(kind, name);
    let record = about_caller(event(kind, "user.delete", "workload.delete"), &id);
    let told = Change::Caller(id.clone());
    office
        .change(actor, record, vec![told], move |store| store.delete_caller(&id))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn apply(store: &mut dyn Store, id: &CallerName, request: ChangeUser) -> Result<CallerRow, StoreError> {
    if let Some(groups) = &request.groups {
        store.set_caller_groups(id, groups)?;
    }
    if !request.labels.is_empty() {
        let mut labels = present(store, id)?.labels;
        for (key, value) in request.labels {
            match value {
                Some(value) => drop(labels.insert(key, value)),
                None => drop(labels.remove(&key)),
            }
        }
        store.set_caller_labels(id, &labels)?;
    }
    if let Some(disabled) = request.disabled {
        store.set_caller_disabled(id, disabled)?;
    }
    present(store, id)
}

/// The event's name for this kind of caller.
pub(super) fn event(kind: CallerKind, user: &'static str, workload: &'static str) -> &'static str {
    match kind {
        CallerKind::User => user,
        CallerKind::Workload => workload,
    }
}

pub(super) fn present(store: &mut dyn Store, id: &CallerName) -> Result<CallerRow, StoreError> {
    let unknown = || StoreError::NotFound { what: id.to_string() };
    store.caller(id)?.ok_or_else(unknown)
}

pub(super) fn shown(row: CallerRow) -> api::User {
    api::User {
        name: row.id.name,
        site: row.site,
        groups: row.groups,
        labels: row.labels,
        disabled: row.disabled,
        created: row.created,
    }
}
