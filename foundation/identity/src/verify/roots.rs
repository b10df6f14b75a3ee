//! The pinned roots of one trust domain.

use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, TrustAnchor, pem::PemObject};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{MAX_CHAIN_BYTES, MAX_CHAIN_CERTIFICATES, VerifyError};
use crate::{certificate::Parsed, principal::check_trust_domain};

/// Most roots trusted at once; two overlap while one replaces the other.
pub const MAX_ROOTS: usize = 8;

/// Why certificates cannot be trusted as roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RootsError {
    /// There is no certificate, or there are too many.
    #[error("expected 1 to {MAX_ROOTS} root certificates in PEM, found {0}")]
    Count(usize),
    /// The text is not PEM.
    #[error("the root certificates are not PEM (-----BEGIN CERTIFICATE-----)")]
    NotPem,
    /// A certificate cannot be read or is no authority's.
    #[error("root certificate {0} is not the certificate of a P-256 certificate authority")]
    NotAnAuthority(usize),
    /// A certificate does not say which trust domain it is for.
    #[error(
        "root certificate {0} names no trust domain (one URI, spiffe://TRUST-DOMAIN); was it made \
         by `fairlead-gateway init`?"
    )]
    NoTrustDomain(usize),
    /// The certificates are of different trust domains.
    #[error("root certificate {0} is of another trust domain than the first")]
    MixedTrustDomains(usize),
    /// No presented certificate has the pinned fingerprint.
    #[error("the gateway did not present the root certificate that the join string pins")]
    NotPresented,
    /// Announced roots have nothing in common with those that are trusted.
    #[error("the announced root certificates have none in common with those that are trusted here")]
    Unrelated,
    /// The presented chain is beyond the bounds of a chain.
    #[error("the presented certificate chain is too long")]
    ChainTooLong,
}

/// One or more root certificates of one trust domain; the only ones consulted.
#[derive(Clone, Debug)]
pub struct Roots {
    trust_domain: String,
    anchors: Vec<TrustAnchor<'static>>,
    /// As long as `anchors`, in the same order.
    details: Vec<Detail>,
}

#[derive(Clone, Debug)]
struct Detail {
    der: CertificateDer<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Roots {
    /// Trusts exactly these certificates, 1 to [`MAX_ROOTS`].
    ///
    /// # Errors
    /// When one is not the certificate of a P-256 authority, or they do not all name the same
    /// trust domain. Their age is checked when they are used.
    pub fn from_der(certificates: &[CertificateDer<'_>]) -> Result<Self, RootsError> {
        if certificates.is_empty() || certificates.len() > MAX_ROOTS {
            return Err(RootsError::Count(certificates.len()));
        }
        let mut roots = Self {
            trust_domain: String::new(),
            anchors: Vec::new(),
            details: Vec::new(),
        };
        for (der, number) in certificates.iter().zip(1..) {
            roots.push(der, number)?;
        }
        Ok(roots)
    }

    /// Trusts exactly the certificates of a PEM text.
    ///
    /// # Errors
    /// As [`Roots::from_der`], and when the text is not PEM.
    pub fn from_pem(pem: &str) -> Result<Self, RootsError> {
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
            .take(MAX_ROOTS.saturating_add(1))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| RootsError::NotPem)?;
        Self::from_der(&certificates)
    }

    /// Trusts the one certificate of a presented chain whose DER has this SHA-256.
    ///
    /// # Errors
    /// When no certificate has it, or the one that has it is no root of ours.
    pub fn pinned(chain: &[CertificateDer<'_>], sha256: &[u8; 32]) -> Result<Self, RootsError> {
        let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
        if chain.len() > MAX_CHAIN_CERTIFICATES || bytes > MAX_CHAIN_BYTES {
            return Err(RootsError::ChainTooLong);
        }
        let pinned = chain
            .iter()
            .find(|der| Sha256::digest(der.as_ref()).as_slice() == sha256)
            .ok_or(RootsError::NotPresented)?;
        Self::from_der(std::slice::from_ref(pinned))
    }

    /// The trust domain all roots name.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The root certificates in DER, in the order given.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.details.iter().map(|detail| &detail.der)
    }

    /// SHA-256 of each root certificate's DER, in the order given.
    #[must_use]
    pub fn sha256s(&self) -> Vec<[u8; 32]> {
        self.certificates()
            .map(|der| Sha256::digest(der.as_ref()).into())
            .collect()
    }

    /// The roots that a gateway announces which was verified by these; they take the place of these.
    ///
    /// # Errors
    /// As [`Roots::from_der`]; and when none of them is trusted already, or they are of another trust domain: no gateway
    /// of ours says that.
    pub fn succeeded_by(&self, announced: &[CertificateDer<'_>]) -> Result<Self, RootsError> {
        let next = Self::from_der(announced)?;
        let present = self.sha256s();
        let shared = next.sha256s().iter().any(|root| present.contains(root));
        if shared && next.trust_domain == self.trust_domain {
            Ok(next)
        } else {
            Err(RootsError::Unrelated)
        }
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Path building takes a root as ageless, so its validity is checked here.
    pub(super) fn check_time(&self, anchor: &TrustAnchor<'_>, at: SystemTime) -> Result<(), VerifyError> {
        let same = self.anchors.iter().zip(&self.details).find(|(a, _)| *a == anchor);
        let (_, detail) = same.ok_or(VerifyError::WrongCa)?;
        if at > detail.not_after {
            let not_after = detail.not_after;
            Err(VerifyError::Expired { not_after })
        } else if at < detail.not_before {
            let not_before = detail.not_before;
            Err(VerifyError::NotYetValid { not_before })
        } else {
            Ok(())
        }
    }

    fn push(&mut self, der: &CertificateDer<'_>, number: usize) -> Result<(), RootsError> {
        let parsed = Parsed::new(der).filter(|p| p.is_ca() && p.is_p256());
        let parsed = parsed.ok_or(RootsError::NotAnAuthority(number))?;
        let domain = trust_domain_of(&parsed).ok_or(RootsError::NoTrustDomain(number))?;
        if self.trust_domain.is_empty() {
            self.trust_domain = domain;
        } else if self.trust_domain != domain {
            return Err(RootsError::MixedTrustDomains(number));
        }
        let anchor = webpki::anchor_from_trusted_cert(der);
        let anchor = anchor.map_err(|_| RootsError::NotAnAuthority(number))?;
        self.anchors.push(anchor.to_owned());
        self.details.push(Detail {
            der: der.clone().into_owned(),
            not_before: parsed.not_before(),
            not_after: parsed.not_after(),
        });
        Ok(())
    }
}

/// The trust domain an authority's certificate names: one URI without a path, as SPIFFE's
/// X509-SVID (section 3.2) has it for signing certificates.
pub(crate) fn trust_domain_of(authority: &Parsed<'_>) -> Option<String> {
    let names = authority.names()?;
    match names.uris.as_slice() {
        [uri] => {
            let domain = uri.strip_prefix("spiffe://")?;
            check_trust_domain(domain).ok()?;
            Some(domain.to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
