//! The two certificates above whatever an authority issues, as they are read from their files.

use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};

use super::AuthorityError;
use crate::{certificate::Parsed, verify::trust_domain_of};

/// An issuing certificate with the root that issued it. Holds no key: enough to list authorities, not to issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Above {
    issuing_der: CertificateDer<'static>,
    root_der: CertificateDer<'static>,
    trust_domain: String,
    spki_sha256: [u8; 32],
    not_before: SystemTime,
    not_after: SystemTime,
    root_not_after: SystemTime,
}

impl Above {
    /// Reads both certificates and checks that they belong together.
    ///
    /// # Errors
    /// When one is no authority's, the root did not issue the other, or their trust domains differ. Ages are not checked.
    pub fn read(issuing_pem: &str, root_pem: &str) -> Result<Self, AuthorityError> {
        let issuing_der = der_from_pem(issuing_pem, "issuing")?;
        let root_der = der_from_pem(root_pem, "root")?;
        let issuing = parse_authority(&issuing_der, "issuing")?;
        let root = parse_authority(&root_der, "root")?;
        if !issuing.is_signed_by(&root) || !root.is_signed_by(&root) {
            return Err(AuthorityError::NotFromRoot);
        }
        let trust_domain = match (trust_domain_of(&root), trust_domain_of(&issuing)) {
            (Some(root), Some(issuing)) if root == issuing => root,
            _ => return Err(AuthorityError::TrustDomainMismatch),
        };
        let (spki_sha256, not_before) = (issuing.spki_sha256(), issuing.not_before());
        let root_not_after = root.not_after();
        let not_after = issuing.not_after().min(root_not_after);
        Ok(Self {
            issuing_der,
            root_der,
            trust_domain,
            spki_sha256,
            not_before,
            not_after,
            root_not_after,
        })
    }

    /// The issuing certificate.
    #[must_use]
    pub fn issuing_der(&self) -> &CertificateDer<'static> {
        &self.issuing_der
    }

    /// The root certificate.
    #[must_use]
    pub fn root_der(&self) -> &CertificateDer<'static> {
        &self.root_der
    }

    /// SHA-256 of the issuing certificate's DER, by which a holder knows what its own chain came from.
    #[must_use]
    pub fn issuing_sha256(&self) -> [u8; 32] {
        Sha256::digest(self.issuing_der.as_ref()).into()
    }

    /// SHA-256 of the root certificate's DER, which join strings pin.
    #[must_use]
    pub fn root_sha256(&self) -> [u8; 32] {
        Sha256::digest(self.root_der.as_ref()).into()
    }

    /// The trust domain issued for.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The first moment at which the issuing certificate is valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// The last moment at which both certificates are valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The last moment at which the root is valid.
    #[must_use]
    pub fn root_not_after(&self) -> SystemTime {
        self.root_not_after
    }

    /// SHA-256 of the issuing public key.
    pub(super) fn spki_sha256(&self) -> [u8; 32] {
        self.spki_sha256
    }
}

pub(super) fn der_from_pem(pem: &str, which: &'static str) -> Result<CertificateDer<'static>, AuthorityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| AuthorityError::NotAnAuthority(which))
}

pub(super) fn parse_authority<'a>(
    der: &'a CertificateDer<'_>,
    which: &'static str,
) -> Result<Parsed<'a>, AuthorityError> {
    Parsed::new(der)
        .filter(|parsed| parsed.is_ca() && parsed.is_p256())
        .ok_or(AuthorityError::NotAnAuthority(which))
}
