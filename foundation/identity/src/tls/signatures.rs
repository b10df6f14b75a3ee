//! The one place that says what a handshake may be signed with, for every verifier of this room.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::CertificateDer;

use super::provider;

/// Checks the signatures by which peers prove their keys.
#[derive(Debug)]
pub(super) struct Signatures {
    provider: Arc<CryptoProvider>,
    /// `None`: whatever the provider can check.
    schemes: Option<&'static [SignatureScheme]>,
}

impl Signatures {
    /// What our own certificates have: P-256.
    pub(super) fn own() -> Self {
        Self::of(Some(&[SignatureScheme::ECDSA_NISTP256_SHA256]))
    }

    /// What callers have: P-256, and P-384 where their vendor's own issuer certified them. Whether a key may be of that
    /// kind is the chain's question, not the signature's.
    pub(super) fn callers() -> Self {
        Self::of(Some(&[
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
        ]))
    }

    /// Whatever a service of a customer has.
    pub(super) fn any() -> Self {
        Self::of(None)
    }

    fn of(schemes: Option<&'static [SignatureScheme]>) -> Self {
        Self {
            provider: provider(),
            schemes,
        }
    }

    pub(super) fn schemes(&self) -> Vec<SignatureScheme> {
        let all = || self.provider.signature_verification_algorithms.supported_schemes();
        self.schemes.map_or_else(all, <[_]>::to_vec)
    }

    pub(super) fn tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.admit(signed)?;
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    pub(super) fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.admit(signed)?;
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn admit(&self, signed: &DigitallySignedStruct) -> Result<(), Error> {
        match self.schemes {
            Some(schemes) if !schemes.contains(&signed.scheme) => {
                Err(PeerIncompatible::NoSignatureSchemesInCommon.into())
            }
            _ => Ok(()),
        }
    }
}
