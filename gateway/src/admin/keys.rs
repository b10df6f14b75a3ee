//! The keys of one user or workload: registered ones are added and removed, login keys come by join strings and are
//! listed, renewed and removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use fairlead_identity::ssh;

use super::api::{self, AddKeys, UserKeys};
use super::callers::{event, present};
use super::desk::{Office, about_caller, label};
use super::error::ApiError;
use super::extract::{Actor, Body, Segments};
use super::live::Change;
use crate::registry::LOGIN_KEY_LIFE_SECONDS;
use crate::store::{CallerKeyRow, CallerKind, CallerName, KeyKind, NewCallerKey, Store, StoreError};

/// Keys that a beginning of a fingerprint may stand for before it is refused.
const SAME_BEGINNING: u32 = 3;

pub(super) async fn list(
    State(office): State<Arc<Office>>,
    Extension(kind): Extension<CallerKind>,
    Segments(name): Segments<String>,
) -> Result<Json<UserKeys>, ApiError> {
    let id = CallerName::new(kind, name);
    let rows = office.ask(move |store| {
        present(store, &id)?;
        store.caller_keys(&id)
    });
    Ok(Json(shown(rows.await?)))
}

pub(super) async fn add(
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
    let keys = read(&request.ssh_keys, &request.label, office.now())?;
    label("user name", &name)?;
    let id = CallerName::user(name);
    let mut record = about_caller("user.add-key", &id);
    record.fact("keys", fingerprints(&keys));
    let told = Change::Caller(id.clone());
    let rows = office
        .change(actor, record, vec![told], move |store| {
            keys.iter().try_for_each(|key| store.add_caller_key(&id, key))?;
            store.caller_keys(&id)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(shown(rows))))
}

pub(super) async fn remove(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Extension(kind): Extension<CallerKind>,
    Segments((name, beginning)): Segments<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (id, key) = own_key(&office, kind, name, beginning).await?;
    let mut record = about_caller(event(kind, "user.remove-key", "workload.remove-key"), &id);
    record.fact("keys", vec![key.fingerprint.clone()]);
    let told = Change::Caller(id.clone());
    office
        .change(actor, record, vec![told], move |store| {
            store.remove_caller_key(&id, &key.fingerprint).map(drop)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A login key is good for its whole life again, from now.
pub(super) async fn renew(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Extension(kind): Extension<CallerKind>,
    Segments((name, beginning)): Segments<(String, String)>,
) -> Result<Json<UserKeys>, ApiError> {
    let (id, key) = own_key(&office, kind, name, beginning).await?;
    if key.kind != KeyKind::Login {
        let reason = format!(
            "{} was registered by an administrator and does not end",
            key.fingerprint
        );
        return Err(ApiError::invalid(reason, "only login keys are renewed"));
    }
    let expires = office.now().saturating_add(LOGIN_KEY_LIFE_SECONDS);
    let mut record = about_caller(event(kind, "user.renew-key", "workload.renew-key"), &id);
    record.fact("keys", vec![key.fingerprint.clone()]);
    record.fact("expires", expires);
    let told = Change::Caller(id.clone());
    let rows = office
        .change(actor, record, vec![told], move |store| {
            store.extend_login_key(&id, &key.fingerprint, expires)?;
            store.caller_keys(&id)
        })
        .await?;
    Ok(Json(shown(rows)))
}

async fn own_key(
    office: &Office,
    kind: CallerKind,
    name: String,
    beginning: String,
) -> Result<(CallerName, CallerKeyRow), ApiError> {
    label("name", &name)?;
    let id = CallerName::new(kind, name);
    let asked = (id.clone(), beginning);
    let found = office.ask(move |store| {
        present(store, &asked.0)?;
        one_key(store, &asked.1, |key| key.caller == asked.0)
    });
    Ok((id, found.await?))
}

/// The one key whose fingerprint begins so, with or without `SHA256:`.
pub(super) fn one_key(
    store: &mut dyn Store,
    beginning: &str,
    wanted: impl Fn(&CallerKeyRow) -> bool,
) -> Result<CallerKeyRow, StoreError> {
    let prefix = format!("SHA256:{}", beginning.strip_prefix("SHA256:").unwrap_or(beginning));
    // The same key may stand for several callers, and only one of them is asked about.
    let limit = SAME_BEGINNING.saturating_mul(64);
    let mut found = store.keys_from(&prefix, limit)?.into_iter().filter(|key| wanted(key));
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key),
        (None, _) => Err(StoreError::NotFound {
            what: format!("such key whose fingerprint begins {prefix}"),
        }),
        (Some(one), Some(other)) => Err(StoreError::Conflict {
            what: format!(
                "{prefix} is the beginning of more than one: {} of {}, {} of {}",
                one.fingerprint, one.caller, other.fingerprint, other.caller
            ),
            help: "give more of the fingerprint".into(),
        }),
    }
}

/// Reads each line; one that is no key we take refuses them all. The same key twice counts once.
pub(super) fn read(lines: &[String], label: &str, added: i64) -> Result<Vec<NewCallerKey>, ApiError> {
    let mut keys = BTreeMap::new();
    for (index, line) in lines.iter().enumerate() {
        let key = ssh::parse_public_line(line).map_err(|error| {
            ApiError::invalid(
                format!("public key {}: {error}", index.saturating_add(1)),
                "nothing was changed",
            )
        })?;
        let fingerprint = ssh::fingerprint(&key);
        let new = NewCallerKey {
            fingerprint: fingerprint.clone(),
            kind: KeyKind::Registered,
            public_key: registered_line(key),
            label: label.to_owned(),
            spki: None,
            added,
            expires: None,
        };
        keys.insert(fingerprint, new);
    }
    Ok(keys.into_values().collect())
}

pub(super) fn fingerprints(keys: &[NewCallerKey]) -> Vec<String> {
    keys.iter().map(|key| key.fingerprint.clone()).collect()
}

/// The key as it is kept and sent to agents: without its comment, which may be longer than the wire takes and says who
/// knows what.
fn registered_line(mut key: ssh::ssh_key::PublicKey) -> String {
    key.set_comment("");
    // What was just read encodes; an empty line is refused by every reader.
    key.to_openssh().unwrap_or_default()
}

fn shown(rows: Vec<CallerKeyRow>) -> UserKeys {
    UserKeys {
        keys: rows.into_iter().map(shown_key).collect(),
    }
}

fn shown_key(row: CallerKeyRow) -> api::UserKey {
    let kind = match row.kind {
        KeyKind::Registered => "registered",
        KeyKind::Login => "login",
    };
    let algorithm = row.public_key.split(' ').next().unwrap_or_default();
    api::UserKey {
        fingerprint: row.fingerprint,
        kind: kind.to_owned(),
        algorithm: algorithm.to_owned(),
        label: row.label,
        added: row.added,
        expires: row.expires,
    }
}
