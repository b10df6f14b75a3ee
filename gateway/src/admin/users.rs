//! `/v1/users`: who may come in. What is done to one of them stands in `callers` and `keys`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};

use super::api::{self, AddUser, Users};
use super::callers::{present, shown};
use super::desk::{Office, about_caller};
use super::error::ApiError;
use super::extract::{Actor, Body, Scope};
use super::keys::{fingerprints, read};
use super::live::Change;
use super::tokens::caller_name;
use crate::store::{CallerKind, CallerName, NewCaller};

pub(super) async fn list(State(office): State<Arc<Office>>, Scope(scope): Scope) -> Result<Json<Users>, ApiError> {
    let rows = office.ask(move |store| store.callers(CallerKind::User, &scope)).await?;
    Ok(Json(Users {
        users: rows.into_iter().map(shown).collect(),
    }))
}

pub(super) async fn add(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<AddUser>,
) -> Result<(StatusCode, Json<api::User>), ApiError> {
    caller_name(&request.name)?;
    let created = office.now();
    let keys = read(&request.ssh_keys, "", created)?;
    let id = CallerName::user(request.name);
    let mut record = about_caller("user.add", &id);
    record.fact("groups", request.groups.iter().cloned().collect::<Vec<_>>());
    record.fact("keys", fingerprints(&keys));
    let told = Change::Caller(id.clone());
    let user = NewCaller {
        id,
        site: request.site,
        groups: request.groups,
        labels: request.labels,
        keys,
        issuer: None,
        created,
    };
    let row = office
        .change(actor, record, vec![told], move |store| {
            store.add_caller(&user)?;
            present(store, &user.id)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(shown(row))))
}
