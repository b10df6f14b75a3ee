//! What one audit line says.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// RFC 3339 in UTC with microseconds; always of one length, so that lines sort by time as text.
const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// One event. Fields that are `None` are left out of the line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// What happened, e.g. `session.permit`.
    pub event: Cow<'static, str>,
    /// The session's id, the same at both ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// From which address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<String>,
    /// The site of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The endpoint's canonical URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What was done inside the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Cow<'static, str>>,
    /// `allow` or `deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Cow<'static, str>>,
    /// The rule that decided, with its file and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The digest of the policy in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Why, as a refusal's or an end's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// What the protocol tells: database, user, statements, duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<Map<String, Value>>,
    /// Bytes from the caller to the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// Bytes from the upstream to the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
}

impl Record {
    /// Starts a record of `event`.
    pub fn new(event: impl Into<Cow<'static, str>>) -> Self {
        Self {
            event: event.into(),
            ..Self::default()
        }
    }

    /// Adds a fact.
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.get_or_insert_default().insert(name.to_owned(), value.into());
    }

    /// The same record with the number of its facts in their place: recording less is better than not recording.
    pub(super) fn without_facts(&self) -> Self {
        let left_out = self.facts.as_ref().map_or(0, Map::len);
        let facts = Map::from_iter([("left_out".to_owned(), Value::from(left_out))]);
        Self {
            facts: Some(facts),
            ..self.clone()
        }
    }
}

/// A whole line, in the order of the fields on disk.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Line<'a> {
    /// Version of the schema.
    pub v: u32,
    /// The line's number; each is one more than the one before.
    pub seq: u64,
    /// SHA-256 of the previous line without its line break, in hex.
    pub prev: &'a str,
    /// When, RFC 3339 in UTC.
    pub ts: &'a str,
    /// The program that wrote it.
    pub node: &'a str,
    /// What happened.
    #[serde(flatten)]
    pub record: &'a Record,
}

pub(super) fn timestamp(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    // The format asks for nothing that a date does not have.
    at.format(TIMESTAMP).unwrap_or_default()
}
