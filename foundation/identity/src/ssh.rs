//! OpenSSH keys and certificates: parsing what people register, issuing, and verifying.
//!
//! The SSH library checks a certificate's signature and dates only; which authority signed it,
//! for whom, for what and under which conditions is decided here. RSA is not taken anywhere: the
//! one implementation at hand leaks its keys through timing (RUSTSEC-2023-0071). This is the
//! second place where randomness is drawn, and only by [`SshKey::create`] and
//! [`SshAuthority::create`]. Nonces of certificates are derived from the authority's secret.

use secrecy::SecretString;
use ssh_key::{
    Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey,
    private::{Ed25519Keypair, KeypairData},
};
use thiserror::Error;

use crate::{
    keys::{KeyError, random},
    name::printable,
};

mod check;
mod issue;

pub use check::{CertifiedUser, SshCertError, verify_user_certificate};
pub use issue::{MAX_GROUPS, SshIssueError, is_reserved_user_name};
pub use ssh_key;

/// Longest public key line read, in bytes.
pub const MAX_PUBLIC_LINE_BYTES: usize = 4096;

/// Why a line is not a public key we take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PublicKeyError {
    /// There is nothing in the text.
    #[error("there is no public key here; give the one line of a file such as id_ed25519.pub")]
    Empty,
    /// The text is several lines, or one that is too long.
    #[error("a public key is one line of at most {MAX_PUBLIC_LINE_BYTES} bytes; give one key at a time")]
    NotOneLine,
    /// The text is a private key.
    #[error(
        "this is a private key and must stay where it is; give the public one, the line in the \
         file that ends in .pub"
    )]
    PrivateKey,
    /// The text is a certificate.
    #[error("this is a certificate; give the plain public key (the .pub file without -cert)")]
    Certificate,
    /// An RSA or DSA key.
    #[error(
        "{0} keys are not accepted: the RSA code available to this build can leak a key through \
         timing, and DSA is broken; make an ed25519 key with `ssh-keygen -t ed25519` (ecdsa and \
         security keys work too)"
    )]
    Refused(&'static str),
    /// A key type this build does not know.
    #[error(
        "`{0}` is not a key type this build takes; it takes ssh-ed25519, ecdsa-sha2-nistp256, \
         -384, -521, sk-ssh-ed25519@openssh.com and sk-ecdsa-sha2-nistp256@openssh.com"
    )]
    UnknownType(String),
    /// The type is right, the rest is not.
    #[error("this {0} public key is damaged; copy the whole line again")]
    Damaged(String),
}

/// Reads one public key as people register it: an OpenSSH line (`TYPE BASE64 [COMMENT]`) with an
/// ed25519, ecdsa or FIDO security key. Options of `authorized_keys` are not read.
///
/// # Errors
/// One variant per thing the person can do about it.
pub fn parse_public_line(text: &str) -> Result<PublicKey, PublicKeyError> {
    let line = text.trim();
    if line.is_empty() {
        return Err(PublicKeyError::Empty);
    }
    if line.starts_with("-----BEGIN") || line.starts_with("PuTTY-User-Key-File") {
        return Err(PublicKeyError::PrivateKey);
    }
    if line.len() > MAX_PUBLIC_LINE_BYTES || line.chars().any(char::is_control) {
        return Err(PublicKeyError::NotOneLine);
    }
    let kind = line.split(' ').next().unwrap_or_default();
    if kind.ends_with("-cert-v01@openssh.com") {
        return Err(PublicKeyError::Certificate);
    }
    match Algorithm::new(kind) {
        Ok(Algorithm::Rsa { .. }) => Err(PublicKeyError::Refused("RSA")),
        Ok(Algorithm::Dsa) => Err(PublicKeyError::Refused("DSA")),
        Ok(Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) => {
            PublicKey::from_openssh(line).map_err(|_| PublicKeyError::Damaged(kind.to_owned()))
        }
        _ => Err(PublicKeyError::UnknownType(printable(kind))),
    }
}

/// The fingerprint as OpenSSH prints it: `SHA256:` and unpadded base64.
#[must_use]
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Why an SSH key of ours cannot be made or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SshKeyError {
    /// The key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The text is no OpenSSH private key.
    #[error("this is not an unencrypted OpenSSH private key file")]
    Unreadable,
    /// The key is of another type.
    #[error("this OpenSSH private key is not ed25519, the only kind Fairlead makes for itself")]
    NotEd25519,
}

/// An Ed25519 key of the gateway or of an agent's own SSH server. Zeroed when dropped; `Debug`
/// is absent.
pub struct SshKey {
    key: PrivateKey,
}

impl SshKey {
    /// Makes a new key. Draws randomness.
    ///
    /// # Errors
    /// When the provider gives no randomness.
    pub fn create() -> Result<Self, SshKeyError> {
        let seed = random::<32>()?;
        let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
        let key = PrivateKey::new(pair, "").map_err(|_| SshKeyError::Unreadable)?;
        Ok(Self { key })
    }

    /// Reads the key from an OpenSSH private key file.
    ///
    /// # Errors
    /// When the text is no such file, is encrypted, or holds another kind of key.
    pub fn from_openssh(pem: &str) -> Result<Self, SshKeyError> {
        let key = PrivateKey::from_openssh(pem).map_err(|_| SshKeyError::Unreadable)?;
        if key.is_encrypted() {
            Err(SshKeyError::Unreadable)
        } else if key.algorithm() == Algorithm::Ed25519 {
            Ok(Self { key })
        } else {
            Err(SshKeyError::NotEd25519)
        }
    }

    /// Writes the key as an OpenSSH private key file.
    ///
    /// # Errors
    /// When it cannot be encoded, which no key made or read here gives.
    pub fn to_openssh(&self) -> Result<SecretString, SshKeyError> {
        let text = self.key.to_openssh(LineEnding::LF);
        let text = text.map_err(|_| SshKeyError::Unreadable)?;
        Ok(SecretString::from(text.as_str()))
    }

    /// The public key as one OpenSSH line without a comment.
    #[must_use]
    pub fn public_line(&self) -> String {
        // An ed25519 key always encodes; an empty line is refused by every reader.
        self.key.public_key().to_openssh().unwrap_or_default()
    }

    /// The public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// The key in the form the SSH library serves with.
    #[must_use]
    pub fn private_key(&self) -> &PrivateKey {
        &self.key
    }
}

/// The three SSH keys of a gateway.
pub struct SshAuthority {
    user_ca: SshKey,
    host_ca: SshKey,
    host_key: SshKey,
}

impl SshAuthority {
    /// Makes three new keys. Draws randomness.
    ///
    /// # Errors
    /// When the provider gives no randomness.
    pub fn create() -> Result<Self, SshKeyError> {
        Ok(Self {
            user_ca: SshKey::create()?,
            host_ca: SshKey::create()?,
            host_key: SshKey::create()?,
        })
    }

    /// Puts the three keys together as they were read from their files.
    #[must_use]
    pub fn from_keys(user_ca: SshKey, host_ca: SshKey, host_key: SshKey) -> Self {
        Self {
            user_ca,
            host_ca,
            host_key,
        }
    }

    /// Reads the three keys from the texts of their OpenSSH private key files.
    ///
    /// # Errors
    /// As [`SshKey::from_openssh`].
    pub fn from_openssh(user_ca: &str, host_ca: &str, host_key: &str) -> Result<Self, SshKeyError> {
        Ok(Self::from_keys(
            SshKey::from_openssh(user_ca)?,
            SshKey::from_openssh(host_ca)?,
            SshKey::from_openssh(host_key)?,
        ))
    }

    /// The key that signs user certificates; devices trust its public line.
    #[must_use]
    pub fn user_ca(&self) -> &SshKey {
        &self.user_ca
    }

    /// The key that signs host certificates; callers' known_hosts trust its public line.
    #[must_use]
    pub fn host_ca(&self) -> &SshKey {
        &self.host_ca
    }

    /// The key the gateway's own SSH face serves with.
    #[must_use]
    pub fn host_key(&self) -> &SshKey {
        &self.host_key
    }
}

#[cfg(test)]
mod tests;
