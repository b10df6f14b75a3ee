//! Requests and answers about the access policy: why, what if, and what is in force.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Most callers, and most endpoints, that one [`Inventory`] lists; beyond it the request is refused as `limit`.
pub const MAX_INVENTORY: usize = 20_000;

/// `POST /v1/policy/explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExplainAccess {
    /// The user's name.
    #[serde(rename = "as")]
    pub caller: String,
    /// The endpoint's URL.
    pub to: String,
    /// One act, where the endpoint enforces acts; every act unless given.
    pub act: Option<String>,
    /// What an MQTT client is supposed to say; for endpoints `mqtt://` only.
    pub mqtt: Option<MqttSupposed>,
    /// When, in unix seconds; now unless given.
    pub at: Option<i64>,
    /// The caller's address; 192.0.2.1, which is nobody's, unless given.
    pub client_ip: Option<String>,
}

/// What an MQTT client is supposed to say. Without a topic the question is about the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttSupposed {
    /// The client's name; empty where the broker shall choose one.
    pub client_id: String,
    /// The user name; empty where none is sent.
    pub username: String,
    /// The topic of a message or the filter of a subscription, as `act` says; at most 4096 bytes.
    pub topic: Option<String>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker keeps the message.
    pub retain: bool,
}

/// A decision and why. Nothing is opened and nothing audited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessExplained {
    /// The gateway's half of the answer.
    pub allowed: bool,
    /// Why not, as in the audit and in `fairlead_denied_total`.
    pub reason: Option<String>,
    /// The rule behind the answer.
    pub rule: Option<RuleAt>,
    /// The acts that are allowed, where the endpoint enforces acts.
    pub acts: BTreeSet<String>,
    /// Digest of the policy in force.
    pub policy: String,
    /// The agent that owns the endpoint, `NAME.SITE`; absent where no agent does.
    pub agent: Option<String>,
    /// When the question is about, unix seconds.
    pub at: i64,
    /// The address it is about.
    pub client_ip: String,
    /// What rules of the endpoint's site said: the deciding one first, then those that had a say, then the nearest.
    pub rules: Vec<RuleSaid>,
    /// Rules of that site which are not in `rules`.
    pub more_rules: usize,
    /// Rules of other sites.
    pub rules_elsewhere: usize,
    /// Where no rule was asked: the facts that decided.
    pub saw: Vec<FactSeen>,
    /// What stands beside the answer, for a person.
    pub notes: Vec<String>,
    /// The other half: what the agent says by its own file.
    pub agent_says: AgentWord,
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleAt {
    /// Its name.
    pub name: String,
    /// The file, as the gateway (or the agent) names it.
    pub file: String,
    /// The line its entry starts on.
    pub line: u32,
}

/// What one rule said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSaid {
    /// Which rule.
    pub rule: RuleAt,
    /// `allow` or `deny`.
    pub effect: String,
    /// False for a rule that is only counted.
    pub enforce: bool,
    /// Whether the answer names it.
    pub decides: bool,
    /// `matches`, `unknown`, `failed`, `false`, `other-acts` or `other-protocol`.
    pub said: String,
    /// It names acts or reads the protocol, which a tunnel hides.
    pub hidden: bool,
    /// The parts of its expressions that were not true.
    pub parts: Vec<PartSaid>,
    /// The values it saw.
    pub saw: Vec<FactSeen>,
}

/// A part of an expression that was not true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSaid {
    /// As written.
    pub text: String,
    /// `false`, `failed` or `unknown`.
    pub said: String,
    /// Why it failed, or what is not known.
    pub why: Option<String>,
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactSeen {
    /// The variable, or the label.
    pub name: String,
    /// The value as CEL writes it.
    pub value: String,
}

/// The agent's own verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentWord {
    /// Its answer; absent where it was not asked or did not answer.
    pub allowed: Option<bool>,
    /// Why not, or why there is no answer.
    pub reason: Option<String>,
    /// The rule of its file behind the answer.
    pub rule: Option<RuleAt>,
}

/// `POST /v1/policy/try`: what a reload would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTried {
    /// Digest of the policy that a reload would put in force.
    pub digest: String,
    /// What is allowed but looks like a slip.
    pub warnings: Vec<String>,
    /// The live sessions it would cut.
    pub would_cut: Vec<SessionLost>,
}

/// A live session without an answer under another policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLost {
    /// The session's id.
    pub id: String,
    /// The caller.
    pub caller: String,
    /// The endpoint's URL.
    pub endpoint: String,
    /// By what it would lose its answer: the reason of a denial, `fewer-acts`, `shut-out` or `unknown-endpoint`.
    pub why: String,
    /// The rule behind that, where there is one.
    pub rule: Option<RuleAt>,
}

/// `GET /v1/policy`: the files the policy in force was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFiles {
    /// Digest of the policy in force.
    pub digest: String,
    /// Its files in order.
    pub files: Vec<PolicyFile>,
}

/// One file of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFile {
    /// Its name, usually the path.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// `GET /v1/policy/inventory`: everybody and everything a policy can decide about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The gateway's time, unix seconds.
    pub now: i64,
    /// Callers who are not disabled, by name.
    pub callers: Vec<InventoryCaller>,
    /// Endpoints with an owner, by URL and agent.
    pub endpoints: Vec<InventoryEndpoint>,
}

/// A caller as policy sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryCaller {
    /// The name.
    pub name: String,
    /// `user` or `workload`.
    pub kind: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The one site the caller never leaves.
    pub site: Option<String>,
}

/// An endpoint as policy sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryEndpoint {
    /// The canonical URL.
    pub url: String,
    /// The agent that owns it.
    pub agent: String,
    /// The agent's site.
    pub site: String,
    /// The agent's labels.
    pub labels: BTreeMap<String, String>,
    /// The acts that are enforced; none for a tunnel.
    pub acts: Vec<String>,
}
