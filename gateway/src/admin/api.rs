//! Requests and answers, shared by the gateway and the command line. Times are unix seconds, names are labels.
//!
//! Requests refuse unknown fields, so that a newer command line's wish is never dropped in silence; answers may grow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

mod callers;
mod policy;

pub use callers::{
    AddKeys, AddUser, AddWorkload, ChangeUser, Revoke, Revoked, User, UserKey, UserKeys, Users, Workload, Workloads,
};
pub use policy::{
    AccessExplained, AgentWord, ExplainAccess, FactSeen, Inventory, InventoryCaller, InventoryEndpoint, MAX_INVENTORY,
    MqttSupposed, PartSaid, PolicyFile, PolicyFiles, PolicyTried, RuleAt, RuleSaid, SessionLost,
};

/// Longest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a join string is good unless asked otherwise, in seconds: 15 minutes.
pub const DEFAULT_TTL_SECONDS: u64 = 15 * 60;

/// The longest life of a join string, in seconds: 180 days.
pub const MAX_TTL_SECONDS: u64 = 180 * 86_400;

/// The site of agents for which none is named.
pub const DEFAULT_SITE: &str = "default";

/// What every refusal says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// One of a closed set: `invalid`, `not-found`, `conflict`, `limit`, `policy`, `too-large`, `busy`, `audit-failed`,
    /// `method`, `failed`.
    pub error: String,
    /// What happened, for a person.
    pub reason: String,
    /// What to do; may be empty.
    pub help: String,
}

/// The most agents in one import; in a request of at most [`MAX_IMPORT_BYTES`].
pub const MAX_IMPORT: usize = 10_000;

/// Longest request body of an import, in bytes.
pub const MAX_IMPORT_BYTES: usize = 4 * 1024 * 1024;

/// The most agents approved in one request.
pub const MAX_APPROVALS: usize = 500;

/// `POST /v1/tokens`: exactly one of `agent`, `agents`, `user` and `workload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CreateToken {
    /// Name of the agent to enrol.
    pub agent: Option<String>,
    /// Pattern of the names that a fleet's devices may propose; `*` stands for any run of characters.
    pub agents: Option<String>,
    /// How many keys may use it, for `agents`; 1 unless given.
    pub uses: Option<u32>,
    /// Whether a fleet's names are good at once; without it they wait for approval, imported ones excepted.
    pub no_approval: bool,
    /// Whether the key of an enrolled `agent` is to be replaced by the one that uses the string.
    pub replace: bool,
    /// Name of the user to let in.
    pub user: Option<String>,
    /// Name of the workload to let in.
    pub workload: Option<String>,
    /// Site of the agent ([`DEFAULT_SITE`] unless given), or the one site the user never leaves.
    pub site: Option<String>,
    /// Labels for policy.
    pub labels: BTreeMap<String, String>,
    /// A user's or workload's groups.
    pub groups: BTreeSet<String>,
    /// Hosts to bind to the agent.
    pub hosts: BTreeSet<String>,
    /// Life in seconds, 10 to [`MAX_TTL_SECONDS`]; [`DEFAULT_TTL_SECONDS`] unless given.
    pub ttl_seconds: Option<u64>,
}

/// The answer, the only place where the join string is ever seen. `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The join string, a secret.
    pub join: String,
    /// What names it afterwards, as in [`Token`]. No secret.
    #[serde(default)]
    pub id: String,
    /// `agent`, `user` or `workload`.
    pub kind: String,
    /// Whom it lets in; a fleet's pattern.
    pub name: String,
    /// The site.
    pub site: Option<String>,
    /// When it ends to be good.
    pub expires: i64,
    /// How many keys may use it.
    pub uses: u32,
    /// Whether names wait for approval.
    pub approval: bool,
}

impl fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TokenCreated");
        shown
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("site", &self.site);
        shown.field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// A join string that is good and was not used up. The string itself is kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What names it, for `revoke token`: the beginning of its secret's SHA-256.
    pub id: String,
    /// `agent`, `user` or `workload`.
    pub kind: String,
    /// Whom it lets in; a fleet's pattern.
    pub name: String,
    /// The site.
    pub site: Option<String>,
    /// When it was made.
    pub created: i64,
    /// When it ends to be good.
    pub expires: i64,
    /// How many keys may use it.
    pub uses: u32,
    /// How many have.
    pub used: u32,
}

/// `GET /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Those that end first come first.
    pub tokens: Vec<Token>,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The name in its site.
    pub name: String,
    /// The site.
    pub site: String,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// What the agent says of itself; no rule reads it.
    pub reported: BTreeMap<String, String>,
    /// When it was enrolled.
    pub enrolled_at: Option<i64>,
    /// When it was heard last.
    pub last_seen: Option<i64>,
    /// Serial number of its certificate.
    pub certificate_serial: Option<String>,
    /// When that certificate ends.
    pub certificate_not_after: Option<i64>,
    /// Kept out.
    pub disabled: bool,
    /// A device of a fleet holds the name and waits for approval.
    #[serde(default)]
    pub pending: bool,
    /// Its link, if there is one now.
    pub online: Option<Link>,
    /// Set while two machines use its key.
    #[serde(default)]
    pub conflict: Option<Conflict>,
}

/// Two machines use one agent's key: which of them is meant is the operator's to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Where the machine is that serves.
    pub serving: String,
    /// Where the other one is.
    pub other: String,
    /// When both were first seen.
    pub since: i64,
    /// When the other one was heard last.
    pub last: i64,
    /// How often it was turned away.
    pub tries: u64,
}

/// An agent's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// `quic` or `websocket`.
    pub transport: String,
    /// Where its packets come from.
    pub address: String,
    /// Since when.
    pub since: i64,
}

/// `GET /v1/agents[?site=S]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agents {
    /// Those that wait for approval first, then by site and name.
    pub agents: Vec<Agent>,
}

/// `GET /v1/agents/{site}/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDetail {
    /// As in the list.
    #[serde(flatten)]
    pub agent: Agent,
    /// Hosts bound to it.
    pub hosts: BTreeSet<String>,
    /// What it offered last.
    pub endpoints: Vec<Endpoint>,
    /// The SSH host keys of the servers behind its endpoints.
    #[serde(default)]
    pub host_keys: Vec<HostKeys>,
}

/// The SSH host keys of one endpoint, by their fingerprints as OpenSSH prints them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKeys {
    /// The host; the site is the agent's.
    pub host: String,
    /// The port callers ask for.
    pub port: u16,
    /// What callers are given.
    pub trusted: Vec<String>,
    /// What the server shows, where that is something else: held until it is trusted.
    pub held: Option<Vec<String>>,
    /// Since when.
    pub held_at: Option<i64>,
    /// When the agent read them last.
    pub seen_at: i64,
}

/// `POST /v1/agents/{site}/{name}/trust-hostkey`: the endpoints whose held keys are trusted from now on, as they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKeysTrusted {
    /// By host and port; none when nothing was held.
    pub host_keys: Vec<HostKeys>,
}

/// An endpoint that an agent offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The host; the site is the agent's.
    pub host: String,
    /// The protocol.
    pub protocol: String,
    /// The port callers ask for.
    pub port: u16,
    /// `tunnel` or `builtin`.
    pub mode: String,
}

/// `POST /v1/agents/{site}/{name}/rename`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameAgent {
    /// The new name, in the same site.
    pub to: String,
}

/// An agent's full name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentName {
    /// The name in its site.
    pub name: String,
    /// The site.
    pub site: String,
}

/// `POST /v1/agents/approve`, and its answer: all of them are approved or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveAgents {
    /// At most [`MAX_APPROVALS`].
    pub agents: Vec<AgentName>,
}

/// An agent to register before it enrols.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedAgent {
    /// The name in its site.
    pub name: String,
    /// The site.
    pub site: String,
    /// Labels for policy.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// `POST /v1/agents`: all of them are registered or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportAgents {
    /// At most [`MAX_IMPORT`].
    pub agents: Vec<ImportedAgent>,
}

/// How many it were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Agents registered.
    pub imported: usize,
}

/// `PATCH /v1/agents/{site}/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeAgent {
    /// Labels to set, or with null to take away; others stay.
    pub labels: BTreeMap<String, Option<String>>,
}

/// `POST /v1/hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindHost {
    /// The host.
    pub host: String,
    /// The site of host and agents.
    pub site: String,
    /// Names of the agents that may offer endpoints on it.
    pub agents: BTreeSet<String>,
}

/// A host with its agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The host.
    pub host: String,
    /// Its site.
    pub site: String,
    /// The agents bound to it.
    pub agents: BTreeSet<String>,
}

/// `GET /v1/hosts[?site=S]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// By site and host.
    pub hosts: Vec<Host>,
}

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The id, the same at both ends.
    pub id: String,
    /// The caller.
    pub caller: String,
    /// `user` or `workload`.
    pub kind: String,
    /// The endpoint's URL.
    pub endpoint: String,
    /// The agent that serves it.
    pub agent: String,
    /// The agent's site.
    pub site: String,
    /// The rule that allowed it.
    pub rule: String,
    /// Where the caller comes from.
    pub client_ip: String,
    /// What the caller proved: `key SHA256:…`, `certificate SHA256:…`.
    pub proved: String,
    /// The acts that were given; empty for a tunnel.
    pub acts: Vec<String>,
    /// Since when.
    pub started: i64,
    /// Bytes towards the upstream so far.
    pub bytes_in: u64,
    /// Bytes towards the caller so far.
    pub bytes_out: u64,
}

/// `GET /v1/sessions[?site=S]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// In the order of their beginning.
    pub sessions: Vec<Session>,
}

/// `POST /v1/ca/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaReloaded {
    /// The number of the issuing authority now in force.
    pub issuing: u32,
    /// How many roots are trusted.
    pub roots: usize,
}

/// `POST /v1/policy/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReloaded {
    /// Digest of the policy now in force.
    pub digest: String,
    /// What is allowed but looks like a slip.
    pub warnings: Vec<String>,
}
