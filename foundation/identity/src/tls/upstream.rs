//! TLS from an agent to a service of the customer's network, trusted by the customer's own files.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    time_provider::DefaultTimeProvider,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};

use super::signatures::Signatures;
use super::{TlsError, provider, unsupported};

/// Most certificates of one CA file.
const MAX_CAS: usize = 256;

/// How much an upstream must prove, in libpq's words. The system's roots are not consulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamTrust<'a> {
    /// A chain to one of these certificates (PEM) and the name that is dialled: `verify-full`.
    Full(&'a str),
    /// A chain to one of these certificates (PEM), whatever its name: `verify-ca`.
    Authority(&'a str),
    /// Nothing: encrypted, and open to whoever stands in between: `require`.
    Nothing,
}

/// Settings for dialling an upstream: TLS 1.2 and 1.3, no client certificate, no resumption.
///
/// # Errors
/// [`TlsError::BadFile`] when the CA text holds no certificate that can be trusted.
pub fn upstream(trust: UpstreamTrust<'_>, alpns: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        UpstreamTrust::Full(pem) => chains_to(pem)?,
        UpstreamTrust::Authority(pem) => Arc::new(AnyName(chains_to(pem)?)),
        UpstreamTrust::Nothing => Arc::new(Anybody(Signatures::any())),
    };
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(DefaultTimeProvider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unsupported)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

fn chains_to(pem: &str) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let bad = |text: &str| TlsError::BadFile(text.to_owned());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| bad("the CA file is not PEM"))?;
        let added = roots.add(certificate);
        added.map_err(|_| bad("a certificate of the CA file cannot be read"))?;
        if roots.len() > MAX_CAS {
            return Err(bad("the CA file holds more than 256 certificates"));
        }
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|_| bad("the CA file holds no certificate"))
}

/// Leaves the name out, once everything else was in order.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        match self
            .0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            // The name is looked at last, when the chain has been verified.
            Err(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Takes any certificate whose key the upstream holds.
#[derive(Debug)]
struct Anybody(Signatures);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}
