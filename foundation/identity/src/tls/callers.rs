//! TLS of the one port for callers with programs as they are: libpq, OpenSSL, Java, browsers.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature},
    server::{
        NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    time_provider::TimeProvider,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::refusal::refused;
use super::verifier::{system_time, verify_signature, whole};
use super::{TlsError, provider, unsupported};
use crate::verify::{Authenticated, Roots, Usage, VerifyError, authenticate};

/// Whose chains callers may present.
pub trait CallerChains: fmt::Debug + Send + Sync {
    /// Whom a chain names that our own authority issued. The chain is as presented, end-entity certificate first; it must
    /// be bounded before anything is parsed.
    ///
    /// # Errors
    /// Why it names nobody of ours.
    fn who(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Authenticated, VerifyError>;

    /// Whether the handshake goes on; a refusal becomes the alert that TLS has for it. A yes lets nobody in: who it is, and
    /// whether they are still welcome, is looked up afterwards.
    ///
    /// # Errors
    /// Why it is not accepted.
    fn check(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), VerifyError> {
        self.who(chain, now).map(drop)
    }
}

impl CallerChains for Roots {
    fn who(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Authenticated, VerifyError> {
        authenticate(chain, self, Usage::Client, self.trust_domain(), now)
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
    let clients = CallerVerifier {
        chains,
        provider: provider(),
    };
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

#[derive(Debug)]
struct CallerVerifier {
    chains: Arc<dyn CallerChains>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for CallerVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: strangers need not learn our names.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.chains
            .check(&whole(end_entity, intermediates), system_time(now))
            .map(|()| ClientCertVerified::assertion())
            .map_err(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if dss.scheme != SignatureScheme::ECDSA_NISTP256_SHA256 {
            return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
        }
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.provider, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
