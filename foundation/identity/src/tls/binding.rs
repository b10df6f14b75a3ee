//! What ties a login to the TLS connection it is made in.

use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Signature algorithms by the hash that RFC 5929 takes for them: SHA-256 also in place of MD5 and SHA-1.
const SHA256: &[&str] = &[
    "1.2.840.113549.1.1.4",
    "1.2.840.113549.1.1.5",
    "1.2.840.113549.1.1.11",
    "1.2.840.10045.4.1",
    "1.2.840.10045.4.3.2",
];
const SHA384: &[&str] = &["1.2.840.113549.1.1.12", "1.2.840.10045.4.3.3"];
const SHA512: &[&str] = &["1.2.840.113549.1.1.13", "1.2.840.10045.4.3.4"];

/// The channel binding `tls-server-end-point` (RFC 5929, section 4) of a server's own certificate. `None` where its signature
/// names no single hash (RSA-PSS, Ed25519) or it cannot be read: such a connection has no binding.
#[must_use]
pub fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = read.signature_algorithm.algorithm.to_id_string();
    let is = |list: &[&str]| list.contains(&algorithm.as_str());
    if is(SHA256) {
        Some(Sha256::digest(certificate).to_vec())
    } else if is(SHA384) {
        Some(Sha384::digest(certificate).to_vec())
    } else if is(SHA512) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}
