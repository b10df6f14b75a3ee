//! `/v1/users`: who may come in.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use fairlead_identity::ssh;

use super::api::{self, AddKeys, AddUser, ChangeUser, UserKeys, Users};
use super::desk::{Office, about_user, label};
use super::error::ApiError;
use super::extract::{Actor, Body, Scope, Segments};
use super::live::Change;
use super::tokens::caller_name;
use crate::store::{KeyKind, NewUser, NewUserKey, StoreError, UserKeyRow, UserRow};

pub(super) async fn list(State(office): State<Arc<Office>>, Scope(scope): Scope) -> Result<Json<Users>, ApiError> {
    let rows = office.ask(move |store| store.users(&scope)).await?;
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
    let keys = keys(&request.ssh_keys, created)?;
    let mut record = about_user("user.add", &request.name);
    record.fact("groups", request.groups.iter().cloned().collect::<Vec<_>>());
    record.fact(
        "keys",
        keys.iter().map(|key| key.fingerprint.clone()).collect::<Vec<_>>(),
    );
    let AddUser {
        name,
        site,
        groups,
        labels,
        ssh_keys: _,
    } = request;
    let told = Change::User(name.clone());
    let user = NewUser {
        name,
        site,
        groups,
        labels,
        keys,
        created,
    };
    let row = office
        .change(actor, record, vec![told], move |store| {
            store.add_user(&user)?;
            present(store.user(&user.name)?, &user.name)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(shown(row))))
}

pub(super) async fn change(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Segments(name): Segments<String>,
    Body(request): Body<ChangeUser>,
) -> Result<Json<api::User>, ApiError> {
    label("user name", &name)?;
    let mut record = about_user("user.change", &name);
    if let Some(groups) = &request.groups {
        record.fact("groups", groups.iter().cloned().collect::<Vec<_>>());
    }
    if let Some(disabled) = request.disabled {
        record.fact("disabled", disabled);
    }
    let told = Change::User(name.clone());
    let row = office
        .change(actor, record, vec![told], move |store| {
            if let Some(groups) = &request.groups {
                store.set_user_groups(&name, groups)?;
            }
            if let Some(disabled) = request.disabled {
                store.set_user_disabled(&name, disabled)?;
            }
            present(store.user(&name)?, &name)
        })
        .await?;
    Ok(Json(shown(row)))
}

pub(super) async fn list_keys(
    State(office): State<Arc<Office>>,
    Segments(name): Segments<String>,
) -> Result<Json<UserKeys>, ApiError> {
    let rows = office
        .ask(move |store| {
            present(store.user(&name)?, &name)?;
            store.user_keys(&name)
        })
        .await?;
    Ok(Json(UserKeys {
        keys: rows.into_iter().map(shown_key).collect(),
    }))
}

pub(super) async fn add_keys(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Segments(name): Segments<String>,
    Body(request): Body<AddKeys>,
) -> Result<(StatusCode, Json<UserKeys>), ApiError> {
    if request.ssh_keys.is_empty() {
        return Err(ApiError::invalid(
            "there is no key in the request",
            "give at least one public key",
        ));
    }
    let keys = keys(&request.ssh_keys, office.now())?;
    label("user name", &name)?;
    let mut record = about_user("user.add-key", &name);
    record.fact(
        "keys",
        keys.iter().map(|key| key.fingerprint.clone()).collect::<Vec<_>>(),
    );
    let told = Change::User(name.clone());
    let rows = office
        .change(actor, record, vec![told], move |store| {
            keys.iter().try_for_each(|key| store.add_user_key(&name, key))?;
            store.user_keys(&name)
        })
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(UserKeys {
            keys: rows.into_iter().map(shown_key).collect(),
        }),
    ))
}

/// Reads each line; one that is no key we take refuses them all. The same key twice counts once.
fn keys(lines: &[String], added: i64) -> Result<Vec<NewUserKey>, ApiError> {
    let mut keys = BTreeMap::new();
    for (index, line) in lines.iter().enumerate() {
        let key = ssh::parse_public_line(line).map_err(|error| {
            ApiError::invalid(
                format!("public key {}: {error}", index.saturating_add(1)),
                "nothing was changed",
            )
        })?;
        let fingerprint = ssh::fingerprint(&key);
        let public_key = registered_line(key);
        let new = NewUserKey {
            fingerprint: fingerprint.clone(),
            kind: KeyKind::Registered,
            public_key,
            added,
            expires: None,
        };
        keys.insert(fingerprint, new);
    }
    Ok(keys.into_values().collect())
}

/// The key as it is kept and sent to agents: without its comment, which may be longer than the wire takes and says who
/// knows what.
fn registered_line(mut key: ssh::ssh_key::PublicKey) -> String {
    key.set_comment("");
    // What was just read encodes; an empty line is refused by every reader.
    key.to_openssh().unwrap_or_default()
}

fn present(row: Option<UserRow>, name: &str) -> Result<UserRow, StoreError> {
    row.ok_or_else(|| StoreError::NotFound {
        what: format!("user {name}"),
    })
}

fn shown(row: UserRow) -> api::User {
    let UserRow {
        name,
        site,
        groups,
        labels,
        disabled,
        created,
    } = row;
    api::User {
        name,
        site,
        groups,
        labels,
        disabled,
        created,
    }
}

fn shown_key(row: UserKeyRow) -> api::UserKey {
    let kind = match row.kind {
        KeyKind::Registered => "registered",
        KeyKind::Login => "login",
    };
    api::UserKey {
        fingerprint: row.fingerprint,
        kind: kind.to_owned(),
        added: row.added,
        expires: row.expires,
    }
}
