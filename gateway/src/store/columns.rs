//! Between columns and values: JSON lists and maps, digests, and the form that names must have.

use rusqlite::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::row::{Labels, Names};
use super::{AgentId, CallerKind, KeyKind, Mode, StoreError, Terms, TokenKind};

const MAX_ENTRIES: usize = 64;
const MAX_NAMES: usize = 256;
const MAX_GROUPS: usize = 128;

/// A map or set as JSON text.
pub(super) fn json<T: Serialize>(value: &T, column: &'static str) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Damaged { column })
}

/// JSON text as a map or set.
pub(super) fn from_json<T: DeserializeOwned>(text: &str, column: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Damaged { column })
}

/// The column `index` of `row`, JSON text as a map or set.
pub(super) fn json_column<T: DeserializeOwned>(
    row: &Row<'_>,
    index: &'static str,
    column: &'static str,
) -> Result<T, StoreError> {
    from_json(&row.get::<_, String>(index)?, column)
}

/// Refuses everything that is not a label: 1 to 30 characters of `[a-z0-9-]`, no `-` at an end and no `--`.
///
/// The same form as identity's `Label`; checked here again because a row outlives the code path that wrote it.
pub(super) fn label(text: &str, what: &'static str) -> Result<(), StoreError> {
    let good = (1..=30).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--");
    if good {
        return Ok(());
    }
    Err(StoreError::Invalid {
        what,
        why: "1 to 30 characters of a-z, 0-9 and -, with no - at an end and no --",
    })
}

/// Refuses a site's name that is not a label, or that would make `HOST.internal` mean two things.
pub(super) fn site(text: &str) -> Result<(), StoreError> {
    if text == "internal" {
        return Err(StoreError::Invalid {
            what: "site",
            why: "any name but internal, which marks Fairlead's own names",
        });
    }
    label(text, "site")
}

/// Refuses an agent's name when its site or its name is not a label.
pub(super) fn agent_id(id: &AgentId) -> Result<(), StoreError> {
    site(&id.site)?;
    label(&id.name, "agent name")
}

/// Refuses a set with more than 256 names or with one that is not a label.
pub(super) fn names(set: &Names, what: &'static str) -> Result<(), StoreError> {
    if set.len() > MAX_NAMES {
        return Err(StoreError::Limit {
            what,
            limit: MAX_NAMES as u32,
        });
    }
    set.iter().try_for_each(|name| label(name, what))
}

/// Refuses groups that could not stand in an SSH certificate (`g-GROUP`), or more of them than fit into one.
pub(super) fn groups(set: &Names) -> Result<(), StoreError> {
    if set.len() > MAX_GROUPS {
        return Err(StoreError::Limit {
            what: "groups of one caller",
            limit: MAX_GROUPS as u32,
        });
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if set
        .iter()
        .all(|group| (1..=64).contains(&group.len()) && group.bytes().all(allowed))
    {
        return Ok(());
    }
    Err(StoreError::Invalid {
        what: "group",
        why: "1 to 64 characters of letters, digits, -, _ and .",
    })
}

/// Refuses a map with more than 64 entries, or with keys and values that are too long or hold control characters.
pub(super) fn labels(map: &Labels, what: &'static str) -> Result<(), StoreError> {
    if map.len() > MAX_ENTRIES {
        return Err(StoreError::Limit {
            what,
            limit: MAX_ENTRIES as u32,
        });
    }
    let good = |text: &str, longest: usize| text.len() <= longest && !text.chars().any(char::is_control);
    if map
        .iter()
        .all(|(key, value)| !key.is_empty() && good(key, 64) && good(value, 256))
    {
        return Ok(());
    }
    Err(StoreError::Invalid {
        what,
        why: "keys of 1 to 64 and values of at most 256 bytes, no control characters",
    })
}

pub(super) fn token_kind(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Agent => "agent",
        TokenKind::User => "user",
        TokenKind::Workload => "workload",
    }
}

pub(super) fn token_kind_from(text: &str) -> Result<TokenKind, StoreError> {
    match text {
        "agent" => Ok(TokenKind::Agent),
        "user" => Ok(TokenKind::User),
        "workload" => Ok(TokenKind::Workload),
        _ => Err(StoreError::Damaged { column: "tokens.kind" }),
    }
}

pub(super) fn caller_kind_from(text: &str) -> Result<CallerKind, StoreError> {
    match text {
        "user" => Ok(CallerKind::User),
        "workload" => Ok(CallerKind::Workload),
        _ => Err(StoreError::Damaged { column: "callers.kind" }),
    }
}

/// Terms as the columns `terms` and `uses`.
pub(super) fn terms(terms: Terms) -> (&'static str, u32) {
    match terms {
        Terms::Once => ("once", 1),
        Terms::Replace => ("replace", 1),
        Terms::Fleet { uses, approval: true } => ("fleet", uses),
        Terms::Fleet { uses, approval: false } => ("fleet-approved", uses),
    }
}

pub(super) fn terms_from(text: &str, uses: u32) -> Result<Terms, StoreError> {
    match text {
        "once" => Ok(Terms::Once),
        "replace" => Ok(Terms::Replace),
        "fleet" => Ok(Terms::Fleet { uses, approval: true }),
        "fleet-approved" => Ok(Terms::Fleet { uses, approval: false }),
        _ => Err(StoreError::Damaged { column: "tokens.terms" }),
    }
}

pub(super) fn key_kind(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Registered => "registered",
        KeyKind::Login => "login",
    }
}

pub(super) fn key_kind_from(text: &str) -> Result<KeyKind, StoreError> {
    match text {
        "registered" => Ok(KeyKind::Registered),
        "login" => Ok(KeyKind::Login),
        _ => Err(StoreError::Damaged {
            column: "caller_keys.kind",
        }),
    }
}

pub(super) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Tunnel => "tunnel",
        Mode::Builtin => "builtin",
    }
}

pub(super) fn mode_from(text: &str) -> Result<Mode, StoreError> {
    match text {
        "tunnel" => Ok(Mode::Tunnel),
        "builtin" => Ok(Mode::Builtin),
        _ => Err(StoreError::Damaged {
            column: "endpoints.mode",
        }),
    }
}
