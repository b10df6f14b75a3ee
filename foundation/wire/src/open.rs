//! The first frames of a data stream: the gateway asks for one session, the agent answers, then bytes flow.
//!
//! One bidirectional stream per session, opened by the gateway. The wire names the endpoint by its URL; what is dialled
//! for it stands only in the agent's own file, and the agent has the last word.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::check::{self, CheckError, Checker, Problem};
use crate::id::SessionId;
use crate::mqtt::Supposed;
pub use crate::refusal::Refused;
use crate::version::{CANCEL, EXPLAIN, MQTT_FACTS};

/// The kinds of caller that a rule can name.
pub const CALLER_KINDS: &[&str] = &["user", "workload", "unidentified"];

/// The gateway asks the agent to open an endpoint for a permitted caller. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Open {
    /// Features without which this session must not be opened; at most 32 names.
    #[prost(string, repeated, tag = "1")]
    pub requires: Vec<String>,
    /// 16 bytes: the session's id at both ends ([`SessionId`]).
    #[prost(bytes = "vec", tag = "2")]
    pub session: Vec<u8>,
    /// The endpoint's canonical URL, as the agent offered it; at most 256 bytes.
    #[prost(string, tag = "3")]
    pub endpoint_url: String,
    /// Who asks, in the gateway's word; always set.
    #[prost(message, optional, tag = "4")]
    pub caller: Option<Caller>,
    /// The address the caller came from, as text without brackets, port or zone.
    #[prost(string, tag = "5")]
    pub client_ip: String,
    /// The port the caller came from, at most 65535.
    #[prost(uint32, tag = "6")]
    pub client_port: u32,
    /// For a builtin endpoint exactly the acts that are permitted, at most 32; for a tunnel none.
    #[prost(string, repeated, tag = "7")]
    pub acts: Vec<String>,
    /// When the caller's connection began by the gateway's clock: milliseconds since 1970, UTC.
    #[prost(uint64, tag = "8")]
    pub started_unix_ms: u64,
    /// What the session `session`, which lives, is doing is to be cancelled, and nothing is to be opened: set together
    /// with the requirement [`CANCEL`].
    #[prost(message, optional, tag = "9")]
    pub cancel: Option<CancelKey>,
    /// Of a question about an `mqtt` endpoint, what its client is supposed to say: set together with the requirements
    /// [`EXPLAIN`] and [`MQTT_FACTS`]; about a topic only beside the one act in `acts`.
    #[prost(message, optional, tag = "10")]
    pub mqtt: Option<Supposed>,
}

/// What the upstream of a live session takes for a request to cancel (PostgreSQL's CancelRequest). Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
#[prost(skip_debug)]
pub struct CancelKey {
    /// The upstream's number of the connection.
    #[prost(uint32, tag = "1")]
    pub process: u32,
    /// The secret that the upstream gave with it; 4 to 256 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// Who asks for an endpoint, as the gateway authenticated them. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Caller {
    /// The caller's name; at most 128 bytes, empty only for `unidentified`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// One of [`CALLER_KINDS`].
    #[prost(string, tag = "2")]
    pub kind: String,
    /// At most 256 groups from the gateway's store.
    #[prost(string, repeated, tag = "3")]
    pub groups: Vec<String>,
    /// At most 256 labels from the gateway's store.
    #[prost(btree_map = "string, string", tag = "4")]
    pub labels: BTreeMap<String, String>,
    /// The site the caller is bound to; empty when bound to none.
    #[prost(string, tag = "5")]
    pub site: String,
    /// OpenSSH public key lines registered for the caller, for `builtin:ssh`; at most 64.
    #[prost(string, repeated, tag = "6")]
    pub ssh_keys: Vec<String>,
}

/// The agent's answer to [`Open`]. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct OpenAnswer {
    /// The answer; `None` is an answer of a newer peer and as good as a refusal.
    #[prost(oneof = "Body", tags = "1, 2, 3")]
    pub body: Option<Body>,
}

/// The kinds of [`OpenAnswer`].
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Body {
    /// The upstream is connected; every byte after this frame belongs to the session.
    #[prost(message, tag = "1")]
    Opened(Opened),
    /// No session; the stream ends after this frame.
    #[prost(message, tag = "2")]
    Refused(Refused),
    /// The answer to a question ([`Open::is_question`]); nothing was opened and the stream ends after this frame.
    #[prost(message, tag = "3")]
    Explained(Explained),
}

/// What the agent's own file says to a question. No text of a rule and no upstream travels. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Explained {
    /// Whether the file would let a session begin.
    #[prost(bool, tag = "1")]
    pub allowed: bool,
    /// Why not, in one word such as `not-listed` or `no-rule`; empty when allowed.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// The name of the rule behind the answer; empty where there is none.
    #[prost(string, tag = "3")]
    pub rule: String,
    /// The agent's file; empty without a rule, at most 512 bytes.
    #[prost(string, tag = "4")]
    pub file: String,
    /// The line of that rule; 0 without one.
    #[prost(uint32, tag = "5")]
    pub line: u32,
}

/// The session is open. Since 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Opened {}

impl Open {
    /// The session's id as a type.
    ///
    /// # Errors
    /// [`CheckError`] when it is not 16 bytes.
    pub fn session_id(&self) -> Result<SessionId, CheckError> {
        SessionId::try_from(self.session.as_slice()).map_err(|_| {
            Checker::of("Open").error(
                "session",
                Problem::WrongLength {
                    bytes: self.session.len(),
                    expected: 16,
                },
            )
        })
    }

    /// Whether this asks what the agent's file says, and for nothing to be opened.
    #[must_use]
    pub fn is_question(&self) -> bool {
        self.requires.iter().any(|name| name == EXPLAIN)
    }

    /// The caller, which every `Open` has.
    ///
    /// # Errors
    /// [`CheckError`] when it is missing.
    pub fn caller(&self) -> Result<&Caller, CheckError> {
        self.caller
            .as_ref()
            .ok_or_else(|| Checker::of("Open").error("caller", Problem::Missing))
    }

    /// The address the caller came from, as a type.
    ///
    /// # Errors
    /// [`CheckError`] when it is no IP address.
    pub fn client_ip(&self) -> Result<IpAddr, CheckError> {
        let expected = "an IPv4 or IPv6 address";
        self.client_ip
            .parse()
            .map_err(|_| Checker::of("Open").error("client_ip", Problem::Value { expected }))
    }

    /// The port the caller came from, as a type.
    ///
    /// # Errors
    /// [`CheckError`] above 65535.
    pub fn client_port(&self) -> Result<u16, CheckError> {
        let expected = "at most 65535";
        u16::try_from(self.client_port)
            .map_err(|_| Checker::of("Open").error("client_port", Problem::Value { expected }))
    }

    fn check_mqtt(&self, fields: &Checker) -> Result<(), CheckError> {
        let demanded = self.is_question() && self.requires.iter().any(|name| name == MQTT_FACTS);
        fields.holds(
            "mqtt",
            self.mqtt.is_some() == demanded,
            "set where `explain` and `mqtt-facts` are required, and only there",
        )?;
        let about = self.mqtt.as_ref().and_then(|supposed| supposed.about.as_ref());
        fields.holds(
            "acts",
            about.is_none() || self.acts.len() == 1,
            "one act beside a topic",
        )?;
        self.mqtt.as_ref().map_or(Ok(()), Supposed::check)
    }

    /// Bounds every field, the caller's included.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("Open");
        fields.requires(&self.requires)?;
        self.session_id()?;
        fields.full_text("endpoint_url", &self.endpoint_url, check::MAX_URL_BYTES)?;
        self.caller()?.check()?;
        self.client_ip()?;
        self.client_port()?;
        fields.texts("acts", &self.acts, check::MAX_ACTS, check::MAX_NAME_BYTES)?;
        fields.holds(
            "started_unix_ms",
            self.started_unix_ms <= check::MAX_UNIX_MS,
            "before the year 10000",
        )?;
        let demanded = self.requires.iter().any(|name| name == CANCEL);
        fields.holds(
            "cancel",
            self.cancel.is_some() == demanded,
            "set where `cancel` is required, and only there",
        )?;
        self.cancel.as_ref().map_or(Ok(()), CancelKey::check)?;
        self.check_mqtt(&fields)
    }
}

impl CancelKey {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let is_bounded = (check::MIN_CANCEL_SECRET..=check::MAX_CANCEL_SECRET).contains(&self.secret.len());
        Checker::of("CancelKey").holds("secret", is_bounded, "4 to 256 bytes")
    }
}

impl Caller {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("Caller");
        let kind = self.kind.as_str();
        fields.holds("kind", CALLER_KINDS.contains(&kind), "user, workload or unidentified")?;
        fields.present("name", kind == "unidentified" || !self.name.is_empty())?;
        fields.text("name", &self.name, check::MAX_NAME_BYTES)?;
        fields.texts("groups", &self.groups, check::MAX_LIST, check::MAX_NAME_BYTES)?;
        fields.map("labels", &self.labels, check::MAX_LIST, check::MAX_NAME_BYTES)?;
        fields.text("site", &self.site, check::MAX_NAME_BYTES)?;
        fields.texts(
            "ssh_keys",
            &self.ssh_keys,
            check::MAX_SSH_KEYS,
            check::MAX_SSH_KEY_BYTES,
        )
    }
}

impl Explained {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("Explained");
        fields.text("reason", &self.reason, check::MAX_NAME_BYTES)?;
        fields.text("rule", &self.rule, check::MAX_NAME_BYTES)?;
        fields.text("file", &self.file, check::MAX_DETAIL_BYTES)
    }
}

impl OpenAnswer {
    /// The answer that the session is open.
    #[must_use]
    pub const fn opened() -> Self {
        Self {
            body: Some(Body::Opened(Opened {})),
        }
    }

    /// The answer that there is no session.
    #[must_use]
    pub const fn refused(refused: Refused) -> Self {
        Self {
            body: Some(Body::Refused(refused)),
        }
    }

    /// The answer to a question.
    #[must_use]
    pub const fn explained(explained: Explained) -> Self {
        Self {
            body: Some(Body::Explained(explained)),
        }
    }

    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds, or `body` when there is no known answer.
    pub fn check(&self) -> Result<(), CheckError> {
        match &self.body {
            None => Err(Checker::of("OpenAnswer").error("body", Problem::Missing)),
            Some(Body::Opened(_)) => Ok(()),
            Some(Body::Refused(refused)) => refused.check(),
            Some(Body::Explained(explained)) => explained.check(),
        }
    }
}

#[cfg(test)]
mod tests;
