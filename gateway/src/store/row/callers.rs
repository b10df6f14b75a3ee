//! Users and workloads, and their keys.

use std::fmt;

use super::{Labels, Names};

/// The kinds of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerKind {
    /// A person.
    User,
    /// A program.
    Workload,
}

impl CallerKind {
    /// The word in texts and columns.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Workload => "workload",
        }
    }
}

/// A caller's full name. It has no form without a kind: users and workloads do not share identities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerName {
    /// User or workload.
    pub kind: CallerKind,
    /// The name, a label.
    pub name: String,
}

impl CallerName {
    /// Joins kind and name; the form is checked where the store writes it.
    pub fn new(kind: CallerKind, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }

    /// A user.
    pub fn user(name: impl Into<String>) -> Self {
        Self::new(CallerKind::User, name)
    }

    /// A workload.
    pub fn workload(name: impl Into<String>) -> Self {
        Self::new(CallerKind::Workload, name)
    }
}

/// Prints `user alice`.
impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// A caller to add.
#[derive(Clone, Debug)]
pub struct NewCaller {
    /// Kind and name.
    pub id: CallerName,
    /// The one site the caller never leaves, or `None` for all.
    pub site: Option<String>,
    /// Groups, which policy reads.
    pub groups: Names,
    /// Labels, which policy reads.
    pub labels: Labels,
    /// The first keys, added together with the caller or not at all.
    pub keys: Vec<NewCallerKey>,
    /// The issuer of a workload's own certificates.
    pub issuer: Option<Issuer>,
    /// Now, unix seconds.
    pub created: i64,
}

/// Who certifies a workload in the gateway's stead: the vendor's own authority, for exactly one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The authority's certificates, PEM, at most 32 KiB.
    pub ca_pem: String,
    /// The URI that its certificates for the workload carry, at most 256 bytes.
    pub san_uri: String,
    /// Tells this authority for this URI from every other.
    pub digest: [u8; 32],
}

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerRow {
    /// Kind and name.
    pub id: CallerName,
    /// The one site the caller never leaves, or `None` for all.
    pub site: Option<String>,
    /// Groups, which policy reads.
    pub groups: Names,
    /// Labels, which policy reads.
    pub labels: Labels,
    /// May not come in.
    pub disabled: bool,
    /// The issuer of a workload's own certificates.
    pub issuer: Option<Issuer>,
    /// When the caller was added, unix seconds.
    pub created: i64,
}

/// How a key came to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// An SSH key an administrator registered, for stock ssh.
    Registered,
    /// A machine's login key, registered by a join string.
    Login,
}

/// A key to add.
#[derive(Clone, Debug)]
pub struct NewCallerKey {
    /// Fingerprint as OpenSSH prints it (`SHA256:…`), at most 128 bytes.
    pub fingerprint: String,
    /// How it came.
    pub kind: KeyKind,
    /// The public key, an OpenSSH line of at most 8 KiB.
    pub public_key: String,
    /// What people call it: an administrator's label or a machine's name; at most 64 bytes, may be empty.
    pub label: String,
    /// SHA-256 of a login key's SPKI, by which its X.509 certificates are known.
    pub spki: Option<[u8; 32]>,
    /// Now, unix seconds.
    pub added: i64,
    /// When it ends to be good, unix seconds; `None` for never.
    pub expires: Option<i64>,
}

/// A caller's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerKeyRow {
    /// Whose.
    pub caller: CallerName,
    /// Fingerprint as OpenSSH prints it.
    pub fingerprint: String,
    /// How it came.
    pub kind: KeyKind,
    /// The public key, an OpenSSH line.
    pub public_key: String,
    /// What people call it; may be empty.
    pub label: String,
    /// SHA-256 of a login key's SPKI.
    pub spki: Option<[u8; 32]>,
    /// When it was added, unix seconds.
    pub added: i64,
    /// When it ends to be good, unix seconds; `None` for never.
    pub expires: Option<i64>,
}
