//! The opening of the PostgreSQL protocol, version 3 ("Frontend/Backend Protocol", PostgreSQL 15 chapter 55).
//!
//! What a client sends first ([`read_opening`]), the words in which it is refused ([`fatal`]), a server's half of a login
//! ([`Login`]), and where the messages of a server begin and end ([`Server`]). What statements mean is not read;
//! [`Client`] counts them and, where asked to, gives their texts.

mod client;
mod login;
mod server;

pub use client::{Client, ClientError, Spoken, Statement};
pub use login::{
    Login, LoginError, LoginStep, MAX_LOGIN_BYTES, MAX_LOGIN_MESSAGE, MAX_LOGIN_MESSAGES, ServerSaid,
    authentication_ok, password_message, sasl_initial, sasl_response,
};
pub use server::{Answered, Server, ServerError};

use thiserror::Error;

/// The longest first packet a server reads (`MAX_STARTUP_PACKET_LENGTH`), in bytes with its length.
pub const MAX_OPENING: usize = 10_000;
/// Most parameters of a StartupMessage.
pub const MAX_PARAMETERS: usize = 64;
/// The only length of a cancel key's secret in protocol 3.0, and the least in later ones; in bytes.
pub const MIN_CANCEL_SECRET: usize = 4;
/// The longest secret of a cancel key, in bytes (protocol 3.2).
pub const MAX_CANCEL_KEY: usize = 256;

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
const MAJOR_VERSION: u32 = 3;

/// The one byte that accepts an SSLRequest.
pub const ACCEPT_TLS: &[u8] = b"S";
/// The one byte that declines a GSSENCRequest, or an SSLRequest.
pub const DECLINE: &[u8] = b"N";

/// Why a client's first packet cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpeningError {
    /// Its length is none that a first packet has.
    #[error("the first packet says it is {0} bytes long")]
    Length(u32),
    /// It asks for another protocol than version 3.
    #[error("protocol version {0}.{1} is not spoken here")]
    Version(u16, u16),
    /// Its parameters are no pairs of texts, too many, or without a user.
    #[error("the startup packet's parameters cannot be read")]
    Parameters,
}

/// What a client sends first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Asks for TLS; answered by one byte.
    Tls,
    /// Asks for GSSAPI encryption; answered by one byte.
    Gss,
    /// Asks to cancel what another connection does.
    Cancel(CancelKey),
    /// Begins a session.
    Startup(Startup),
}

/// Which connection a CancelRequest is about, and the secret that proves it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CancelKey {
    /// The server's process.
    pub process: u32,
    /// The secret, 4 to [`MAX_CANCEL_KEY`] bytes.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// A StartupMessage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    /// The protocol's minor version.
    pub minor: u16,
    /// Names and values in the order sent; `user` is among them.
    pub parameters: Vec<(String, String)>,
}

/// Reads the first packet out of what a client has sent so far: the packet and its length in bytes, or `None` where bytes
/// are missing. Nothing is kept or reserved by the length that a client claims.
///
/// # Errors
/// One variant per cause; no further byte can mend it.
pub fn read_opening(bytes: &[u8]) -> Result<Option<(Opening, usize)>, OpeningError> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let said = u32::from_be_bytes(*length);
    let length = usize::try_from(said).unwrap_or(usize::MAX);
    if !(8..=MAX_OPENING).contains(&length) {
        return Err(OpeningError::Length(said));
    }
    let Some((code, rest)) = rest.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let Some(body) = rest.get(..length.saturating_sub(8)) else {
        return Ok(None);
    };
    let opening = match (u32::from_be_bytes(*code), body) {
        (SSL_REQUEST, []) => Opening::Tls,
        (GSSENC_REQUEST, []) => Opening::Gss,
        (SSL_REQUEST | GSSENC_REQUEST, _) => return Err(OpeningError::Length(said)),
        (CANCEL_REQUEST, body) => Opening::Cancel(cancel(body).ok_or(OpeningError::Length(said))?),
        (version, body) => {
            let [a, b, c, d] = version.to_be_bytes();
            let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            if u32::from(major) != MAJOR_VERSION {
                return Err(OpeningError::Version(major, minor));
            }
            let parameters = parameters(body).ok_or(OpeningError::Parameters)?;
            Opening::Startup(Startup { minor, parameters })
        }
    };
    Ok(Some((opening, length)))
}

fn cancel(body: &[u8]) -> Option<CancelKey> {
    let (process, secret) = body.split_first_chunk::<4>()?;
    (MIN_CANCEL_SECRET..=MAX_CANCEL_KEY)
        .contains(&secret.len())
        .then(|| CancelKey {
            process: u32::from_be_bytes(*process),
            secret: secret.to_vec(),
        })
}

/// Pairs of texts that end in a zero byte each; one more zero byte ends the list.
fn parameters(body: &[u8]) -> Option<Vec<(String, String)>> {
    let mut texts = body.strip_suffix(&[0])?.split_inclusive(|byte| *byte == 0);
    let mut pairs: Vec<(String, String)> = Vec::new();
    while let Some(name) = texts.next() {
        let (name, value) = (text(name)?, text(texts.next()?)?);
        if name.is_empty() || pairs.len() >= MAX_PARAMETERS || pairs.iter().any(|(earlier, _)| *earlier == name) {
            return None;
        }
        pairs.push((name, value));
    }
    pairs
        .iter()
        .any(|(name, value)| name == "user" && !value.is_empty())
        .then_some(pairs)
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes.strip_suffix(&[0])?).ok()?;
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}

impl Startup {
    /// A parameter; empty where it was not sent.
    #[must_use]
    pub fn parameter(&self, name: &str) -> &str {
        let found = self.parameters.iter().find(|(of, _)| of == name);
        found.map_or("", |(_, value)| value)
    }

    /// The user asked for.
    #[must_use]
    pub fn user(&self) -> &str {
        self.parameter("user")
    }

    /// The database asked for: the user's name where none was sent, and `replication` where physical replication is asked
    /// for, which reads every database whatever is named (as in pg_hba.conf, PostgreSQL 15 section 21.1).
    #[must_use]
    pub fn database(&self) -> &str {
        if self.wants_physical_replication() {
            return "replication";
        }
        match self.parameter("database") {
            "" => self.user(),
            database => database,
        }
    }

    /// As PostgreSQL reads it: `database` is logical replication of the one that is named, else a boolean in any of its
    /// spellings. What is neither is taken for a yes; the server refuses it.
    fn wants_physical_replication(&self) -> bool {
        let said = self.parameter("replication").to_ascii_lowercase();
        let is_no = |word: &str, least: usize| said.len() >= least && word.starts_with(&said);
        !(said.is_empty()
            || said == "database"
            || said == "0"
            || is_no("false", 1)
            || is_no("no", 1)
            || is_no("off", 2))
    }

    /// Puts a parameter in place of what was sent.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.parameters.iter_mut().find(|(of, _)| of == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.parameters.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Takes a parameter out.
    pub fn remove(&mut self, name: &str) {
        self.parameters.retain(|(of, _)| of != name);
    }

    /// The packet. It can be at most a few bytes longer than the one that was read.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let version = (MAJOR_VERSION << 16) | u32::from(self.minor);
        let mut body = Vec::with_capacity(256);
        for text in self.parameters.iter().flat_map(|(name, value)| [name, value]) {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        packet(version, &body)
    }
}

impl CancelKey {
    /// The CancelRequest that carries it.
    #[must_use]
    pub fn to_request(&self) -> Vec<u8> {
        let body = [self.process.to_be_bytes().as_slice(), &self.secret].concat();
        packet(CANCEL_REQUEST, &body)
    }
}

/// The packet that asks a server for TLS.
#[must_use]
pub fn tls_request() -> Vec<u8> {
    packet(SSL_REQUEST, &[])
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len().saturating_add(8)).unwrap_or(u32::MAX);
    [length.to_be_bytes().as_slice(), &code.to_be_bytes(), body].concat()
}

/// An ErrorResponse of severity FATAL, after which the connection is closed: SQLSTATE, message, and a hint where there is
/// one. Zero bytes in the texts are left out, because they end a field.
#[must_use]
pub fn fatal(sqlstate: &str, message: &str, hint: &str) -> Vec<u8> {
    let mut fields = Vec::with_capacity(256);
    for (kind, text) in [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', sqlstate),
        (b'M', message),
        (b'H', hint),
    ] {
        if !text.is_empty() {
            fields.push(kind);
            fields.extend(text.bytes().filter(|byte| *byte != 0));
            fields.push(0);
        }
    }
    fields.push(0);
    message_of(b'E', &fields)
}

/// A message with its type and length.
fn message_of(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len().saturating_add(4)).unwrap_or(u32::MAX);
    [[kind].as_slice(), &length.to_be_bytes(), body].concat()
}

#[cfg(test)]
mod tests;
