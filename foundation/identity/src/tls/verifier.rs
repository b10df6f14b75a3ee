//! The verifiers rustls calls, each a thin coat around [`authenticate`].

use std::{sync::Arc, time::SystemTime};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::CallerChains;
use super::refusal::{not_pinned, refused};
use super::signatures::Signatures;
use crate::certificate::Parsed;
use crate::verify::{Roots, Usage, authenticate, names_dns};

/// What a client trusts.
#[derive(Debug)]
pub(super) enum Trust {
    /// Roots known from an enrolment.
    Roots(Roots),
    /// The SHA-256 of a root certificate that must be in the presented chain.
    Fingerprint([u8; 32]),
}

/// Accepts gateways.
#[derive(Debug)]
pub(super) struct GatewayVerifier {
    trust: Trust,
    /// A moment that is known to have passed.
    floor: SystemTime,
    signatures: Signatures,
}

impl GatewayVerifier {
    pub(super) fn new(trust: Trust, floor: SystemTime) -> Self {
        Self {
            trust,
            floor,
            signatures: Signatures::own(),
        }
    }

    fn verify(&self, chain: &[CertificateDer<'_>], server: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
        let pinned;
        let roots = match &self.trust {
            Trust::Roots(roots) => roots,
            Trust::Fingerprint(sha256) => {
                pinned = Roots::pinned(chain, sha256).map_err(not_pinned)?;
                &pinned
            }
        };
        let at = self.moment(chain, system_time(now));
        authenticate(chain, roots, Usage::Server, roots.trust_domain(), at).map_err(refused)?;
        // An IP address proves nothing here: the domain is what joins the gateway's certificate
        // to the configuration, whatever address it was dialled at.
        match server {
            ServerName::DnsName(name) if names_dns(chain, name.as_ref()) => Ok(()),
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    /// The time to verify at. A clock before the floor is wrong and proves nothing; then the certificate's own beginning,
    /// which our authority signed, is the better witness. A clock that may be right is believed.
    fn moment(&self, chain: &[CertificateDer<'_>], clock: SystemTime) -> SystemTime {
        if clock >= self.floor {
            return clock;
        }
        let begins = chain.first().and_then(Parsed::new).map(|leaf| leaf.not_before());
        begins.unwrap_or(self.floor).max(self.floor)
    }
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(&whole(end_entity, intermediates), server_name, now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}

/// Accepts agents, users and workloads, and those without a certificate: whoever serves the connection demands it.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chains: Arc<dyn CallerChains>,
    signatures: Signatures,
}

impl ClientVerifier {
    pub(super) fn new(chains: Arc<dyn CallerChains>) -> Self {
        Self {
            chains,
            signatures: Signatures::callers(),
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: clients hold one identity, and strangers need not learn our names.
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
        self.signatures.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}

/// The chain as presented. Copies references, not certificates; the bound is checked on it first.
fn whole<'a>(end_entity: &'a CertificateDer<'_>, intermediates: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
    let all = std::iter::once(end_entity).chain(intermediates);
    all.map(|der| CertificateDer::from(der.as_ref())).collect()
}

fn system_time(now: UnixTime) -> SystemTime {
    let seconds = std::time::Duration::from_secs(now.as_secs());
    SystemTime::UNIX_EPOCH
        .checked_add(seconds)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
