//! What is asked and what is answered: the facts of one request, typed, and the decision on them.
//!
//! The facts are the caller of this crate's word. Who is authenticated, which labels the store holds, whether an address is
//! a real peer's: all that is settled before a [`Request`] exists.

use crate::table::ACTS;
use fairlead_identity::name::{EndpointUrl, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// Most groups, and most labels, of one request. A request with more is denied as [`DenyReason::EvaluationFailed`], because
/// expressions loop over them.
pub const MAX_LIST_ITEMS: usize = 256;
/// Longest name, group, label key or label value of a request, in bytes; longer is denied as
/// [`DenyReason::EvaluationFailed`].
pub const MAX_FACT_BYTES: usize = 256;
/// Longest `ssh.command` an expression is evaluated on, in bytes; longer is denied as [`DenyReason::EvaluationFailed`].
pub const MAX_COMMAND_BYTES: usize = 64 * 1024;
/// Longest `mqtt.topic`, `mqtt.client_id` and `mqtt.username` an expression is evaluated on, in bytes; longer is denied as
/// [`DenyReason::EvaluationFailed`].
pub const MAX_TOPIC_BYTES: usize = 4096;

/// One question: may this caller use this endpoint now?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub caller: Caller,
    /// The agent that would serve the endpoint.
    pub agent: AgentFacts,
    /// What is asked for.
    pub endpoint: EndpointUrl,
    /// The connection that the caller came in on.
    pub conn: Conn,
    /// The time of the decision: `time.now`, in whole seconds.
    pub now: SystemTime,
    /// What whoever asks can enforce.
    pub enforce: Enforcement,
    /// Facts of an SSH session, where they are known (the agent's own server; later a gateway that terminates SSH). With
    /// them the decision is about the one act they name; without them `ssh.user` and `ssh.command` are unknown.
    pub ssh: Option<SshFacts>,
    /// Facts of a Postgres session, where whoever asks has read them from the client's own bytes. Without them the
    /// `postgres.*` variables are unknown, and a rule that reads them never allows.
    pub postgres: Option<PostgresFacts>,
    /// Facts of an MQTT connection, where whoever asks reads its packets. With an act in them the decision is about that one
    /// act; without the act, about the connection in which acts are asked about later; without them, the variables that they
    /// tell are unknown.
    pub mqtt: Option<MqttFacts>,
}

impl Request {
    /// The one act that the facts name, if they name one.
    pub(crate) fn act(&self) -> Option<&str> {
        let mqtt = || Some(self.mqtt.as_ref()?.act.as_ref()?.action);
        self.ssh.as_ref().map(|ssh| ssh.action.as_str()).or_else(mqtt)
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user's or workload's name; empty for [`CallerKind::Unidentified`].
    pub name: String,
    /// What kind of principal it is.
    pub kind: CallerKind,
    /// Groups, at most [`MAX_LIST_ITEMS`].
    pub groups: Vec<String>,
    /// Labels, at most [`MAX_LIST_ITEMS`]; an absent one reads as `''`.
    pub labels: BTreeMap<String, String>,
    /// The site the caller belongs to and never leaves; `None` for callers of the whole installation (reads as `''`).
    pub site: Option<String>,
}

/// The kinds of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerKind {
    /// A person.
    User,
    /// A program.
    Workload,
    /// Nobody we know: the agent or the upstream identifies the caller.
    Unidentified,
}

impl CallerKind {
    /// The value of `caller.kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Workload => "workload",
            Self::Unidentified => "unidentified",
        }
    }

    /// The kind of that name, exactly as [`as_str`](Self::as_str) writes it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::User, Self::Workload, Self::Unidentified]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// The agent that would serve the endpoint, as the gateway's store (or the agent's own identity) knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFacts {
    /// The agent's name.
    pub name: String,
    /// The site it belongs to.
    pub site: String,
    /// Labels, at most [`MAX_LIST_ITEMS`]; an absent one reads as `''`.
    pub labels: BTreeMap<String, String>,
}

/// The caller's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conn {
    /// The peer's address. IPv4-mapped IPv6 is read as IPv4.
    pub client_ip: IpAddr,
    /// The peer's port.
    pub client_port: u16,
    /// When the connection was accepted: `conn.ts.start`, in whole seconds.
    pub started: SystemTime,
    /// The TLS that the caller speaks, where it is known.
    pub tls: Option<TlsFacts>,
}

/// The TLS of a caller's connection; both texts are empty where it speaks none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// The server name asked for, in lower case; empty where the client asked for none.
    pub sni: String,
    /// `1.2` or `1.3`.
    pub version: String,
}

/// Facts of a Postgres session: what the StartupMessage asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresFacts {
    /// The database user.
    pub user: String,
    /// The database.
    pub database: String,
    /// What the client calls itself; empty where it does not say.
    pub application_name: String,
}

/// Facts of an MQTT connection: what CONNECT says, and what its client wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttFacts {
    /// The client's name; empty where the broker shall choose one.
    pub client_id: String,
    /// The user name sent; empty where none was.
    pub username: String,
    /// The act, once one is asked about.
    pub act: Option<MqttAct>,
}

/// One act inside an MQTT connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MqttAct {
    /// `publish` (wills included) or `subscribe`.
    pub action: &'static str,
    /// The topic of a message, or the filter of a subscription as it was sent. At most [`MAX_TOPIC_BYTES`].
    pub topic: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker keeps the message; false for a subscription.
    pub retain: bool,
}

/// Facts of an SSH session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshFacts {
    /// The account asked for.
    pub user: String,
    /// The act: `shell`, `exec` or `sftp`.
    pub action: String,
    /// The command of an `exec`; empty otherwise. At most [`MAX_COMMAND_BYTES`].
    pub command: String,
}

/// What whoever asks can enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Bytes only: nothing inside the session can be told apart.
    Tunnel,
    /// Exactly these acts. The built-in SSH server enforces `shell`, `exec` and `sftp`.
    Acts(&'static [&'static str]),
}

impl Enforcement {
    /// One act of a protocol, by name; `None` where the protocol has no such act.
    #[must_use]
    pub fn one(protocol: Protocol, act: &str) -> Option<Self> {
        let acts = Self::acts_of(protocol);
        let place = acts.iter().position(|known| *known == act)?;
        acts.get(place..=place).map(Self::Acts)
    }

    /// The acts of a protocol; none for most.
    #[must_use]
    pub fn acts_of(protocol: Protocol) -> &'static [&'static str] {
        ACTS.iter().find(|(p, _)| *p == protocol).map_or(&[], |(_, acts)| acts)
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, within bounds.
    Allow(Allowed),
    /// No.
    Deny(Denied),
}

impl Decision {
    /// Whether the answer is yes.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// A yes and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The first rule, in file and line order, that allowed one of the acts.
    pub rule: RuleRef,
    /// The acts that are allowed: those of all matching allow rules, less what deny rules refuse. Empty for
    /// [`Enforcement::Tunnel`], never empty for [`Enforcement::Acts`].
    pub acts: BTreeSet<String>,
    /// The limits of `rule`.
    pub limits: Limits,
}

/// A no and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Why.
    pub reason: DenyReason,
    /// The rule behind it, where there is one.
    pub rule: Option<RuleRef>,
}

/// Why a request was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DenyReason {
    /// No allow rule matched.
    NoRule,
    /// A deny rule matched, or names acts inside what would be a tunnel.
    DenyRule,
    /// An allow rule would match if somebody could enforce its acts or read its facts.
    NeedsTerminated,
    /// A deny rule could not be evaluated, or the request is beyond the bounds of expressions.
    EvaluationFailed,
    /// The caller belongs to another site, or the agent is not of the endpoint's site.
    OtherSite,
}

impl DenyReason {
    /// The reason in kebab case, for audit and metrics: `no-rule`, `deny-rule`, `needs-terminated`, `evaluation-failed`,
    /// `other-site`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRule => "no-rule",
            Self::DenyRule => "deny-rule",
            Self::NeedsTerminated => "needs-terminated",
            Self::EvaluationFailed => "evaluation-failed",
            Self::OtherSite => "other-site",
        }
    }
}

impl std::fmt::Display for DenyReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which rule: for audit, `explain` and counters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleRef {
    /// The rule's name, unique in its policy.
    pub name: String,
    /// The file it stands in.
    pub file: String,
    /// The line its entry starts on, from 1.
    pub line: u32,
}

/// Limits of a session. `None` is the limit of the program's own configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Longest life of a session.
    pub session: Option<Duration>,
    /// Longest silence in both directions.
    pub idle: Option<Duration>,
    /// Sessions one caller may have at a time under this rule.
    pub sessions_per_caller: Option<u32>,
}

/// A rule with `enforce: false` that would have had a say: counted and logged, never applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowMatch {
    /// The rule.
    pub rule: RuleRef,
    /// What it would have done.
    pub effect: Effect,
}

/// What a rule does when it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Permits.
    Allow,
    /// Refuses, whatever other rules permit.
    Deny,
}
