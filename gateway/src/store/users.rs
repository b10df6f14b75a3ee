//! Users and their keys.

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::columns::{
    groups as check_groups, json, json_column, key_kind, key_kind_from, label, labels as check_labels,
    site as site_name,
};
use super::{
    KeyKind, Labels, MAX_KEYS_PER_USER, MAX_USERS, Names, NewUser, NewUserKey, SiteScope, StoreError, UserKeyRow,
    UserRow,
};

const SELECT: &str = "SELECT name, site, groups, labels, disabled, created FROM users";

pub(super) fn get(db: &Connection, name: &str) -> Result<Option<UserRow>, StoreError> {
    let mut statement = db.prepare(&format!("{SELECT} WHERE name = ?1"))?;
    let mut rows = statement.query([name])?;
    rows.next()?.map(from_row).transpose()
}

pub(super) fn list(db: &Connection, scope: &SiteScope) -> Result<Vec<UserRow>, StoreError> {
    let order = "ORDER BY name";
    let (mut statement, site) = match scope {
        SiteScope::Every => (db.prepare(&format!("{SELECT} {order}"))?, None),
        SiteScope::One(site) => (db.prepare(&format!("{SELECT} WHERE site = ?1 {order}"))?, Some(site)),
    };
    let rows = statement.query_and_then(params_from_iter(site), from_row)?;
    rows.collect()
}

pub(super) fn add(db: &Connection, user: &NewUser) -> Result<(), StoreError> {
    label(&user.name, "user name")?;
    if let Some(site) = &user.site {
        site_name(site)?;
    }
    check_groups(&user.groups)?;
    check_labels(&user.labels, "labels")?;
    if get(db, &user.name)?.is_some() {
        return Err(StoreError::Conflict {
            what: format!("there is already a user {}", user.name),
            help: "choose another name, or add a key to that user".into(),
        });
    }
    let known: u32 = db.query_row("SELECT count(*) FROM users", [], |row| row.get(0))?;
    if known >= MAX_USERS {
        return Err(StoreError::Limit {
            what: "users",
            limit: MAX_USERS,
        });
    }
    db.execute(
        "INSERT INTO users (name, site, groups, labels, created) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            user.name,
            user.site,
            json(&user.groups, "users.groups")?,
            json(&user.labels, "users.labels")?,
            user.created
        ],
    )?;
    user.keys.iter().try_for_each(|key| add_key(db, &user.name, key))
}

pub(super) fn set_groups(db: &Connection, name: &str, groups: &Names) -> Result<(), StoreError> {
    check_groups(groups)?;
    let text = json(groups, "users.groups")?;
    one(
        db.execute("UPDATE users SET groups = ?2 WHERE name = ?1", [name, &text])?,
        name,
    )
}

pub(super) fn set_labels(db: &Connection, name: &str, labels: &Labels) -> Result<(), StoreError> {
    check_labels(labels, "labels")?;
    let text = json(labels, "users.labels")?;
    one(
        db.execute("UPDATE users SET labels = ?2 WHERE name = ?1", [name, &text])?,
        name,
    )
}

pub(super) fn set_disabled(db: &Connection, name: &str, disabled: bool) -> Result<(), StoreError> {
    one(
        db.execute(
            "UPDATE users SET disabled = ?2 WHERE name = ?1",
            params![name, disabled],
        )?,
        name,
    )
}

pub(super) fn add_key(db: &Connection, user: &str, key: &NewUserKey) -> Result<(), StoreError> {
    check_key(key)?;
    if get(db, user)?.is_none() {
        return Err(unknown(user));
    }
    // Expired login keys make room first: machines come and go, and each leaves one behind.
    let expired = "DELETE FROM user_keys WHERE user = ?1 AND kind = ?2 AND expires <= ?3";
    db.execute(expired, params![user, key_kind(KeyKind::Login), key.added])?;
    let others = "SELECT count(*) FROM user_keys WHERE user = ?1 AND fingerprint <> ?2";
    let others: u32 = db.query_row(others, [user, &key.fingerprint], |row| row.get(0))?;
    if others >= MAX_KEYS_PER_USER {
        return Err(StoreError::Limit {
            what: "keys of one user",
            limit: MAX_KEYS_PER_USER,
        });
    }
    db.execute(
        "INSERT OR REPLACE INTO user_keys (user, fingerprint, kind, public_key, added, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            user,
            key.fingerprint,
            key_kind(key.kind),
            key.public_key,
            key.added,
            key.expires
        ],
    )?;
    Ok(())
}

pub(super) fn remove_key(db: &Connection, user: &str, fingerprint: &str) -> Result<bool, StoreError> {
    Ok(db.execute(
        "DELETE FROM user_keys WHERE user = ?1 AND fingerprint = ?2",
        [user, fingerprint],
    )? == 1)
}

pub(super) fn keys(db: &Connection, user: &str) -> Result<Vec<UserKeyRow>, StoreError> {
    let mut statement = db.prepare(
        "SELECT fingerprint, kind, public_key, added, expires FROM user_keys WHERE user = ?1 ORDER BY added, fingerprint",
    )?;
    let rows = statement.query_and_then([user], key_from_row)?;
    rows.collect()
}

pub(super) fn key_matches(
    db: &Connection,
    user: &str,
    fingerprint: &str,
    now: i64,
) -> Result<Option<UserRow>, StoreError> {
    let mut statement = db.prepare(&format!(
        "{SELECT} WHERE name = ?1 AND disabled = 0 AND EXISTS
         (SELECT 1 FROM user_keys k WHERE k.user = users.name AND k.fingerprint = ?2 AND k.kind = 'registered'
          AND (k.expires IS NULL OR k.expires > ?3))"
    ))?;
    let mut rows = statement.query(params![user, fingerprint, now])?;
    rows.next()?.map(from_row).transpose()
}

pub(super) fn login_key_owner(db: &Connection, fingerprint: &str, now: i64) -> Result<Option<UserRow>, StoreError> {
    let mut statement = db.prepare(&format!(
        "{SELECT} WHERE disabled = 0 AND name =
         (SELECT user FROM user_keys WHERE fingerprint = ?1 AND kind = 'login' AND expires > ?2)"
    ))?;
    let mut rows = statement.query(params![fingerprint, now])?;
    rows.next()?.map(from_row).transpose()
}

pub(super) fn unknown(name: &str) -> StoreError {
    StoreError::NotFound {
        what: format!("user {name}"),
    }
}

/// "No row" as `None`.
pub(super) fn optional<T>(found: rusqlite::Result<T>) -> Result<Option<T>, StoreError> {
    Ok(found.optional()?)
}

fn one(changed: usize, name: &str) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(unknown(name)) }
}

fn check_key(key: &NewUserKey) -> Result<(), StoreError> {
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
    Ok(())
}

fn from_row(row: &Row<'_>) -> Result<UserRow, StoreError> {
    Ok(UserRow {
        name: row.get("name")?,
        site: row.get("site")?,
        groups: json_column(row, "groups", "users.groups")?,
        labels: json_column(row, "labels", "users.labels")?,
        disabled: row.get("disabled")?,
        created: row.get("created")?,
    })
}

fn key_from_row(row: &Row<'_>) -> Result<UserKeyRow, StoreError> {
    Ok(UserKeyRow {
        fingerprint: row.get("fingerprint")?,
        kind: key_kind_from(&row.get::<_, String>("kind")?)?,
        public_key: row.get("public_key")?,
        added: row.get("added")?,
        expires: row.get("expires")?,
    })
}
