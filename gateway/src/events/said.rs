//! One event as it is told: which records of the audit, under which topic, with which fields.

use std::time::SystemTime;

use fairlead_runtime::audit::Record;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::AgentName;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Behind the prefix.
    place: String,
    /// JSON.
    pub(super) payload: Vec<u8>,
    /// Whether the broker keeps it: states, and nothing else.
    pub(super) retain: bool,
}

impl Said {
    /// The event that a record of the audit is; `None` for those that nobody is told.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let site = record.site.as_deref().unwrap_or("-");
        let now = SystemTime::now();
        match &*record.event {
            "session.permit" => Some(Self::event(record, format!("sessions/{site}/start"), now)),
            "session.end" => Some(Self::event(record, format!("sessions/{site}/end"), now)),
            "session.refuse" | "act.refuse" | "auth.fail" => Some(Self::event(record, format!("denials/{site}"), now)),
            _ => None,
        }
    }

    /// Whether an agent is linked.
    pub(super) fn agent(agent: &AgentName, is_online: bool, now: SystemTime) -> Self {
        let AgentName { site, name } = agent;
        let state = if is_online { "online" } else { "offline" };
        let body = json!({ "v": 1, "ts": stamp(now), "site": site, "agent": name, "state": state });
        Self::state(format!("agents/{site}/{name}"), &body)
    }

    /// Whether the gateway lives.
    pub(super) fn own(state: &str, now: SystemTime) -> Self {
        Self::state(
            "gateway".to_owned(),
            &json!({ "v": 1, "ts": stamp(now), "state": state }),
        )
    }

    /// The will, which is written before anybody knows when it is read.
    pub(super) fn gone() -> Self {
        Self::state(
            "gateway".to_owned(),
            &json!({ "v": 1, "state": "offline", "reason": "lost" }),
        )
    }

    fn state(place: String, body: &Value) -> Self {
        Self {
            place,
            payload: body.to_string().into_bytes(),
            retain: true,
        }
    }

    /// The whole topic.
    pub(super) fn topic(&self, prefix: &str) -> String {
        format!("{prefix}/{}", self.place)
    }

    fn event(record: &Record, place: String, now: SystemTime) -> Self {
        let mut body = Map::new();
        body.insert("v".into(), json!(1));
        body.insert("ts".into(), json!(stamp(now)));
        body.insert("event".into(), json!(record.event));
        let texts = [
            ("session", record.session.as_deref()),
            ("caller", record.caller.as_deref()),
            ("client_ip", record.client_ip.as_deref()),
            ("agent", record.agent.as_deref()),
            ("site", record.site.as_deref()),
            ("endpoint", record.endpoint.as_deref()),
            ("act", record.act.as_deref()),
            ("rule", record.rule.as_deref()),
            ("reason", record.reason.as_deref()),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                body.insert(name.into(), json!(text));
            }
        }
        for (name, count) in [("bytes_in", record.bytes_in), ("bytes_out", record.bytes_out)] {
            if let Some(count) = count {
                body.insert(name.into(), json!(count));
            }
        }
        Self {
            place,
            payload: Value::Object(body).to_string().into_bytes(),
            retain: false,
        }
    }
}

fn stamp(now: SystemTime) -> String {
    OffsetDateTime::from(now).format(&Rfc3339).unwrap_or_default()
}
