//! The certificate authority as a gateway has it: several issuing authorities on disk, one in force, the roots that are
//! trusted. Which is in force changes while the gateway runs; whoever needs it asks each time.
//!
//! Deliberately not in here: who gets a certificate (`registry`), and the gateway's own (`own_certificates`).

mod book;
pub mod command;
mod files;
mod report;
mod tell;

use std::sync::Arc;

use arc_swap::ArcSwap;
use fairlead_identity::authority::Authority;
use fairlead_identity::ssh::SshAuthority;
use fairlead_identity::verify::Roots;
use fairlead_wire::control;
use tokio::sync::watch;

pub(crate) use files::AuthorityFiles;
pub use report::{Ca, Outcome, run};

/// The issuing authority of the moment, with everything that is trusted beside it.
pub(crate) struct InForce {
    /// Its number among the files.
    pub(crate) number: u32,
    /// Issues X.509 certificates.
    pub(crate) issuer: Authority,
    /// Every root that certificates may lead to; the issuer's own comes first.
    pub(crate) roots: Roots,
}

/// Everything the gateway signs with.
pub(crate) struct Authorities {
    in_force: ArcSwap<InForce>,
    pin: watch::Sender<[u8; 32]>,
    announced: watch::Sender<control::Authority>,
    /// Issues SSH certificates.
    pub(crate) ssh: SshAuthority,
}

impl Authorities {
    pub(crate) fn new(in_force: InForce, ssh: SshAuthority) -> Self {
        Self {
            pin: watch::Sender::new(in_force.issuer.root_sha256()),
            announced: watch::Sender::new(in_force.announcement()),
            in_force: ArcSwap::from_pointee(in_force),
            ssh,
        }
    }

    /// What is in force now.
    pub(crate) fn x509(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// Puts another in force. Links are not told yet: first the gateway must show what they are told of.
    pub(crate) fn replace(&self, next: Arc<InForce>) {
        self.pin.send_replace(next.issuer.root_sha256());
        self.in_force.store(next);
    }

    /// Tells links what is in force.
    pub(crate) fn announce(&self) {
        let announcement = self.x509().announcement();
        self.announced.send_if_modified(|told| {
            let differs = *told != announcement;
            *told = announcement;
            differs
        });
    }

    /// What links are told, as it changes.
    pub(crate) fn announced(&self) -> watch::Receiver<control::Authority> {
        self.announced.subscribe()
    }

    /// SHA-256 of the root that join strings pin, as it changes.
    pub(crate) fn pin(&self) -> watch::Receiver<[u8; 32]> {
        self.pin.subscribe()
    }
}

impl InForce {
    /// The roots in DER, as peers are told.
    pub(crate) fn root_ders(&self) -> Vec<Vec<u8>> {
        self.roots.certificates().map(|root| root.to_vec()).collect()
    }

    fn announcement(&self) -> control::Authority {
        control::Authority {
            roots: self.root_ders(),
            issuing_sha256: self.issuer.above().issuing_sha256().to_vec(),
        }
    }
}
