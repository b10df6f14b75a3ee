//! Who asks: an authenticated user or workload with what the store says of them at this moment.

use std::collections::BTreeMap;

use fairlead_identity::name::Label;
use fairlead_policy as policy;

pub use policy::CallerKind;

/// Which caller: a user and a workload of one name are two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerId {
    /// User or workload.
    pub kind: CallerKind,
    /// The name an administrator gave.
    pub name: Label,
}

/// Prints `user alice`.
impl std::fmt::Display for CallerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// What a caller proved. Whether it still lets them in is asked of the store, for every session and for as long as one
/// lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Credential {
    /// An SSH key that was registered for them, by its fingerprint as OpenSSH prints it.
    Key {
        /// The fingerprint.
        fingerprint: String,
    },
    /// A certificate of this gateway's authority; good while the key under it is known for the caller and has not expired.
    Certificate {
        /// The fingerprint of the key under the certificate.
        fingerprint: String,
    },
    /// A certificate of a workload's own issuer; good while that issuer is the one that is registered for it.
    Vendor {
        /// What tells that registration from others.
        issuer: [u8; 32],
    },
}

/// Prints `key SHA256:…`.
impl std::fmt::Display for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key { fingerprint } => write!(f, "key {fingerprint}"),
            Self::Certificate { fingerprint } => write!(f, "certificate {fingerprint}"),
            Self::Vendor { issuer } => {
                f.write_str("issuer ")?;
                issuer.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// An authenticated caller. Groups, labels and site come from the gateway's store, never from a certificate.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name an administrator gave; unique at this gateway.
    pub name: Label,
    /// User or workload.
    pub kind: CallerKind,
    /// Groups in the store's order.
    pub groups: Vec<String>,
    /// Labels of the store.
    pub labels: BTreeMap<String, String>,
    /// The site the caller belongs to and never leaves; `None` for callers of the gateway's owner.
    pub site: Option<Label>,
    /// What they proved.
    pub by: Credential,
    /// Registered SSH public keys, OpenSSH lines; carried to `builtin:ssh` so that it can check who logs in.
    pub ssh_keys: Vec<String>,
}

impl Caller {
    /// Which caller.
    pub fn id(&self) -> CallerId {
        CallerId {
            kind: self.kind,
            name: self.name.clone(),
        }
    }

    /// The caller as the policy sees it.
    pub(super) fn facts(&self) -> policy::Caller {
        policy::Caller {
            name: self.name.to_string(),
            kind: self.kind,
            groups: self.groups.clone(),
            labels: self.labels.clone(),
            site: self.site.as_ref().map(ToString::to_string),
        }
    }
}
