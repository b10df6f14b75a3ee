//! The agent's key and certificate while it runs: what links present, and how they are renewed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use fairlead_identity::chain;
use fairlead_identity::keys::PrivateKey;
use fairlead_identity::tls;
use fairlead_identity::verify::{self, Roots, Usage};
use fairlead_wire::version::ALPN_LINK;
use rustls::pki_types::CertificateDer;

use crate::enroll;
use crate::identity_files::{Enrolled, Identity, IdentityFiles};
use crate::link::{Answer, Credentials};

/// What the agent presents, and where it is kept.
pub(crate) struct Held {
    files: IdentityFiles,
    key: PrivateKey,
    roots: Roots,
    enrolled: Enrolled,
    gateways: Vec<String>,
    current: Mutex<Current>,
}

struct Current {
    tls: Arc<rustls::ClientConfig>,
    not_before: SystemTime,
    not_after: SystemTime,
    /// Where in 0.9 to 1.1 of a third of its life this certificate is renewed, so that a fleet spreads out.
    jitter: f64,
}

impl Held {
    /// # Errors
    /// When certificate and key do not fit each other.
    pub(crate) fn new(files: IdentityFiles, identity: Identity, gateways: Vec<String>) -> anyhow::Result<Self> {
        let Identity {
            key,
            chain,
            roots,
            enrolled,
            ..
        } = identity;
        let current = Mutex::new(Current::new(chain, &key, &roots)?);
        Ok(Self {
            files,
            key,
            roots,
            enrolled,
            gateways,
            current,
        })
    }

    fn current<T>(&self, look: impl FnOnce(&Current) -> T) -> T {
        look(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn try_keep(&self, ders: &[Vec<u8>]) -> anyhow::Result<()> {
        let chain = chain::from_ders(ders.to_vec())?;
        // The gateway is trusted with names; that the certificate is ours and in order is checked all the same.
        let presented = chain.get(..chain.len().saturating_sub(1)).unwrap_or_default();
        let trust_domain = self.roots.trust_domain();
        let who = verify::authenticate(presented, &self.roots, Usage::Client, trust_domain, SystemTime::now())?;
        if who.principal().to_string() != self.enrolled.principal {
            bail!("it names {}, not {}", who.principal(), self.enrolled.principal);
        }
        if *who.spki_sha256() != self.key.spki_sha256() {
            bail!("it is for another key");
        }
        let current = Current::new(chain, &self.key, &self.roots)?;
        self.files.save_chain(ders)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }
}

impl Current {
    fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKey, roots: &Roots) -> anyhow::Result<Self> {
        let (not_before, not_after) = chain::validity(&chain).context("the certificate cannot be read")?;
        let tls = tls::agent_quic(Some((chain, key)), roots, ALPN_LINK)?;
        Ok(Self {
            tls,
            not_before,
            not_after,
            jitter: 0.9 + 0.2 * rand::random::<f64>(),
        })
    }
}

impl Credentials for Held {
    fn tls(&self) -> Arc<rustls::ClientConfig> {
        self.current(|current| Arc::clone(&current.tls))
    }

    fn renew_in(&self) -> Duration {
        let now = SystemTime::now();
        self.current(|current| {
            let life = current.not_after.duration_since(current.not_before).unwrap_or_default();
            let due = current.not_before.checked_add((life / 3).mul_f64(current.jitter));
            // A clock that was set back must not put renewal off beyond the certificate's own time.
            due.and_then(|due| due.duration_since(now).ok())
                .unwrap_or_default()
                .min(life / 3)
        })
    }

    fn expired(&self) -> bool {
        self.current(|current| current.not_after <= SystemTime::now())
    }

    fn signing_request(&self) -> Result<Vec<u8>, String> {
        self.key.csr_der().map_err(|error| error.to_string())
    }

    fn keep(&self, chain: Vec<Vec<u8>>) -> Result<(), String> {
        self.try_keep(&chain).map_err(|error| format!("{error:#}"))
    }

    fn renew_by_proof(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(async {
            let renewed = enroll::renew_by_proof(&self.gateways, &self.enrolled.domain, &self.roots, &self.key).await;
            self.keep(renewed.map_err(|error| error.to_string())?.certificate_chain)
        })
    }
}
