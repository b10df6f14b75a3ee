//! Workloads with certificates of their vendor's own issuer (SPIRE, cert-manager): one authority is trusted for exactly
//! one URI.
//!
//! The same rules as for our own certificates ([`crate::verify`]): the chain is bounded before it is parsed, the identity
//! is read from the end-entity certificate alone, revocation is the caller's next step. What differs is what other
//! people's authorities use: signatures on the path may be ECDSA (P-256, P-384) or RSA of 2048 to 8192 bits with SHA-256
//! or better, the end entity's key is P-256 or P-384, and its certificate may serve as a server's too, as SPIRE's do.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs as algorithms};

use crate::{
    certificate::Parsed,
    name::printable,
    principal::check_trust_domain,
    verify::{MAX_CHAIN_BYTES, MAX_CHAIN_CERTIFICATES, VerifyError, refusal},
};

/// Most certificates of one vendor's authority; two overlap while one replaces the other.
pub const MAX_AUTHORITIES: usize = 4;
/// Longest PEM text of a vendor's authority, in bytes.
pub const MAX_CA_BYTES: usize = 32 * 1024;
/// Longest URI, in bytes.
pub const MAX_URI_BYTES: usize = 256;

static SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
];

/// Why an authority cannot be trusted for a workload.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VendorError {
    /// The text is not PEM, or too long.
    #[error("the issuer's certificates are not PEM (-----BEGIN CERTIFICATE-----) of at most {MAX_CA_BYTES} bytes")]
    NotPem,
    /// There is no certificate, or there are too many.
    #[error("expected 1 to {MAX_AUTHORITIES} certificates of the issuer, found {0}")]
    Count(usize),
    /// A certificate cannot be read or is no authority's.
    #[error("certificate {0} of the issuer is not an authority's (CA:TRUE)")]
    NotAnAuthority(usize),
    /// The URI is not one.
    #[error("`{0}` is not a URI that a certificate can name a workload by, such as spiffe://vendor.example/etl")]
    BadUri(String),
    /// The URI belongs to the gateway's own authority.
    #[error("names in {0} are the gateway's own to give; the vendor's issuer has another trust domain")]
    OwnTrustDomain(String),
}

/// A vendor's authority, trusted for one URI.
#[derive(Clone, Debug)]
pub struct VendorIssuer {
    san_uri: String,
    anchors: Vec<(TrustAnchor<'static>, SystemTime, SystemTime)>,
    digest: [u8; 32],
}

/// A workload whose vendor's certificate was verified. Only [`VendorIssuer::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VendorCertified {
    /// SHA-256 of the public key (SubjectPublicKeyInfo in DER).
    pub spki_sha256: [u8; 32],
    /// The certificate's serial in lower-case hex without leading zeros.
    pub serial_hex: String,
    /// The last moment of the certificate's validity.
    pub not_after: SystemTime,
}

impl VendorIssuer {
    /// Trusts the certificates of a PEM text for `san_uri`, at a gateway whose own names are `trust_domain`'s.
    ///
    /// # Errors
    /// One variant per cause. The ages of the certificates are checked when they are used.
    pub fn new(ca_pem: &str, san_uri: &str, trust_domain: &str) -> Result<Self, VendorError> {
        check_uri(san_uri, trust_domain)?;
        if ca_pem.len() > MAX_CA_BYTES {
            return Err(VendorError::NotPem);
        }
        let certificates = CertificateDer::pem_slice_iter(ca_pem.as_bytes())
            .take(MAX_AUTHORITIES.saturating_add(1))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| VendorError::NotPem)?;
        if certificates.is_empty() || certificates.len() > MAX_AUTHORITIES {
            return Err(VendorError::Count(certificates.len()));
        }
        let mut digest = Sha256::new_with_prefix(san_uri.as_bytes());
        let mut anchors = Vec::new();
        for (der, number) in certificates.iter().zip(1..) {
            digest.update(Sha256::digest(der.as_ref()));
            let parsed = Parsed::new(der).filter(Parsed::is_ca);
            let parsed = parsed.ok_or(VendorError::NotAnAuthority(number))?;
            let anchor = webpki::anchor_from_trusted_cert(der).map_err(|_| VendorError::NotAnAuthority(number))?;
            anchors.push((anchor.to_owned(), parsed.not_before(), parsed.not_after()));
        }
        Ok(Self {
            san_uri: san_uri.to_owned(),
            anchors,
            digest: digest.finalize().into(),
        })
    }

    /// Tells this authority for this URI from every other: a SHA-256 over the URI and the certificates.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Verifies a chain as a peer presented it, end-entity certificate first.
    ///
    /// Pure: same arguments, same answer. Whether the peer holds the key is proven elsewhere, by the TLS handshake.
    ///
    /// # Errors
    /// One variant per cause; time errors only for chains that would otherwise be accepted.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<VendorCertified, VerifyError> {
        check_bounds(chain)?;
        let attempt = |at| {
            self.verify_path(chain, at)?;
            self.read_leaf(chain)
        };
        match attempt(now) {
            Err(refused @ (VerifyError::Expired { not_after: at } | VerifyError::NotYetValid { not_before: at })) => {
                // At the named moment nothing but time may stand against it.
                match attempt(at) {
                    Err(worse) if !matches!(worse, VerifyError::Expired { .. } | VerifyError::NotYetValid { .. }) => {
                        Err(worse)
                    }
                    _ => Err(refused),
                }
            }
            other => other,
        }
    }

    fn verify_path(&self, chain: &[CertificateDer<'_>], at: SystemTime) -> Result<(), VerifyError> {
        let (leaf, rest) = chain.split_first().ok_or(VerifyError::Malformed)?;
        let end_entity = EndEntityCert::try_from(leaf).map_err(|error| refusal(&error))?;
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let anchors: Vec<_> = self.anchors.iter().map(|(anchor, _, _)| anchor.clone()).collect();
        let path = end_entity
            .verify_for_usage(
                SIGNATURES,
                &anchors,
                rest,
                UnixTime::since_unix_epoch(since_epoch),
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(|error| refusal(&error))?;
        // Path building takes an anchor as ageless.
        let anchor = self.anchors.iter().find(|(anchor, _, _)| anchor == path.anchor());
        let (_, not_before, not_after) = *anchor.ok_or(VerifyError::WrongCa)?;
        if at > not_after {
            return Err(VerifyError::Expired { not_after });
        }
        if at < not_before {
            return Err(VerifyError::NotYetValid { not_before });
        }
        Ok(())
    }

    /// Reads the end-entity certificate, which the path check has accepted.
    fn read_leaf(&self, chain: &[CertificateDer<'_>]) -> Result<VendorCertified, VerifyError> {
        let leaf = chain.first().and_then(Parsed::new).ok_or(VerifyError::Malformed)?;
        if !leaf.is_p256() && !leaf.is_p384() {
            return Err(VerifyError::WeakKey);
        }
        if leaf.is_ca() {
            return Err(VerifyError::CaAsLeaf);
        }
        let names = leaf.names().ok_or(VerifyError::Malformed)?;
        match names.uris.as_slice() {
            _ if names.unreadable => return Err(VerifyError::BadName("it is not text".to_owned())),
            [] => return Err(VerifyError::NoName),
            [uri] if *uri == self.san_uri => {}
            [uri] => return Err(VerifyError::BadName(printable(uri))),
            _ => return Err(VerifyError::ManyNames),
        }
        let usages = leaf.usages().ok_or(VerifyError::WrongUsage)?;
        if !usages.client || usages.anything_else || !leaf.may_sign() {
            return Err(VerifyError::WrongUsage);
        }
        Ok(VendorCertified {
            spki_sha256: leaf.spki_sha256(),
            serial_hex: leaf.serial_hex(),
            not_after: leaf.not_after(),
        })
    }
}

/// The one URI that the end-entity certificate of a chain claims, to look up who that might be. Proves nothing.
#[must_use]
pub fn claimed_uri(chain: &[CertificateDer<'_>]) -> Option<String> {
    check_bounds(chain).ok()?;
    let leaf = chain.first().and_then(Parsed::new)?;
    let names = leaf.names()?;
    match names.uris.as_slice() {
        [uri] if uri.len() <= MAX_URI_BYTES => Some((*uri).to_owned()),
        _ => None,
    }
}

/// Whether the end-entity certificate of a chain bears exactly one URI, and one that an authority of `own_trust_domain`
/// never gives. Proves nothing.
#[must_use]
pub fn is_named_elsewhere(chain: &[CertificateDer<'_>], own_trust_domain: &str) -> bool {
    claimed_uri(chain).is_some_and(|uri| check_uri(&uri, own_trust_domain).is_ok())
}

fn check_bounds(chain: &[CertificateDer<'_>]) -> Result<(), VerifyError> {
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if chain.len() > MAX_CHAIN_CERTIFICATES || bytes > MAX_CHAIN_BYTES {
        return Err(VerifyError::ChainTooLong);
    }
    Ok(())
}

/// A scheme, `://`, an authority, a path; compared byte by byte, so written exactly as the certificate has it.
fn check_uri(uri: &str, trust_domain: &str) -> Result<(), VendorError> {
    let bad = || VendorError::BadUri(printable(uri));
    let (scheme, rest) = uri.split_once("://").ok_or_else(bad)?;
    let fits = uri.len() <= MAX_URI_BYTES && uri.bytes().all(|b| b.is_ascii_graphic());
    let authority = rest.split('/').next().unwrap_or_default();
    if !fits || scheme.is_empty() || authority.is_empty() {
        return Err(bad());
    }
    if scheme.eq_ignore_ascii_case("spiffe") {
        check_trust_domain(authority).map_err(|_| bad())?;
        if authority == trust_domain {
            return Err(VendorError::OwnTrustDomain(trust_domain.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
