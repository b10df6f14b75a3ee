//! Private keys, and the one place of this crate where randomness is drawn (beside the key
//! creation of [`crate::ssh`], which uses [`random`] from here).
//!
//! A key is P-256 so that the same one serves X.509 and OpenSSH. It is made where it lives and
//! never travels; what leaves is a signing request. Randomness comes from the TLS provider
//! (aws-lc-rs), so that there is one source to trust.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use ssh_key::private::{EcdsaKeypair, EcdsaPrivateKey, KeypairData};
use thiserror::Error;
use x509_parser::der_parser::asn1_rs::{FromDer, OctetString, Sequence};
use zeroize::{Zeroize, Zeroizing};

use crate::join::JoinSecret;

/// Why a key cannot be made or read. Never carries a byte of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The provider gave no randomness.
    #[error("the system gave no randomness, so no key can be made; try again")]
    NoRandomness,
    /// The text is not a PEM private key.
    #[error("this is not a private key file: expected PEM that begins -----BEGIN PRIVATE KEY-----")]
    NotPem,
    /// The PEM holds something else than a P-256 key.
    #[error("this private key is not P-256 (PKCS #8); Fairlead makes and reads no other kind here")]
    NotP256,
    /// A correct key could not be written in the form asked for.
    #[error("the key could not be written as {0}")]
    Unwritable(&'static str),
}

/// A P-256 private key, zeroed when dropped and without `Debug`.
pub struct PrivateKey {
    pair: KeyPair,
}

impl PrivateKey {
    /// Makes a new key. Draws randomness.
    ///
    /// # Errors
    /// When the provider gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        pair.map(|pair| Self { pair }).map_err(|_| KeyError::NoRandomness)
    }

    /// Reads a key from PKCS #8 PEM (`-----BEGIN PRIVATE KEY-----`).
    ///
    /// # Errors
    /// When the text is not such PEM, or the key is not P-256.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NotPem)?;
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
            .map(|pair| Self { pair })
            .map_err(|_| KeyError::NotP256)
    }

    /// Writes the key as PKCS #8 PEM.
    #[must_use]
    pub fn to_pem(&self) -> SecretString {
        SecretString::from(self.pair.serialize_pem())
    }

    /// SHA-256 of the public key's SubjectPublicKeyInfo in DER; the identity of the key itself.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        Sha256::digest(self.pair.subject_public_key_info()).into()
    }

    /// Writes a signing request with an empty subject: whoever signs decides every name.
    ///
    /// # Errors
    /// When the provider cannot sign.
    pub fn csr_der(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&self.pair);
        request
            .map(|csr| csr.der().to_vec())
            .map_err(|_| KeyError::Unwritable("a signing request"))
    }

    /// Signs a message: ECDSA with SHA-256, in DER.
    ///
    /// # Errors
    /// When the provider cannot sign.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        rcgen::SigningKey::sign(&self.pair, message).map_err(|_| KeyError::Unwritable("a signature"))
    }

    /// Writes the key as an unencrypted OpenSSH private key file.
    ///
    /// # Errors
    /// When the key cannot be encoded, which no key made or read here gives.
    pub fn ssh_private(&self) -> Result<SecretString, KeyError> {
        let unwritable = KeyError::Unwritable("an OpenSSH private key");
        let scalar = self.scalar().ok_or(unwritable)?;
        let point = self.pair.public_key_raw();
        let public = ssh_key::sec1::EncodedPoint::from_bytes(point).map_err(|_| unwritable)?;
        let pair = EcdsaKeypair::NistP256 {
            public,
            private: EcdsaPrivateKey::from(*scalar),
        };
        let text = ssh_key::PrivateKey::new(KeypairData::Ecdsa(pair), "")
            .and_then(|key| key.to_openssh(ssh_key::LineEnding::LF))
            .map_err(|_| unwritable)?;
        Ok(SecretString::from(text.as_str()))
    }

    /// Writes the public key as one OpenSSH line; `comment` ends it when not empty.
    ///
    /// # Errors
    /// When the comment has a line break, or the key cannot be encoded.
    pub fn ssh_public(&self, comment: &str) -> Result<String, KeyError> {
        let unwritable = KeyError::Unwritable("an OpenSSH public key line");
        if comment.chars().any(char::is_control) {
            return Err(unwritable);
        }
        let key =
            ssh_key::public::EcdsaPublicKey::from_sec1_bytes(self.pair.public_key_raw()).map_err(|_| unwritable)?;
        ssh_key::PublicKey::new(key.into(), comment)
            .to_openssh()
            .map_err(|_| unwritable)
    }

    /// The key in the form rustls takes.
    pub(crate) fn rustls_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into()
    }

    /// The key in the form rcgen signs with.
    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    /// The private scalar, from `OneAsymmetricKey` (RFC 5958) around `ECPrivateKey` (RFC 5915).
    fn scalar(&self) -> Option<Zeroizing<[u8; 32]>> {
        let (_, outer) = Sequence::from_der(self.pair.serialized_der()).ok()?;
        let (rest, _version) = u8::from_der(&outer.content).ok()?;
        let (rest, _algorithm) = Sequence::from_der(rest).ok()?;
        let (_, wrapped) = OctetString::from_der(rest).ok()?;
        let (_, inner) = Sequence::from_der(wrapped.as_ref()).ok()?;
        let (rest, _version) = u8::from_der(&inner.content).ok()?;
        let (_, scalar) = OctetString::from_der(rest).ok()?;
        let scalar: [u8; 32] = scalar.as_ref().try_into().ok()?;
        Some(Zeroizing::new(scalar))
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.pair.zeroize();
    }
}

impl JoinSecret {
    /// Makes the 256-bit secret of a new join string. Draws randomness.
    ///
    /// # Errors
    /// When the provider gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self::from_bytes(*random::<32>()?))
    }
}

/// Makes the serial of a new X.509 certificate: 128 random bits. Draws randomness.
///
/// # Errors
/// When the provider gives no randomness.
pub fn random_serial() -> Result<[u8; 16], KeyError> {
    Ok(*random::<16>()?)
}

/// Fills an array from the TLS provider's generator, zeroed when dropped.
///
/// # Errors
/// When the provider gives no randomness.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, KeyError> {
    let mut bytes = Zeroizing::new([0; N]);
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(bytes.as_mut_slice())
        .map_err(|_| KeyError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
