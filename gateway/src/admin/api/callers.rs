//! Requests and answers about users, workloads and what is revoked.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// `POST /v1/users`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddUser {
    /// The name.
    pub name: String,
    /// The one site the user never leaves.
    pub site: Option<String>,
    /// Groups for policy.
    pub groups: BTreeSet<String>,
    /// Labels for policy.
    pub labels: BTreeMap<String, String>,
    /// SSH public keys, OpenSSH lines; all are taken or none.
    pub ssh_keys: Vec<String>,
}

/// `PATCH /v1/users/{name}` and `/v1/workloads/{name}`: what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChangeUser {
    /// The groups from now on.
    pub groups: Option<BTreeSet<String>>,
    /// Labels to set, or with null to take away; others stay.
    pub labels: BTreeMap<String, Option<String>>,
    /// Whether the user is kept out.
    pub disabled: Option<bool>,
}

/// `POST /v1/users/{name}/keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddKeys {
    /// SSH public keys, OpenSSH lines.
    pub ssh_keys: Vec<String>,
    /// What people call them, at most 64 bytes.
    #[serde(default)]
    pub label: String,
}

/// `POST /v1/workloads`: a workload with certificates of its vendor's own issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddWorkload {
    /// The name.
    pub name: String,
    /// The issuer's certificates, PEM: trusted for `san_uri` and for nothing else.
    pub ca_pem: String,
    /// The URI in the workload's certificates, exactly.
    pub san_uri: String,
    /// The one site the workload never leaves.
    pub site: Option<String>,
    /// Groups for policy.
    pub groups: BTreeSet<String>,
    /// Labels for policy.
    pub labels: BTreeMap<String, String>,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// As for a user.
    #[serde(flatten)]
    pub caller: User,
    /// The URI in its vendor's certificates; absent for one that comes by a join string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub san_uri: Option<String>,
}

/// `GET /v1/workloads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workloads {
    /// By name.
    pub workloads: Vec<Workload>,
}

/// `POST /v1/revocations`: exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revoke {
    /// An agent, NAME.SITE.
    pub agent: Option<String>,
    /// A user.
    pub user: Option<String>,
    /// A workload.
    pub workload: Option<String>,
    /// A login key, by its fingerprint or an unmistakable beginning of it.
    pub login_key: Option<String>,
    /// A live session.
    pub session: Option<String>,
    /// A join string that was not used up, by its id or an unmistakable beginning of it.
    pub token: Option<String>,
}

/// What was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// `agent`, `user`, `workload`, `login-key`, `session` or `token`.
    pub kind: String,
    /// Which; a fingerprint in full.
    pub id: String,
    /// Whose login key or join string it was: `user alice`.
    pub of: Option<String>,
    /// Live sessions that end by it.
    pub sessions: usize,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub name: String,
    /// The one site the user never leaves.
    pub site: Option<String>,
    /// Groups.
    pub groups: BTreeSet<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Kept out.
    pub disabled: bool,
    /// When added.
    pub created: i64,
}

/// `GET /v1/users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// By name.
    pub users: Vec<User>,
}

/// A user's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserKey {
    /// Fingerprint as OpenSSH prints it.
    pub fingerprint: String,
    /// `registered` by an administrator, or a machine's `login` key.
    pub kind: String,
    /// The algorithm as OpenSSH names it, for instance `sk-ssh-ed25519@openssh.com`.
    pub algorithm: String,
    /// What an administrator calls it, or the machine's name.
    pub label: String,
    /// When added.
    pub added: i64,
    /// When it ends to be good; absent for never.
    pub expires: Option<i64>,
}

/// `GET` and `POST /v1/users/{name}/keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserKeys {
    /// By age.
    pub keys: Vec<UserKey>,
}
