//! Who logs in: a certificate of our authority or a registered key, each proven by a signature.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_identity::name::Label;
use fairlead_identity::principal::Kind;
use fairlead_identity::ssh;
use russh::keys::{Certificate, PublicKey};

use crate::access::{Caller, CallerId, CallerKind, Credential};
use crate::endpoint::Callers;

/// Turns proven keys into callers.
pub(super) struct Identifier {
    callers: Arc<dyn Callers>,
    user_cas: Vec<PublicKey>,
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
    pub(super) async fn by_key(&self, login: &str, key: &PublicKey, source: IpAddr) -> Option<Arc<Caller>> {
        let name: Label = login.parse().ok()?;
        let fingerprint = ssh::fingerprint(key);
        let kind = CallerKind::User;
        let caller = self
            .present(CallerId { kind, name }, Credential::Key { fingerprint })
            .await;
        if caller.is_none() {
            tracing::debug!(%source, "SSH key is not registered for the user it was offered for");
        }
        caller
    }

    /// The caller that the certificate names. russh has checked the signatures and the dates; trusted authority, type,
    /// principals and critical options are checked here (SECURITY.md advisories 8 to 11).
    ///
    /// # Errors
    /// The stable name of the refusal.
    pub(super) async fn by_certificate(
        &self,
        login: &str,
        certificate: &Certificate,
        source: IpAddr,
    ) -> Result<Arc<Caller>, &'static str> {
        match ssh::verify_user_certificate(certificate, &self.user_cas, login, source, SystemTime::now()) {
            Ok(certified) => {
                let kind = match certified.principal.kind() {
                    Kind::User => CallerKind::User,
                    Kind::Workload => CallerKind::Workload,
                    Kind::Agent | Kind::Gateway => return Err("bad-name"),
                };
                let name = certified.name;
                let fingerprint = ssh::fingerprint(&PublicKey::from(certificate.public_key().clone()));
                self.present(CallerId { kind, name }, Credential::Certificate { fingerprint })
                    .await
                    .ok_or("unknown-user")
            }
            Err(error) => {
                tracing::debug!(%source, %error, "SSH certificate refused");
                Err(error.reason())
            }
        }
    }

    async fn present(&self, who: CallerId, by: Credential) -> Option<Arc<Caller>> {
        self.callers.present(&who, &by).await.map(Arc::new)
    }
}
