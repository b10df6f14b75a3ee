//! What TLS for callers needs of the authority in force: leaves for whatever name is asked for, the roots that callers'
//! chains may lead to, and those roots for clients to trust.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fairlead_identity::authority::Issued;
use fairlead_identity::principal::{Kind, Principal};
use fairlead_identity::tls::{CallerChains, Mint};
use fairlead_identity::verify::{Authenticated, VerifyError};
use fairlead_identity::{chain, keys};
use fairlead_runtime::clock::Clock;
use rustls::pki_types::CertificateDer;

use crate::authority::Authorities;

/// Life of a minted leaf; a new one is minted at half of it.
const LEAF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Asks the authority in force each time.
#[derive(Clone)]
pub(crate) struct Signer {
    authorities: Arc<Authorities>,
    who: Principal,
    clock: Arc<dyn Clock>,
}

impl Signer {
    /// For the gateway of a trust domain.
    ///
    /// # Errors
    /// When the trust domain is not one.
    pub(crate) fn new(
        authorities: Arc<Authorities>,
        trust_domain: &str,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let who = Principal::new(trust_domain, None, Kind::Gateway, "gateway".parse()?)?;
        Ok(Self {
            authorities,
            who,
            clock,
        })
    }

    /// The roots of the moment, PEM.
    pub(crate) fn ca_pem(&self) -> String {
        chain::to_pem(&self.authorities.x509().root_ders())
    }
}

impl CallerChains for Signer {
    fn who(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Authenticated, VerifyError> {
        self.authorities.x509().roots.who(chain, now)
    }

    fn own_trust_domain(&self) -> String {
        self.who.trust_domain().to_owned()
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Mint for Signer {
    fn mint(&self, csr_der: &[u8], dns: &str) -> Option<Issued> {
        let serial =
            keys::random_serial().map_err(|error| tracing::error!(%error, "no serial for a server certificate"));
        let names = [dns.to_owned()];
        let issued =
            self.authorities
                .x509()
                .issuer
                .issue(csr_der, &self.who, &names, LEAF_LIFE, self.clock.now(), serial.ok()?);
        issued
            .map_err(|error| tracing::error!(%error, "no server certificate for a caller"))
            .ok()
    }

    fn issuer(&self) -> u32 {
        self.authorities.x509().number
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }
}
