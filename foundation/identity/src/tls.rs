//! The only place that builds rustls settings.
//!
//! Links speak TLS 1.3, callers TLS 1.2 and later, upstreams what they have; the provider is aws-lc-rs, named here and
//! never taken from the process.
//! There are no tickets, no session storage and no early data on either side: a resumed session
//! skips the client certificate, and a revoked device would keep coming back (CVE-2025-68121).
//! Both sides verify with [`crate::verify::authenticate`] and nothing else; the system's roots are not consulted.
//!
//! The one clock in this crate is rustls's own, read while a handshake runs.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    server::NoServerSessionStorage,
    time_provider::{DefaultTimeProvider, TimeProvider},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;

use crate::{
    certificate::Parsed,
    keys::PrivateKey,
    verify::{MAX_CHAIN_BYTES, MAX_CHAIN_CERTIFICATES, Roots},
};

mod alert;
mod binding;
mod callers;
mod leaves;
mod refusal;
mod signatures;
mod upstream;
mod verifier;

pub use refusal::handshake_refusal;
use verifier::{ClientVerifier, GatewayVerifier, Trust};

pub use alert::{Alert, last_alert};
pub use binding::server_end_point;
pub use callers::{CallerChains, callers};
pub use leaves::{FileCertificate, Leaves, Mint, Unnamed};
pub use upstream::{UpstreamTrust, upstream};

/// A moment that had passed when this was written, 1 November 2026, since 1970: no right clock shows an earlier one. A
/// constant of the source in place of the time of the build, so that two builds of one source are the same.
pub const KNOWN_PAST: Duration = Duration::from_secs(1_793_491_200);

/// Why TLS settings cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlsError {
    /// The chain is empty, too long, or cannot be read.
    #[error(
        "the certificate chain is empty, unreadable, or longer than {MAX_CHAIN_CERTIFICATES} \
         certificates and {MAX_CHAIN_BYTES} bytes"
    )]
    BadChain,
    /// The key is not the one in the certificate, or rustls will not take them.
    #[error("the certificate and the private key do not belong together: {0}")]
    KeyMismatch(String),
    /// The provider lacks TLS 1.3.
    #[error("the TLS library cannot speak TLS 1.3: {0}")]
    Unsupported(String),
    /// A certificate file of an operator or customer cannot be used.
    #[error("{0}")]
    BadFile(String),
}

/// Settings of a gateway for links and enrolment, over QUIC or over TCP.
///
/// A client certificate is asked for and may be withheld, because enrolment shares the port and
/// rustls cannot choose settings by ALPN; after the handshake the caller must demand a certificate
/// for every purpose but enrolment, and [`authenticate`] the presented chain for its identity.
/// A certificate that is presented and does not verify (expired ones included) ends the handshake, but for one that is
/// somebody else's ([`CallerChains::check`]).
///
/// `chain` is what [`Issued::chain_der`] gives, by [`crate::chain::from_ders`]: the root travels in it, for those who
/// pin it.
///
/// [`authenticate`]: crate::verify::authenticate
/// [`Issued::chain_der`]: crate::authority::Issued::chain_der
///
/// # Errors
/// When chain and key do not belong together or are out of bounds.
pub fn gateway_quic(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKey,
    roots: &Roots,
    alpns: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    gateway_quic_at(chain, key, roots, alpns, Arc::new(DefaultTimeProvider))
}

/// [`gateway_quic`] with a clock of the caller's.
///
/// # Errors
/// As [`gateway_quic`].
pub fn gateway_quic_at(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKey,
    roots: &Roots,
    alpns: &[&[u8]],
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    check_own_chain(&chain)?;
    let clients = ClientVerifier::new(Arc::new(roots.clone()));
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&TLS13])
        .map_err(unsupported)?
        .with_client_cert_verifier(Arc::new(clients))
        .with_single_cert(chain, key.rustls_der())
        .map_err(mismatch)?;
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    Ok(Arc::new(config))
}

/// Settings of an agent or a caller that dials a gateway, over QUIC or over TCP.
///
/// The gateway must present a chain to one of `roots` whose end-entity certificate names
/// `spiffe://<trust domain of the roots>/gateway/…` and, as a DNS name, exactly the server name
/// dialled. Devices may boot in 1970: a clock that shows a time before the beginning of the own certificate, or before
/// [`KNOWN_PAST`], is known to be wrong, and the gateway's certificate then counts as begun.
///
/// # Errors
/// When chain and key do not belong together or are out of bounds.
pub fn agent_quic(
    identity: Option<(Vec<CertificateDer<'static>>, &PrivateKey)>,
    roots: &Roots,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    agent_quic_at(identity, roots, alpn, Arc::new(DefaultTimeProvider))
}

/// [`agent_quic`] with a clock of the caller's.
///
/// # Errors
/// As [`agent_quic`].
pub fn agent_quic_at(
    identity: Option<(Vec<CertificateDer<'static>>, &PrivateKey)>,
    roots: &Roots,
    alpn: &[u8],
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    client(identity, Trust::Roots(roots.clone()), alpn, clock)
}

/// Settings for the first contact, when all that is known is the root's fingerprint.
///
/// The root certificate must travel in the presented chain; it alone is then trusted, and the
/// gateway's certificate is checked as [`agent_quic`] does, within the trust domain that root
/// names. Presents no certificate.
///
/// # Errors
/// When the provider lacks TLS 1.3.
pub fn enroll_quic(ca_sha256: [u8; 32], alpn: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
    enroll_quic_at(ca_sha256, alpn, Arc::new(DefaultTimeProvider))
}

/// [`enroll_quic`] with a clock of the caller's.
///
/// # Errors
/// As [`enroll_quic`].
pub fn enroll_quic_at(
    ca_sha256: [u8; 32],
    alpn: &[u8],
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    client(None, Trust::Fingerprint(ca_sha256), alpn, clock)
}

/// The same settings for a connection over TCP, where another ALPN tells links from callers.
pub fn over_tcp(settings: &ClientConfig, alpn: &[u8]) -> Arc<ClientConfig> {
    let mut settings = settings.clone();
    settings.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(settings)
}

fn client(
    identity: Option<(Vec<CertificateDer<'static>>, &PrivateKey)>,
    trust: Trust,
    alpn: &[u8],
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let own = identity.as_ref().and_then(|(chain, _)| chain.first());
    let begins = own.and_then(Parsed::new).map(|leaf| leaf.not_before());
    let known = SystemTime::UNIX_EPOCH + KNOWN_PAST;
    let gateways = GatewayVerifier::new(trust, begins.map_or(known, |begins| begins.max(known)));
    let builder = ClientConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&TLS13])
        .map_err(unsupported)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(gateways));
    let mut config = match identity {
        Some((chain, key)) => {
            check_own_chain(&chain)?;
            builder
                .with_client_auth_cert(chain, key.rustls_der())
                .map_err(mismatch)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Our own chain must pass the bounds our peers apply.
fn check_own_chain(chain: &[CertificateDer<'_>]) -> Result<(), TlsError> {
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    let in_bounds = chain.len() <= MAX_CHAIN_CERTIFICATES && bytes <= MAX_CHAIN_BYTES;
    match chain.first().and_then(Parsed::new) {
        Some(_) if in_bounds => Ok(()),
        _ => Err(TlsError::BadChain),
    }
}

fn mismatch(error: rustls::Error) -> TlsError {
    TlsError::KeyMismatch(error.to_string())
}

fn unsupported(error: rustls::Error) -> TlsError {
    TlsError::Unsupported(error.to_string())
}

/// The clock of the `_at` settings out of whatever tells the caller the time.
pub fn clock(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Arc<dyn TimeProvider> {
    Arc::new(Told(now))
}

struct Told<F>(F);

impl<F> std::fmt::Debug for Told<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

impl<F: Fn() -> SystemTime + Send + Sync> TimeProvider for Told<F> {
    fn current_time(&self) -> Option<UnixTime> {
        let since_epoch = (self.0)().duration_since(SystemTime::UNIX_EPOCH);
        Some(UnixTime::since_unix_epoch(since_epoch.unwrap_or(Duration::ZERO)))
    }
}

#[cfg(test)]
mod tests;
