//! What can be asked of a running agent, and its answers.

use serde::{Deserialize, Serialize};

use crate::pause::Paused;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// How it stands.
    Status,
    /// Its live sessions.
    Sessions,
    /// End one session.
    Cut {
        /// The session's id.
        session: String,
    },
    /// Refuse all sessions and end those that live.
    Pause,
    /// Permit sessions again.
    Resume,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Question::Status`].
    Status(Box<StatusShown>),
    /// To [`Question::Sessions`].
    Sessions(Vec<SessionShown>),
    /// It was done; so many sessions were told to end.
    Done {
        /// How many.
        ended: usize,
        /// What should be known besides, for people; empty when all is well.
        warning: String,
    },
    /// It was not done, and why.
    Refused(String),
}

/// How a running agent stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusShown {
    /// The program's version.
    pub version: String,
    /// The agent's identity, a SPIFFE URI.
    pub principal: String,
    /// The file that it was started with.
    pub file: String,
    /// SHA-256 of the file in force, hex.
    pub sha256: String,
    /// Keys that were changed in the file and hold after a restart only.
    pub after_restart: Vec<String>,
    /// Since when and by whom it is paused; absent when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// Whether the link to the gateway stands.
    pub linked: bool,
    /// Why there is no link; empty while there is one.
    pub last_error: String,
    /// The links that stand.
    #[serde(default)]
    pub links: Vec<LinkShown>,
    /// What went wrong of late, the oldest first: seconds since 1970, and what.
    #[serde(default)]
    pub errors: Vec<(u64, String)>,
    /// Endpoints that the gateway took.
    pub accepted: Vec<String>,
    /// Endpoints that it refused, and why.
    pub refused: Vec<(String, String)>,
    /// How many sessions live.
    pub sessions: usize,
    /// The number of the last line of the agent's own audit.
    pub audit_seq: u64,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkShown {
    /// The gateway's address.
    pub gateway: String,
    /// The transport's name.
    pub transport: String,
    /// Since when, seconds since 1970.
    pub since: u64,
    /// The round trip, microseconds; absent where the transport does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Packets sent by this side, and how many of them were lost; absent where the transport does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<(u64, u64)>,
    /// The gateway will stop: sessions finish, no further one begins on this link.
    pub draining: bool,
}

/// One live session. `caller` and `client_ip` are the gateway's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionShown {
    /// Its id, the same at both ends.
    pub session: String,
    /// The endpoint's URL.
    pub endpoint: String,
    /// Who.
    pub caller: String,
    /// From where.
    pub client_ip: String,
    /// Since when, seconds since 1970.
    pub since: u64,
    /// The addresses that were checked for it; one of them is connected.
    pub addresses: Vec<String>,
    /// Acts going on inside it.
    pub acts: Vec<String>,
    /// The rule of the agent's file that let it in, with file and line; empty where the endpoint has no rules.
    pub rule: String,
    /// Bytes from the caller to the upstream.
    pub bytes_in: u64,
    /// Bytes from the upstream to the caller.
    pub bytes_out: u64,
}
