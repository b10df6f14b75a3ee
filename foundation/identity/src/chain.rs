//! Certificate chains as they are kept and sent: PEM in files, DER in messages.
//!
//! Reading bounds a chain as [`crate::verify`] does and proves nothing about it.

use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::certificate::Parsed;
use crate::verify::{MAX_CHAIN_BYTES, MAX_CHAIN_CERTIFICATES};

/// Why a text or a list of bytes is not a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChainError {
    /// The text is not PEM certificates.
    #[error("this is not a certificate file: expected PEM that begins -----BEGIN CERTIFICATE-----")]
    NotPem,
    /// No certificate is there, or the chain is too long.
    #[error(
        "a certificate chain has 1 to {MAX_CHAIN_CERTIFICATES} certificates and at most \
         {MAX_CHAIN_BYTES} bytes"
    )]
    OutOfBounds,
}

/// Takes over a chain in DER, the holder's own certificate first.
///
/// # Errors
/// When it is empty or beyond the bounds.
pub fn from_ders(ders: Vec<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, ChainError> {
    bounded(ders.into_iter().map(CertificateDer::from).collect())
}

/// Reads a chain from PEM, the holder's own certificate first.
///
/// # Errors
/// When the text is not PEM certificates, or they are beyond the bounds.
pub fn from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, ChainError> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MAX_CHAIN_CERTIFICATES.saturating_add(1))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| ChainError::NotPem)?;
    bounded(chain)
}

/// Writes certificates in DER as PEM (RFC 7468), in the order given.
#[must_use]
pub fn to_pem<D: AsRef<[u8]>>(ders: &[D]) -> String {
    let mut text = String::new();
    for der in ders {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for (count, letter) in STANDARD.encode(der.as_ref()).chars().enumerate() {
            if count > 0 && count.is_multiple_of(64) {
                text.push('\n');
            }
            text.push(letter);
        }
        text.push_str("\n-----END CERTIFICATE-----\n");
    }
    text
}

/// The first and the last moment of validity that the holder's own certificate claims; proves nothing, for schedules.
#[must_use]
pub fn validity(chain: &[CertificateDer<'_>]) -> Option<(SystemTime, SystemTime)> {
    let leaf = chain.first().and_then(Parsed::new)?;
    Some((leaf.not_before(), leaf.not_after()))
}

/// SHA-256 of the issuing certificate in a chain as it is kept: the holder's own, the issuing one, the root.
#[must_use]
pub fn issuing_sha256(chain: &[CertificateDer<'_>]) -> Option<[u8; 32]> {
    Some(Sha256::digest(chain.get(1)?.as_ref()).into())
}

fn bounded(chain: Vec<CertificateDer<'static>>) -> Result<Vec<CertificateDer<'static>>, ChainError> {
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    let count = 1..=MAX_CHAIN_CERTIFICATES;
    if count.contains(&chain.len()) && bytes <= MAX_CHAIN_BYTES {
        Ok(chain)
    } else {
        Err(ChainError::OutOfBounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_and_back_keeps_every_byte_and_the_order() {
        let ders = [vec![0x30; 48], vec![1, 2, 3], vec![9; 1000]];
        let read = from_pem(&to_pem(&ders)).unwrap();
        assert!(read.iter().map(AsRef::as_ref).eq(ders.iter().map(Vec::as_slice)));
        let lines = to_pem(&ders);
        assert!(lines.lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn bounds_hold_for_text_and_bytes() {
        assert_eq!(from_pem(""), Err(ChainError::OutOfBounds));
        assert_eq!(
            from_pem("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
            Err(ChainError::NotPem)
        );
        assert_eq!(from_pem(&to_pem(&[[1]; 5])), Err(ChainError::OutOfBounds));
        assert_eq!(
            from_ders(vec![vec![0; MAX_CHAIN_BYTES + 1]]),
            Err(ChainError::OutOfBounds)
        );
        assert_eq!(from_ders(Vec::new()), Err(ChainError::OutOfBounds));
        assert!(from_ders(vec![vec![0; MAX_CHAIN_BYTES]]).is_ok());
    }
}
