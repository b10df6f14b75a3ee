//! The rows of the store as the rest of the gateway sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use callers::{CallerKeyRow, CallerKind, CallerName, CallerRow, Issuer, KeyKind, NewCaller, NewCallerKey};

mod callers;

/// Labels, or what an agent reports about itself: at most 64 entries, keys of at most 64 and values of at most 256 bytes.
pub type Labels = BTreeMap<String, String>;

/// Groups or hosts: at most 256 names.
pub type Names = BTreeSet<String>;

/// An agent's full name. It has no form without a site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId {
    /// The site, a label.
    pub site: String,
    /// The agent's name in that site, a label.
    pub name: String,
}

impl AgentId {
    /// Joins site and name; their form is checked where the store writes them.
    pub fn new(site: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            site: site.into(),
            name: name.into(),
        }
    }
}

/// Prints NAME.SITE, as people type it.
impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.site)
    }
}

/// What a list may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteScope {
    /// Every site: for the gateway itself and its administrator.
    Every,
    /// One site only.
    One(String),
}

/// What a join string is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Enrols an agent.
    Agent,
    /// Registers a user's login key.
    User,
    /// Registers a workload's key.
    Workload,
}

impl TokenKind {
    /// The kind of caller it lets in; `None` for agents.
    pub fn caller(self) -> Option<CallerKind> {
        match self {
            Self::Agent => None,
            Self::User => Some(CallerKind::User),
            Self::Workload => Some(CallerKind::Workload),
        }
    }
}

impl From<CallerKind> for TokenKind {
    fn from(kind: CallerKind) -> Self {
        match kind {
            CallerKind::User => Self::User,
            CallerKind::Workload => Self::Workload,
        }
    }
}

/// What a join string grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenGrant {
    /// Agent, user or workload.
    pub kind: TokenKind,
    /// Name of the agent, user or workload, a label; for a fleet a [`NamePattern`].
    ///
    /// [`NamePattern`]: super::NamePattern
    pub name: String,
    /// Site; always present for an agent, for a user only when the user never leaves one site.
    pub site: Option<String>,
    /// Labels which the row gets.
    pub labels: Labels,
    /// A user's groups; empty for an agent. An existing user gets them in addition.
    pub groups: Names,
    /// Hosts that are bound to the agent; empty for a user.
    pub hosts: Names,
}

/// How often a join string may be used, and what a use brings about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Terms {
    /// One key, once, for a name that no other key has.
    #[default]
    Once,
    /// One key, once, for an agent that has a key: the new one takes its place and the old one is worth nothing.
    Replace,
    /// So many keys of agents, each under the name that its device proposes; the grant's name is a
    /// [`NamePattern`](super::NamePattern).
    Fleet {
        /// How many keys, at least one.
        uses: u32,
        /// Whether a name waits for an administrator's approval, unless its agent was imported.
        approval: bool,
    },
}

/// What a device says of itself when it spends a join string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// The name it proposes; only strings of fleets look at it. Empty for none.
    pub name: String,
    /// Facts about its machine, shown while it waits for approval.
    pub reported: Labels,
}

/// Who spends which join string.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// SHA-256 of the secret.
    pub secret_sha256: &'a [u8; 32],
    /// SHA-256 of the public key's SPKI.
    pub spki: &'a [u8; 32],
    /// What the device says of itself.
    pub proposal: &'a Proposal,
}

/// An agent to register before any key is known for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAgent {
    /// Site and name.
    pub id: AgentId,
    /// Labels, which policy reads.
    pub labels: Labels,
}

/// A join string to keep.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// SHA-256 of the 256-bit secret. The secret itself never comes here.
    pub secret_sha256: [u8; 32],
    /// What it grants.
    pub grant: TokenGrant,
    /// How often, and in which way.
    pub terms: Terms,
    /// Now, unix seconds.
    pub created: i64,
    /// When it ends to be good, unix seconds, later than `created`.
    pub expires: i64,
}

/// A join string that is good and was not spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingToken {
    /// What tells it from others and gives nothing away: the beginning of its secret's SHA-256, 16 hex digits.
    pub id: String,
    /// What it is for: `agent`, `user`, and whatever a row says.
    pub kind: String,
    /// The site it is bound to.
    pub site: Option<String>,
    /// Whom it lets in.
    pub name: String,
    /// When it was made, unix seconds.
    pub created: i64,
    /// When it ends to be good, unix seconds.
    pub expires: i64,
    /// How many keys may use it.
    pub uses: u32,
    /// How many have.
    pub used: u32,
}

/// The outcome of spending a join string: what now stands in the agent's or user's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeemed {
    /// Agent or user.
    pub kind: TokenKind,
    /// Name of the agent or user.
    pub name: String,
    /// Site; always present for an agent.
    pub site: Option<String>,
    /// The labels that now hold.
    pub labels: Labels,
    /// The groups that now hold (users).
    pub groups: Names,
    /// The hosts that are now bound (agents).
    pub hosts: Names,
    /// The same key had spent it before: a retry.
    pub repeated: bool,
    /// The name is held for this key and waits for an administrator's approval: no certificate yet.
    pub pending: bool,
    /// Another key has lost the agent by this very use.
    pub replaced: bool,
}

/// Whose certificate it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// An agent's.
    Agent(AgentId),
    /// A caller's.
    Caller(CallerName),
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRecord {
    /// Serial number, lower-case hex, at most 40 characters.
    pub serial: String,
    /// SHA-256 of the public key's SPKI.
    pub spki: [u8; 32],
    /// End of validity, unix seconds.
    pub not_after: i64,
    /// The number of the issuing authority it came from.
    pub issuer: u32,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRow {
    /// Site and name.
    pub id: AgentId,
    /// The operator's labels, which policy reads.
    pub labels: Labels,
    /// SHA-256 of its public key's SPKI; `None` before it is enrolled.
    pub spki: Option<[u8; 32]>,
    /// Serial number of its present certificate.
    pub serial: Option<String>,
    /// End of that certificate's validity, unix seconds.
    pub not_after: Option<i64>,
    /// When it was enrolled, unix seconds.
    pub enrolled_at: Option<i64>,
    /// When it was heard last, unix seconds.
    pub last_seen: Option<i64>,
    /// What it reports about itself; shown, never used in rules.
    pub reported: Labels,
    /// It may not link, and its endpoints are not found.
    pub disabled: bool,
    /// A device of a fleet holds the name and waits for approval: no certificate, no link.
    pub pending: bool,
    /// SHA-256 of each root that it said it trusts, in hex; empty before its first link.
    pub roots: Names,
}

/// One binding of a host to an agent of the same site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRow {
    /// The host, a label.
    pub host: String,
    /// The agent, whose site is the host's.
    pub agent: AgentId,
}

/// How an endpoint's bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// End to end to an upstream that the agent dials.
    Tunnel,
    /// Served by the agent itself (`builtin:ssh`).
    Builtin,
}

/// An endpoint that an agent offers; its site is the agent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRow {
    /// The host, a label.
    pub host: String,
    /// The protocol's name, for instance `ssh`.
    pub protocol: String,
    /// The port callers ask for, not the upstream's.
    pub port: u16,
    /// How its bytes travel.
    pub mode: Mode,
    /// May be one of a pool.
    pub pooling: bool,
}

/// An agent that can carry a session to a host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The agent.
    pub agent: AgentId,
    /// The agent's labels, which policy reads.
    pub labels: Labels,
    /// The protocol offered at that port.
    pub protocol: String,
    /// How its bytes travel.
    pub mode: Mode,
    /// May be one of a pool.
    pub pooling: bool,
}

/// An endpoint with an agent that can carry sessions to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedEndpoint {
    /// The host, a label; its site is the agent's.
    pub host: String,
    /// The port callers ask for.
    pub port: u16,
    /// The agent, and what it offers there.
    pub owner: Candidate,
}

/// OpenSSH public key lines without comments.
pub type KeyLines = BTreeSet<String>;

/// The SSH host keys that an agent reports of one of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedHostKeys {
    /// The host, a label.
    pub host: String,
    /// The port callers ask for.
    pub port: u16,
    /// All keys that the server shows; 1 to 8 lines of at most 1 KiB.
    pub keys: KeyLines,
}

/// What a report of host keys came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeyNews {
    /// The first of this endpoint since the agent was enrolled: trusted.
    Trusted,
    /// Nothing that is not trusted already.
    Known,
    /// Another key than before: held, and not given to callers.
    Held {
        /// Whether an audit line is due; once an hour for one endpoint.
        tell: bool,
    },
}

/// The host keys of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKeyRow {
    /// The host; the site is the agent's.
    pub host: String,
    /// The port callers ask for.
    pub port: u16,
    /// What callers are given.
    pub trusted: KeyLines,
    /// What the server shows now, where that is something else.
    pub held: Option<KeyLines>,
    /// Since when, unix seconds.
    pub held_at: Option<i64>,
    /// When the agent reported last, unix seconds.
    pub seen_at: i64,
}

impl OwnedEndpoint {
    /// Its place in the order of the list.
    pub fn place(&self) -> EndpointPlace {
        EndpointPlace {
            site: self.owner.agent.site.clone(),
            host: self.host.clone(),
            port: self.port,
            protocol: self.owner.protocol.clone(),
            agent: self.owner.agent.name.clone(),
        }
    }
}

/// A place in the list of all endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointPlace {
    /// The site.
    pub site: String,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: String,
    /// The agent's name.
    pub agent: String,
}
