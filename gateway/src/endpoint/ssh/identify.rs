//! Who logs in: a certificate of our authority or a registered key, each proven by a signature.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_identity::name::Label;
use fairlead_identity::ssh;
use russh::keys::{Certificate, PublicKey};

use crate::access::Caller;
use crate::endpoint::Callers;

/// Turns proven keys into callers.
pub(super) struct Identifier {
    callers: Arc<dyn Callers>,
    user_cas: Vec<PublicKey>,
}

/// A caller as they stood when they logged in, and by what.
pub(super) struct Proven {
    pub(super) caller: Arc<Caller>,
    by: Credential,
}

enum Credential {
    Certificate,
    Key { fingerprint: String },
}

impl Identifier {
    pub(super) fn new(callers: Arc<dyn Callers>, user_cas: Vec<PublicKey>) -> Self {
        Self { callers, user_cas }
    }

    /// Whether a signature of this key could let `login` in, by itself or under a certificate.
    pub(super) async fn knows(&self, login: &str, key: &PublicKey) -> bool {
        match login.parse::<Label>() {
            Ok(name) => self.callers.knows_key(&name, &ssh::fingerprint(key)).await,
            Err(_) => false,
        }
    }

    /// The caller whose registered key this is. The SSH user name must be the caller's name.
    pub(super) async fn by_key(&self, login: &str, key: &PublicKey, source: IpAddr) -> Option<Proven> {
        let name: Label = login.parse().ok()?;
        let fingerprint = ssh::fingerprint(key);
        let Some(caller) = self.callers.by_key(&name, &fingerprint).await else {
            tracing::debug!(%source, fingerprint, "SSH key is not registered for the user it was offered for");
            return None;
        };
        Some(Proven {
            caller: Arc::new(caller),
            by: Credential::Key { fingerprint },
        })
    }

    /// The caller that the certificate names. russh has checked the signatures and the dates; trusted authority, type,
    /// principals and critical options are checked here (SECURITY.md advisories 8 to 11).
    pub(super) async fn by_certificate(
        &self,
        login: &str,
        certificate: &Certificate,
        source: IpAddr,
    ) -> Option<Proven> {
        match ssh::verify_user_certificate(certificate, &self.user_cas, login, source, SystemTime::now()) {
            Ok(certified) => {
                let caller = self.callers.certified(&certified.name).await?;
                Some(Proven {
                    caller: Arc::new(caller),
                    by: Credential::Certificate,
                })
            }
            Err(error) => {
                tracing::debug!(%source, %error, "SSH certificate refused");
                None
            }
        }
    }

    /// The caller as the store knows them now; `None` once they are disabled or their key was taken away. A connection
    /// may live for days after its login.
    pub(super) async fn current(&self, proven: &Proven) -> Option<Arc<Caller>> {
        let name = &proven.caller.name;
        let caller = match &proven.by {
            Credential::Certificate => self.callers.certified(name).await,
            Credential::Key { fingerprint } => self.callers.by_key(name, fingerprint).await,
        };
        caller.map(Arc::new)
    }
}
