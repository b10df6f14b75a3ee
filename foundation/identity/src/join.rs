//! The join string: one line that carries a new machine its first trust.
//!
//! It holds the gateway's addresses, its domain, the fingerprint of its root certificate and a
//! secret for one use. A checksum tells a mistyped or cut string, which the person can repair,
//! from a spent one, which only the gateway knows. The letters are `A-Za-z0-9_-`, so that the
//! string survives shells and install scripts unquoted. Files, argv and prompts are elsewhere.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::principal::is_dns_name;

/// What every join string of this version starts with.
pub const PREFIX: &str = "fl1-";
/// Most gateway addresses in one join string.
pub const MAX_ADDRESSES: usize = 4;
/// Longest join string read, in bytes.
pub const MAX_JOIN_BYTES: usize = 1024;
/// Longest gateway address (`HOST:PORT`) in bytes.
const MAX_ADDRESS_BYTES: usize = 128;
const CHECKSUM_BYTES: usize = 8;

/// Why a text is not a join string, or cannot become one. Never carries the secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JoinError {
    /// The text does not start as a join string does.
    #[error("this is not a join string: it would start with {PREFIX}")]
    NotAJoinString,
    /// The text was made by a newer version.
    #[error("this join string was made by a newer gateway; install a newer version of this program")]
    NewerVersion,
    /// The text is longer than any join string.
    #[error("this is not a join string: it is longer than {MAX_JOIN_BYTES} characters")]
    TooLong,
    /// A character that no join string has.
    #[error("character {0} of the join string cannot be part of one; copy it again, whole and on one line")]
    BadCharacter(usize),
    /// The checksum does not fit.
    #[error("the join string is mistyped or cut short; copy it again, whole and on one line")]
    Damaged,
    /// The checksum fits, the content is not one this version knows.
    #[error("the join string is whole, but says {0}; make a new one with a gateway of this version")]
    Unreadable(&'static str),
    /// The parts cannot be put into a join string.
    #[error("no join string can carry {0}")]
    Unwritable(&'static str),
}

/// Whom a join string lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinKind {
    /// A new agent.
    Agent,
    /// A person's new machine.
    User,
    /// A program that calls.
    Workload,
}

impl JoinKind {
    /// The word people read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::User => "user",
            Self::Workload => "workload",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Agent => 1,
            Self::User => 2,
            Self::Workload => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Agent, Self::User, Self::Workload]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

impl fmt::Display for JoinKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The 256-bit secret of a join string: zeroed when dropped, never printed, compared in constant
/// time. Made by `JoinSecret::generate` in [`crate::keys`].
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct JoinSecret([u8; 32]);

impl JoinSecret {
    /// Wraps the secret's bytes, as they came over the wire.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the one message that carries them to the gateway.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the store keeps instead of the secret. 256 random bits need no salt and no stretching.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl PartialEq for JoinSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for JoinSecret {}

/// What a join string says. `Debug` shows everything but the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinString {
    /// Whom it lets in.
    pub kind: JoinKind,
    /// The gateway's addresses as `HOST:PORT`, 1 to [`MAX_ADDRESSES`], tried in this order.
    pub addresses: Vec<String>,
    /// The gateway's domain: the name its certificate must carry, whatever the address.
    pub domain: String,
    /// SHA-256 of the gateway's root certificate in DER.
    pub ca_sha256: [u8; 32],
    /// The secret.
    pub secret: JoinSecret,
}

impl JoinString {
    /// Writes the join string: [`PREFIX`], then base64url of the parts and their checksum.
    ///
    /// # Errors
    /// When an address is not `HOST:PORT`, there are none or too many, or the domain is no domain.
    pub fn encode(&self) -> Result<SecretString, JoinError> {
        self.check().map_err(JoinError::Unwritable)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_JOIN_BYTES));
        bytes.push(self.kind.code());
        bytes.push(u8::try_from(self.addresses.len()).unwrap_or(u8::MAX));
        for text in self.addresses.iter().chain([&self.domain]) {
            bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&self.ca_sha256);
        bytes.extend_from_slice(self.secret.expose());
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let body = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
        let text = Zeroizing::new(format!("{PREFIX}{}", body.as_str()));
        if text.len() > MAX_JOIN_BYTES {
            return Err(JoinError::Unwritable("addresses this long"));
        }
        Ok(SecretString::from(text.as_str()))
    }

    /// Reads a join string; white space around it is ignored.
    ///
    /// # Errors
    /// One variant per thing the person can do about it.
    pub fn parse(text: &str) -> Result<Self, JoinError> {
        let text = text.trim();
        if text.len() > MAX_JOIN_BYTES {
            return Err(JoinError::TooLong);
        }
        let body = match text.split_once('-') {
            Some(("fl1", body)) => body,
            Some((v, _)) if v.strip_prefix("fl").is_some_and(|n| n.parse::<u16>().is_ok()) => {
                return Err(JoinError::NewerVersion);
            }
            _ => return Err(JoinError::NotAJoinString),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if let Some(at) = text.chars().position(|c| !allowed(c)) {
            return Err(JoinError::BadCharacter(at.saturating_add(1)));
        }
        let bytes = URL_SAFE_NO_PAD.decode(body).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| JoinError::Damaged)?;
        let (content, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(JoinError::Damaged)?;
        if checksum(content) != *sum {
            return Err(JoinError::Damaged);
        }
        let join = Self::read(content).ok_or(JoinError::Unreadable("something unknown"))?;
        join.check().map_err(JoinError::Unreadable)?;
        Ok(join)
    }

    fn read(content: &[u8]) -> Option<Self> {
        let (&[kind, count], mut rest) = content.split_first_chunk()?;
        let mut text = || {
            let (&length, after) = rest.split_first()?;
            let (text, after) = after.split_at_checked(usize::from(length))?;
            rest = after;
            String::from_utf8(text.to_vec()).ok()
        };
        let addresses = (0..count).map(|_| text()).collect::<Option<Vec<_>>>()?;
        let domain = text()?;
        let (ca_sha256, rest) = rest.split_first_chunk()?;
        Some(Self {
            kind: JoinKind::from_code(kind)?,
            addresses,
            domain,
            ca_sha256: *ca_sha256,
            secret: JoinSecret::from_bytes(rest.try_into().ok()?),
        })
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.addresses.is_empty() || self.addresses.len() > MAX_ADDRESSES {
            Err("no gateway address, or more than 4")
        } else if !self.addresses.iter().all(|a| is_address(a)) {
            Err("a gateway address that is not HOST:PORT")
        } else if !is_dns_name(&self.domain) {
            Err("a domain that is not a lower-case DNS name")
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for JoinString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinString")
            .field("kind", &self.kind)
            .field("addresses", &self.addresses)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

impl TryFrom<&SecretString> for JoinString {
    type Error = JoinError;

    fn try_from(text: &SecretString) -> Result<Self, JoinError> {
        Self::parse(text.expose_secret())
    }
}

/// True for `HOST:PORT` where HOST is a DNS name, an IPv4 address or a bracketed IPv6 address.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let port_fits = !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok();
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_fits = match v6 {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_dns_name(host),
    };
    text.len() <= MAX_ADDRESS_BYTES && port_fits && host_fits
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest: [u8; 32] = Sha256::new_with_prefix(b"fairlead join string 1")
        .chain_update(content)
        .finalize()
        .into();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    sum
}

#[cfg(test)]
mod tests;
