//! TLS of the one port for callers with programs as they are: libpq, OpenSSL, Java, browsers.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, ResolvesServerCert},
    time_provider::TimeProvider,
    version::{TLS12, TLS13},
};
use rustls_pki_types::CertificateDer;

use super::verifier::ClientVerifier;
use super::{TlsError, provider, unsupported};
use crate::vendor;
use crate::verify::{Authenticated, Roots, Usage, VerifyError, authenticate};

/// Whose chains callers may present.
pub trait CallerChains: fmt::Debug + Send + Sync {
    /// Whom a chain names that our own authority issued. The chain is as presented, end-entity certificate first; it must
    /// be bounded before anything is parsed.
    ///
    /// # Errors
    /// Why it names nobody of ours.
    fn who(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Authenticated, VerifyError>;

    /// The trust domain in which our own authority gives names.
    fn own_trust_domain(&self) -> String;

    /// Whether the handshake goes on; a refusal becomes the alert that TLS has for it. A yes lets nobody in: who it is, and
    /// whether they are still welcome, is looked up afterwards.
    ///
    /// A chain whose end-entity certificate bears a name of somebody else goes on with its key proven and nothing believed:
    /// it may be a workload's of its vendor's own issuer, and which of these are trusted, and for what, is in the store.
    ///
    /// # Errors
    /// Why it is not accepted.
    fn check(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), VerifyError> {
        match self.who(chain, now) {
            Err(_) if vendor::is_named_elsewhere(chain, &self.own_trust_domain()) => Ok(()),
            who => who.map(drop),
        }
    }
}

impl CallerChains for Roots {
    fn who(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Authenticated, VerifyError> {
        authenticate(chain, self, Usage::Client, self.trust_domain(), now)
    }

    fn own_trust_domain(&self) -> String {
        self.trust_domain().to_owned()
    }
}

/// Settings of a gateway for callers over TCP: TLS 1.2 and 1.3.
///
/// A client certificate is asked for and may be withheld, so that the refusal can be said in the protocol that follows;
/// whoever serves the connection must demand it. There are no tickets, no session storage and no early data: every
/// connection proves itself anew. `certificates` are what the gateway presents; where it has none for a name, the
/// handshake ends with the alert `access_denied`. With `alpns` empty no protocol is negotiated.
///
/// # Errors
/// When the provider lacks a version.
pub fn callers(
    chains: Arc<dyn CallerChains>,
    certificates: Arc<dyn ResolvesServerCert>,
    alpns: &[&[u8]],
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let clients = ClientVerifier::new(chains);
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unsupported)?
        .with_client_cert_verifier(Arc::new(clients))
        .with_cert_resolver(certificates);
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    // For the last alert only, see `last_alert`.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}
