//! What this crate reads out of an X.509 certificate, in one place and strictly.
//!
//! Parsing proves nothing: callers verify signatures before they believe a value from here.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384},
    prelude::FromDer,
    time::ASN1Time,
    x509::SubjectPublicKeyInfo,
};

/// The only signatures accepted anywhere on a link: ECDSA on P-256 with SHA-256.
pub(crate) static ECDSA_P256: &dyn SignatureVerificationAlgorithm = webpki::aws_lc_rs::ECDSA_P256_SHA256;

/// Extended key usages a certificate names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usages {
    pub(crate) client: bool,
    pub(crate) server: bool,
    pub(crate) anything_else: bool,
}

/// One parsed certificate.
pub(crate) struct Parsed<'a> {
    inner: X509Certificate<'a>,
}

impl<'a> Parsed<'a> {
    /// Parses one whole certificate; `None` for anything else, trailing bytes included.
    pub(crate) fn new(der: &'a CertificateDer<'_>) -> Option<Self> {
        match X509Certificate::from_der(der.as_ref()) {
            Ok(([], inner)) => Some(Self { inner }),
            _ => None,
        }
    }

    pub(crate) fn not_before(&self) -> SystemTime {
        system_time(self.inner.validity().not_before)
    }

    pub(crate) fn not_after(&self) -> SystemTime {
        system_time(self.inner.validity().not_after)
    }

    pub(crate) fn spki_der(&self) -> &'a [u8] {
        self.inner.tbs_certificate.subject_pki.raw
    }

    pub(crate) fn spki_sha256(&self) -> [u8; 32] {
        Sha256::digest(self.spki_der()).into()
    }

    /// The key as OpenSSH names it; `None` for a key that is no point on P-256.
    pub(crate) fn ssh_fingerprint(&self) -> Option<String> {
        let point = &self.inner.tbs_certificate.subject_pki.subject_public_key.data;
        let key = ssh_key::public::EcdsaPublicKey::from_sec1_bytes(point).ok()?;
        Some(crate::ssh::fingerprint(&ssh_key::PublicKey::new(key.into(), "")))
    }

    pub(crate) fn is_p256(&self) -> bool {
        is_p256(&self.inner.tbs_certificate.subject_pki)
    }

    /// True for an uncompressed P-384 public key.
    pub(crate) fn is_p384(&self) -> bool {
        let key = &self.inner.tbs_certificate.subject_pki;
        let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
            && curve.is_some_and(|curve| curve == OID_NIST_EC_P384)
            && key.subject_public_key.data.len() == 97
    }

    pub(crate) fn is_ca(&self) -> bool {
        self.inner.is_ca()
    }

    /// The subject as a DER `Name`.
    pub(crate) fn subject_der(&self) -> &'a [u8] {
        self.inner.tbs_certificate.subject.as_raw()
    }

    /// Lower-case hex of the serial without leading zeros.
    pub(crate) fn serial_hex(&self) -> String {
        let bytes = self.inner.raw_serial();
        let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
        hex(bytes.get(start..).unwrap_or_default())
    }

    /// True when `issuer`'s P-256 key signed this certificate and the names agree.
    pub(crate) fn is_signed_by(&self, issuer: &Parsed<'_>) -> bool {
        let tbs = &self.inner.tbs_certificate;
        let key = &issuer.inner.tbs_certificate.subject_pki.subject_public_key;
        issuer.is_p256()
            && tbs.issuer.as_raw() == issuer.subject_der()
            && ECDSA_P256
                .verify_signature(&key.data, tbs.as_ref(), &self.inner.signature_value.data)
                .is_ok()
    }

    /// The extended key usages; `None` when the extension is absent or given twice.
    pub(crate) fn usages(&self) -> Option<Usages> {
        let usage = self.inner.extended_key_usage().ok().flatten()?.value;
        let anything_else = usage.any
            || usage.code_signing
            || usage.email_protection
            || usage.time_stamping
            || usage.ocsp_signing
            || !usage.other.is_empty();
        Some(Usages {
            client: usage.client_auth,
            server: usage.server_auth,
            anything_else,
        })
    }

    /// True when the key may sign handshakes; false too when the extension is given twice.
    pub(crate) fn may_sign(&self) -> bool {
        match self.inner.key_usage() {
            Ok(Some(usage)) => usage.value.digital_signature(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// The subject alternative names; `None` when the extension is given twice.
    pub(crate) fn names(&self) -> Option<Names<'_>> {
        let mut names = Names::default();
        let Some(extension) = self.inner.subject_alternative_name().ok()? else {
            return Some(names);
        };
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uris.push(uri),
                GeneralName::DNSName(dns) => names.dns.push(dns),
                GeneralName::Invalid(..) => names.unreadable = true,
                _ => {}
            }
        }
        Some(names)
    }
}

/// Subject alternative names, by type.
#[derive(Debug, Default)]
pub(crate) struct Names<'a> {
    pub(crate) uris: Vec<&'a str>,
    pub(crate) dns: Vec<&'a str>,
    /// A name was there that is no text.
    pub(crate) unreadable: bool,
}

/// True for an uncompressed P-256 public key.
pub(crate) fn is_p256(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve == OID_EC_P256)
        && key.subject_public_key.data.len() == 65
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Times before 1970 read as 1970: nothing we issue or accept is that old.
fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
