//! Users and workloads with their keys. The kind is part of every key below, so that no statement can address a user by a
//! workload's name.

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::columns::{
    caller_kind_from, groups as check_groups, json, json_column, key_kind, key_kind_from, label,
    labels as check_labels, site as site_name,
};
use super::{
    CallerKeyRow, CallerKind, CallerName, CallerRow, Issuer, Labels, MAX_CALLERS, MAX_KEYS_PER_CALLER, Names,
    NewCaller, NewCallerKey, SiteScope, StoreError, tokens,
};

const SELECT: &str = "SELECT kind, name, site, groups, labels, disabled, ca_pem, san_uri, issuer, created FROM callers";
const SELECT_KEY: &str =
    "SELECT caller_kind, caller, fingerprint, kind, public_key, label, spki, added, expires FROM caller_keys";
/// Longest list of issuers that one URI may have.
const MAX_SAME_URI: usize = 8;

pub(super) fn get(db: &Connection, id: &CallerName) -> Result<Option<CallerRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!("{SELECT} WHERE kind = ?1 AND name = ?2"))?;
    let mut rows = statement.query([id.kind.as_str(), &id.name])?;
    rows.next()?.map(from_row).transpose()
}

pub(super) fn list(db: &Connection, kind: CallerKind, scope: &SiteScope) -> Result<Vec<CallerRow>, StoreError> {
    let (filter, site) = match scope {
        SiteScope::Every => ("", None),
        SiteScope::One(site) => ("AND site = ?2", Some(site.as_str())),
    };
    let mut statement = db.prepare_cached(&format!("{SELECT} WHERE kind = ?1 {filter} ORDER BY name"))?;
    let asked = std::iter::once(kind.as_str()).chain(site);
    let rows = statement.query_and_then(params_from_iter(asked), from_row)?;
    rows.collect()
}

pub(super) fn add(db: &Connection, caller: &NewCaller) -> Result<(), StoreError> {
    let id = &caller.id;
    label(&id.name, "name")?;
    if let Some(site) = &caller.site {
        site_name(site)?;
    }
    check_groups(&caller.groups)?;
    check_labels(&caller.labels, "labels")?;
    name_is_free(db, id)?;
    if get(db, id)?.is_some() {
        return Err(StoreError::Conflict {
            what: format!("there is already a {id}"),
            help: "choose another name, or change the one that is there".into(),
        });
    }
    if let Some(issuer) = &caller.issuer {
        check_issuer(db, issuer)?;
    }
    let known: u32 = db.query_row("SELECT count(*) FROM callers", [], |row| row.get(0))?;
    if known >= MAX_CALLERS {
        return Err(StoreError::Limit {
            what: "users and workloads",
            limit: MAX_CALLERS,
        });
    }
    db.execute(
        "INSERT INTO callers (kind, name, site, groups, labels, ca_pem, san_uri, issuer, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            id.kind.as_str(),
            id.name,
            caller.site,
            json(&caller.groups, "callers.groups")?,
            json(&caller.labels, "callers.labels")?,
            caller.issuer.as_ref().map(|issuer| &issuer.ca_pem),
            caller.issuer.as_ref().map(|issuer| &issuer.san_uri),
            caller.issuer.as_ref().map(|issuer| issuer.digest),
            caller.created
        ],
    )?;
    caller.keys.iter().try_for_each(|key| add_key(db, id, key))
}

/// Refuses a name that a caller of the other kind has: certificates for SSH name their holder by the name alone, and a
/// device that trusts the gateway's authority could not tell the two apart.
pub(super) fn name_is_free(db: &Connection, id: &CallerName) -> Result<(), StoreError> {
    let other = match id.kind {
        CallerKind::User => CallerKind::Workload,
        CallerKind::Workload => CallerKind::User,
    };
    if get(db, &CallerName::new(other, &id.name))?.is_none() {
        return Ok(());
    }
    Err(StoreError::Conflict {
        what: format!("{} is the name of a {}", id.name, other.as_str()),
        help: "choose another name: users and workloads do not share names".into(),
    })
}

pub(super) fn set_groups(db: &Connection, id: &CallerName, groups: &Names) -> Result<(), StoreError> {
    check_groups(groups)?;
    let text = json(groups, "callers.groups")?;
    let statement = "UPDATE callers SET groups = ?3 WHERE kind = ?1 AND name = ?2";
    one(db.execute(statement, [id.kind.as_str(), &id.name, &text])?, id)
}

pub(super) fn set_labels(db: &Connection, id: &CallerName, labels: &Labels) -> Result<(), StoreError> {
    check_labels(labels, "labels")?;
    let text = json(labels, "callers.labels")?;
    let statement = "UPDATE callers SET labels = ?3 WHERE kind = ?1 AND name = ?2";
    one(db.execute(statement, [id.kind.as_str(), &id.name, &text])?, id)
}

pub(super) fn set_disabled(db: &Connection, id: &CallerName, disabled: bool) -> Result<(), StoreError> {
    let statement = "UPDATE callers SET disabled = ?3 WHERE kind = ?1 AND name = ?2";
    one(db.execute(statement, params![id.kind.as_str(), id.name, disabled])?, id)
}

/// Join strings go with whom they were made for: one that is still good, or spent by a key that is now gone, would bring
/// them back.
pub(super) fn delete(db: &Connection, id: &CallerName) -> Result<(), StoreError> {
    tokens::withdraw(db, id)?;
    let statement = "DELETE FROM callers WHERE kind = ?1 AND name = ?2";
    one(db.execute(statement, [id.kind.as_str(), &id.name])?, id)
}

/// Disables the caller and takes away what earns certificates: login keys and join strings.
pub(super) fn shut_out(db: &Connection, id: &CallerName) -> Result<(), StoreError> {
    set_disabled(db, id, true)?;
    tokens::withdraw(db, id)?;
    let statement = "DELETE FROM caller_keys WHERE caller_kind = ?1 AND caller = ?2 AND kind = 'login'";
    db.execute(statement, [id.kind.as_str(), &id.name])?;
    Ok(())
}

pub(super) fn add_key(db: &Connection, id: &CallerName, key: &NewCallerKey) -> Result<(), StoreError> {
    check_key(key)?;
    if get(db, id)?.is_none() {
        return Err(unknown(id));
    }
    // Expired login keys make room first: machines come and go, and each leaves one behind.
    let expired = "DELETE FROM caller_keys WHERE caller_kind = ?1 AND caller = ?2 AND kind = 'login' AND expires <= ?3";
    db.execute(expired, params![id.kind.as_str(), id.name, key.added])?;
    let others = "SELECT count(*) FROM caller_keys WHERE caller_kind = ?1 AND caller = ?2 AND fingerprint <> ?3";
    let others: u32 = db.query_row(others, [id.kind.as_str(), &id.name, &key.fingerprint], |row| row.get(0))?;
    if others >= MAX_KEYS_PER_CALLER {
        return Err(StoreError::Limit {
            what: "keys of one caller",
            limit: MAX_KEYS_PER_CALLER,
        });
    }
    db.execute(
        "INSERT OR REPLACE INTO caller_keys
         (caller_kind, caller, fingerprint, kind, public_key, label, spki, added, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            id.kind.as_str(),
            id.name,
            key.fingerprint,
            key_kind(key.kind),
            key.public_key,
            key.label,
            key.spki,
            key.added,
            key.expires
        ],
    )?;
    Ok(())
}

/// A login key's join string goes with it, or its holder could spend it again.
pub(super) fn remove_key(db: &Connection, id: &CallerName, fingerprint: &str) -> Result<bool, StoreError> {
    let Some(key) = keys(db, id)?.into_iter().find(|key| key.fingerprint == fingerprint) else {
        return Ok(false);
    };
    if let Some(spki) = &key.spki {
        tokens::withdraw_spent(db, spki)?;
    }
    let statement = "DELETE FROM caller_keys WHERE caller_kind = ?1 AND caller = ?2 AND fingerprint = ?3";
    Ok(db.execute(statement, [id.kind.as_str(), &id.name, fingerprint])? == 1)
}

pub(super) fn extend_key(
    db: &Connection,
    id: &CallerName,
    fingerprint: &str,
    expires: i64,
) -> Result<bool, StoreError> {
    let statement = "UPDATE caller_keys SET expires = ?4
         WHERE caller_kind = ?1 AND caller = ?2 AND fingerprint = ?3 AND kind = 'login'";
    Ok(db.execute(statement, params![id.kind.as_str(), id.name, fingerprint, expires])? == 1)
}

pub(super) fn keys(db: &Connection, id: &CallerName) -> Result<Vec<CallerKeyRow>, StoreError> {
    let order = "ORDER BY added, fingerprint";
    let mut statement = db.prepare_cached(&format!("{SELECT_KEY} WHERE caller_kind = ?1 AND caller = ?2 {order}"))?;
    let rows = statement.query_and_then([id.kind.as_str(), &id.name], key_from_row)?;
    rows.collect()
}

pub(super) fn keys_from(db: &Connection, prefix: &str, limit: u32) -> Result<Vec<CallerKeyRow>, StoreError> {
    // Compared as text, not by LIKE: base64 tells upper case from lower.
    let mut statement = db.prepare_cached(&format!(
        "{SELECT_KEY} WHERE substr(fingerprint, 1, length(?1)) = ?1 ORDER BY fingerprint, caller LIMIT ?2"
    ))?;
    let rows = statement.query_and_then(params![prefix, limit], key_from_row)?;
    rows.collect()
}

pub(super) fn login_key_owner(db: &Connection, fingerprint: &str, now: i64) -> Result<Option<CallerRow>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT c.kind, c.name, c.site, c.groups, c.labels, c.disabled, c.ca_pem, c.san_uri, c.issuer, c.created
         FROM callers c JOIN caller_keys k ON k.caller_kind = c.kind AND k.caller = c.name
         WHERE c.disabled = 0 AND k.fingerprint = ?1 AND k.kind = 'login' AND k.expires > ?2",
    )?;
    let found = statement
        .query_and_then(params![fingerprint, now], from_row)?
        .collect::<Result<Vec<_>, StoreError>>()?;
    // One key of two callers proves neither.
    Ok(<[CallerRow; 1]>::try_from(found).ok().map(|[caller]| caller))
}

pub(super) fn with_uri(db: &Connection, san_uri: &str) -> Result<Vec<CallerRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!("{SELECT} WHERE san_uri = ?1 ORDER BY name"))?;
    let rows = statement.query_and_then([san_uri], from_row)?;
    rows.collect()
}

pub(super) fn unknown(id: &CallerName) -> StoreError {
    StoreError::NotFound { what: id.to_string() }
}

/// "No row" as `None`.
pub(super) fn optional<T>(found: rusqlite::Result<T>) -> Result<Option<T>, StoreError> {
    Ok(found.optional()?)
}

fn one(changed: usize, id: &CallerName) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(unknown(id)) }
}

/// One authority and one URI are one workload. The same URI under several authorities is looked at one by one, so there
/// are few.
fn check_issuer(db: &Connection, issuer: &Issuer) -> Result<(), StoreError> {
    let uri = &issuer.san_uri;
    if uri.is_empty() || uri.len() > 256 || !uri.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(StoreError::Invalid {
            what: "SAN URI",
            why: "1 to 256 characters of ASCII without spaces",
        });
    }
    if issuer.ca_pem.len() > 32 * 1024 {
        return Err(StoreError::Invalid {
            what: "issuer's certificates",
            why: "at most 32 KiB of PEM",
        });
    }
    let same = with_uri(db, uri)?;
    if let Some(taken) = same
        .iter()
        .find(|row| row.issuer.as_ref().is_some_and(|own| own.digest == issuer.digest))
    {
        return Err(StoreError::Conflict {
            what: format!("{} has this issuer and URI already", taken.id),
            help: "one certificate names one workload: give it another URI".into(),
        });
    }
    if same.len() >= MAX_SAME_URI {
        return Err(StoreError::Limit {
            what: "workloads with one URI",
            limit: MAX_SAME_URI as u32,
        });
    }
    Ok(())
}

fn check_key(key: &NewCallerKey) -> Result<(), StoreError> {
    if key.fingerprint.is_empty() || key.fingerprint.len() > 128 || !key.fingerprint.is_ascii() {
        return Err(StoreError::Invalid {
            what: "key fingerprint",
            why: "1 to 128 characters of ASCII",
        });
    }
    if key.public_key.len() > 8 * 1024 || key.public_key.chars().any(char::is_control) {
        return Err(StoreError::Invalid {
            what: "public key",
            why: "one line of at most 8 KiB",
        });
    }
    if key.label.len() > 64 || key.label.chars().any(char::is_control) {
        return Err(StoreError::Invalid {
            what: "label of a key",
            why: "at most 64 bytes, no control characters",
        });
    }
    Ok(())
}

fn from_row(row: &Row<'_>) -> Result<CallerRow, StoreError> {
    let issuer = match (row.get("ca_pem")?, row.get("san_uri")?, row.get("issuer")?) {
        (Some(ca_pem), Some(san_uri), Some(digest)) => Some(Issuer {
            ca_pem,
            san_uri,
            digest,
        }),
        _ => None,
    };
    Ok(CallerRow {
        id: CallerName {
            kind: caller_kind_from(&row.get::<_, String>("kind")?)?,
            name: row.get("name")?,
        },
        site: row.get("site")?,
        groups: json_column(row, "groups", "callers.groups")?,
        labels: json_column(row, "labels", "callers.labels")?,
        disabled: row.get("disabled")?,
        issuer,
        created: row.get("created")?,
    })
}

fn key_from_row(row: &Row<'_>) -> Result<CallerKeyRow, StoreError> {
    Ok(CallerKeyRow {
        caller: CallerName {
            kind: caller_kind_from(&row.get::<_, String>("caller_kind")?)?,
            name: row.get("caller")?,
        },
        fingerprint: row.get("fingerprint")?,
        kind: key_kind_from(&row.get::<_, String>("kind")?)?,
        public_key: row.get("public_key")?,
        label: row.get("label")?,
        spki: row.get("spki")?,
        added: row.get("added")?,
        expires: row.get("expires")?,
    })
}
