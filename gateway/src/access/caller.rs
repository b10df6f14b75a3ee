//! Who asks: an authenticated user or workload with what the store says of them at this moment.

use std::collections::BTreeMap;

use fairlead_identity::name::Label;
use fairlead_policy as policy;

pub use policy::CallerKind;

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
    /// Registered SSH public keys, OpenSSH lines; carried to `builtin:ssh` so that it can check who logs in.
    pub ssh_keys: Vec<String>,
}

impl Caller {
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
