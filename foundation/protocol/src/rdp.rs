//! The first packet of RDP and the answer that refuses it ([MS-RDPBCGR] sections 2.2.1.1 and 2.2.1.2, over TPKT of RFC 1006
//! and X.224).
//!
//! The client's Connection Request carries, before any security, an optional line of text (a routing token or a cookie) and
//! the security protocols that it offers. Everything after it is between the client and the desktop.

use thiserror::Error;

/// The longest Connection Request, in bytes: what X.224's one-byte length indicator can say, behind TPKT's four.
pub const MAX_REQUEST: usize = 4 + 255;

const TPKT: u8 = 3;
const CONNECTION_REQUEST: u8 = 0xe0;
const CONNECTION_CONFIRM: u8 = 0xd0;
const NEGOTIATION_REQUEST: u8 = 1;
const NEGOTIATION_FAILURE: u8 = 3;
const CORRELATION: u8 = 6;
const ROUTING_TOKEN: &str = "Cookie: msts=";
const COOKIE: &str = "Cookie: mstshash=";

/// Why a first packet is no Connection Request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The bytes before the request are not TPKT version 3.
    #[error("not TPKT")]
    Tpkt,
    /// A length is none that a Connection Request has.
    #[error("the first packet says it is {0} bytes long")]
    Length(usize),
    /// It is another X.224 packet, or of another class.
    #[error("the first packet is no X.224 connection request of class 0")]
    Kind,
    /// The line of text is not ASCII, or does not end.
    #[error("the routing token or cookie cannot be read")]
    Text,
    /// What follows the line of text is no negotiation request.
    #[error("the negotiation request cannot be read")]
    Negotiation,
}

/// A client's Connection Request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The reference that an answer repeats.
    pub reference: u16,
    /// The line of text without its end; empty where none was sent. Printable ASCII.
    pub text: String,
    /// The security protocols offered, as bits; `None` where only the oldest security is.
    pub protocols: Option<u32>,
    /// The negotiation request and what follows it, as sent.
    negotiation: Vec<u8>,
}

/// Why a connection is refused, in the protocol's words (section 2.2.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Failure {
    /// The server takes no connection without TLS.
    TlsRequired = 1,
    /// The server has no certificate for TLS.
    NoCertificate = 3,
    /// The server wants a user to be authenticated first.
    UserRequired = 5,
}

/// Reads a Connection Request out of what a client has sent so far: the request and its length in bytes, or `None` where
/// bytes are missing. Nothing is kept or reserved by the length that a client claims.
///
/// # Errors
/// One variant per cause; no further byte can mend it.
pub fn read_request(bytes: &[u8]) -> Result<Option<(Request, usize)>, RequestError> {
    if bytes.first().is_some_and(|version| *version != TPKT) {
        return Err(RequestError::Tpkt);
    }
    let Some((&[_, reserved, high, low], rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if reserved != 0 {
        return Err(RequestError::Tpkt);
    }
    // Seven bytes of X.224 at least.
    if !(11..=MAX_REQUEST).contains(&length) {
        return Err(RequestError::Length(length));
    }
    let Some(packet) = rest.get(..length.saturating_sub(4)) else {
        return Ok(None);
    };
    let Some((&[indicator, kind, _, _, high, low, class], body)) = packet.split_first_chunk::<7>() else {
        return Err(RequestError::Length(length));
    };
    if usize::from(indicator).saturating_add(1) != packet.len() {
        return Err(RequestError::Length(usize::from(indicator)));
    }
    if kind != CONNECTION_REQUEST || class != 0 {
        return Err(RequestError::Kind);
    }
    let (text, negotiation) = line(body)?;
    Ok(Some((
        Request {
            reference: u16::from_be_bytes([high, low]),
            text,
            protocols: protocols(negotiation)?,
            negotiation: negotiation.to_vec(),
        },
        length,
    )))
}

/// The line of text and what follows it.
fn line(body: &[u8]) -> Result<(String, &[u8]), RequestError> {
    // What negotiation begins with is no printable character. Brokers have their clients send lines of their own kinds
    // (`tsv://`).
    if !body.first().is_some_and(u8::is_ascii_graphic) {
        return Ok((String::new(), body));
    }
    let end = body
        .windows(2)
        .position(|two| two == b"\r\n")
        .ok_or(RequestError::Text)?;
    let (text, rest) = body.split_at_checked(end).ok_or(RequestError::Text)?;
    if !text.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(RequestError::Text);
    }
    let text = String::from_utf8(text.to_vec()).map_err(|_| RequestError::Text)?;
    Ok((text, rest.get(2..).unwrap_or_default()))
}

fn protocols(negotiation: &[u8]) -> Result<Option<u32>, RequestError> {
    match negotiation {
        [] => Ok(None),
        [NEGOTIATION_REQUEST, flags, 8, 0, a, b, c, d, rest @ ..] => {
            let correlated = flags & 8 != 0;
            match rest {
                [] if !correlated => Ok(Some(u32::from_le_bytes([*a, *b, *c, *d]))),
                [CORRELATION, _, 36, 0, more @ ..] if correlated && more.len() == 32 => {
                    Ok(Some(u32::from_le_bytes([*a, *b, *c, *d])))
                }
                _ => Err(RequestError::Negotiation),
            }
        }
        _ => Err(RequestError::Negotiation),
    }
}

impl Request {
    /// The routing token that the request carries, if it carries one.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.text.strip_prefix(ROUTING_TOKEN)
    }

    /// The user name that the client shows to everybody on the way; nothing proves it.
    #[must_use]
    pub fn shown_user(&self) -> Option<&str> {
        self.text.strip_prefix(COOKIE)
    }

    /// The request without its line of text, for a desktop that has no use for it.
    #[must_use]
    pub fn without_text(&self) -> Vec<u8> {
        x224(CONNECTION_REQUEST, 0, self.reference, &self.negotiation)
    }

    /// The request with its line of text.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = self.text.clone().into_bytes();
        if !body.is_empty() {
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(&self.negotiation);
        x224(CONNECTION_REQUEST, 0, self.reference, &body)
    }

    /// The answer that refuses this request. A client that offered no protocols reads its X.224 part alone.
    #[must_use]
    pub fn refusal(&self, failure: Failure) -> Vec<u8> {
        let mut body = Vec::new();
        if self.protocols.is_some() {
            body.extend_from_slice(&[NEGOTIATION_FAILURE, 0, 8, 0]);
            body.extend_from_slice(&(failure as u32).to_le_bytes());
        }
        x224(CONNECTION_CONFIRM, self.reference, 0, &body)
    }
}

/// A packet with its lengths; `body` fits, since it is part of a packet that was read.
fn x224(kind: u8, destination: u16, source: u16, body: &[u8]) -> Vec<u8> {
    let indicator = u8::try_from(body.len().saturating_add(6)).unwrap_or(u8::MAX);
    let length = u16::from(indicator).saturating_add(5);
    let mut bytes = vec![TPKT, 0];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[indicator, kind]);
    bytes.extend_from_slice(&destination.to_be_bytes());
    bytes.extend_from_slice(&source.to_be_bytes());
    bytes.push(0);
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests;
