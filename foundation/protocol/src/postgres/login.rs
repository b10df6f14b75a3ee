//! A server's half of a login, as it is read by somebody who logs in on a caller's behalf.
//!
//! [`Login`] takes what a server sends before AuthenticationOk, in the one order that the protocol has, and says what is to
//! be answered. How a password is proven is not known here. The server is not trusted: it is bounded in the length of a
//! message, in messages and in bytes altogether, and what it says in words is cut short and cleaned.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use super::server::HEADER;

/// The longest message of a login, in bytes with its length.
pub const MAX_LOGIN_MESSAGE: usize = 8 * 1024;
/// Most messages of a login, notices included.
pub const MAX_LOGIN_MESSAGES: usize = 32;
/// Most bytes of a login.
pub const MAX_LOGIN_BYTES: usize = 32 * 1024;
/// Most mechanisms that a server may offer.
const MAX_MECHANISMS: usize = 16;
/// Characters that are kept of what a server says in words.
const MAX_SAID: usize = 256;

/// Why a server's login cannot be gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LoginError {
    /// A message says a length that none of a login has.
    #[error("a message of the database's login says it is {0} bytes long")]
    Length(u32),
    /// More messages or bytes than a login takes.
    #[error("the database's login does not come to an end")]
    Endless,
    /// A message that has no place here.
    #[error("the database sends a message of type {0:#04x} out of order")]
    OutOfOrder(u8),
    /// A message whose inside is not what its type says.
    #[error("a message of the database's login cannot be read")]
    Malformed,
    /// It asks for a way to log in that needs more than a password.
    #[error("the database asks for {0}, which is not spoken here")]
    Unsupported(&'static str),
}

/// What a server's login has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginStep {
    /// The password itself is wanted, in a PasswordMessage.
    Cleartext,
    /// A hash of the password with this salt is wanted.
    Md5([u8; 4]),
    /// One of these SASL mechanisms is to be begun.
    Sasl(Vec<String>),
    /// The server's answer within the mechanism.
    SaslContinue(Bytes),
    /// The server's last word within the mechanism: it must prove itself by it.
    SaslFinal(Bytes),
    /// Logged in. A NegotiateProtocolVersion that came before is for the caller.
    Done(Option<Bytes>),
    /// The server says no; the connection is over.
    Refused(ServerSaid),
}

/// An ErrorResponse, as far as it is of use to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSaid {
    /// Five characters of `0-9A-Z`; `XX000` where the server gave none.
    pub sqlstate: String,
    /// At most 256 characters, none of them a control character.
    pub message: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Begun,
    PasswordWanted,
    MechanismWanted,
    Continued,
    Proven,
    Over,
}

/// Follows a server from the StartupMessage to AuthenticationOk.
#[derive(Debug, Default)]
pub struct Login {
    stage: Stage,
    messages: usize,
    bytes: usize,
    negotiated: Option<Bytes>,
}

impl Login {
    /// Reads on in what the server has sent: the next step, or `None` where bytes are missing. Whole messages are taken out
    /// of `bytes`; what follows the last step is left in it. Notices are passed over.
    ///
    /// # Errors
    /// [`LoginError`]; the connection is of no more use.
    pub fn read(&mut self, bytes: &mut BytesMut) -> Result<Option<LoginStep>, LoginError> {
        while self.stage != Stage::Over {
            let Some((kind, body)) = self.message(bytes)? else {
                return Ok(None);
            };
            match (kind, self.stage) {
                (b'N', _) => {}
                (b'E', _) => return Ok(Some(self.end(LoginStep::Refused(said(&body)?)))),
                (b'v', Stage::Begun) if self.negotiated.is_none() => {
                    self.negotiated = Some(super::message_of(kind, &body).into());
                }
                (b'R', _) => return self.request(body).map(Some),
                _ => return Err(LoginError::OutOfOrder(kind)),
            }
        }
        Ok(None)
    }

    /// Takes one message out, within the bounds.
    fn message(&mut self, bytes: &mut BytesMut) -> Result<Option<(u8, Bytes)>, LoginError> {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [kind, a, b, c, d] = *header;
        let said = u32::from_be_bytes([a, b, c, d]);
        let length = usize::try_from(said).unwrap_or(usize::MAX);
        if !(4..=MAX_LOGIN_MESSAGE).contains(&length) {
            return Err(LoginError::Length(said));
        }
        let whole = length.saturating_add(1);
        if bytes.len() < whole {
            return Ok(None);
        }
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(whole);
        if self.messages > MAX_LOGIN_MESSAGES || self.bytes > MAX_LOGIN_BYTES {
            return Err(LoginError::Endless);
        }
        let mut message = bytes.split_to(whole).freeze();
        message.advance(HEADER);
        Ok(Some((kind, message)))
    }

    fn request(&mut self, mut body: Bytes) -> Result<LoginStep, LoginError> {
        let code = body.try_get_u32().map_err(|_| LoginError::Malformed)?;
        let (stage, step) = match (code, self.stage) {
            (0, Stage::Begun | Stage::PasswordWanted | Stage::Proven) | (3, Stage::Begun) if !body.is_empty() => {
                return Err(LoginError::Malformed);
            }
            (0, Stage::Begun | Stage::PasswordWanted | Stage::Proven) => {
                let negotiated = self.negotiated.take();
                return Ok(self.end(LoginStep::Done(negotiated)));
            }
            (3, Stage::Begun) => (Stage::PasswordWanted, LoginStep::Cleartext),
            (5, Stage::Begun) => {
                let salt = <[u8; 4]>::try_from(body.as_ref()).map_err(|_| LoginError::Malformed)?;
                (Stage::PasswordWanted, LoginStep::Md5(salt))
            }
            (10, Stage::Begun) => (Stage::MechanismWanted, LoginStep::Sasl(mechanisms(&body)?)),
            (11, Stage::MechanismWanted) => (Stage::Continued, LoginStep::SaslContinue(body)),
            (12, Stage::Continued) => (Stage::Proven, LoginStep::SaslFinal(body)),
            (2, _) => return Err(LoginError::Unsupported("Kerberos 5")),
            (6, _) => return Err(LoginError::Unsupported("an SCM credential")),
            (7 | 8, _) => return Err(LoginError::Unsupported("GSSAPI")),
            (9, _) => return Err(LoginError::Unsupported("SSPI")),
            _ => return Err(LoginError::OutOfOrder(b'R')),
        };
        self.stage = stage;
        Ok(step)
    }

    fn end(&mut self, step: LoginStep) -> LoginStep {
        self.stage = Stage::Over;
        step
    }
}

/// Names that end in a zero byte each; one more zero byte ends the list.
fn mechanisms(body: &[u8]) -> Result<Vec<String>, LoginError> {
    let list = body.strip_suffix(&[0, 0]).ok_or(LoginError::Malformed)?;
    let names: Vec<&[u8]> = list.split(|byte| *byte == 0).take(MAX_MECHANISMS + 1).collect();
    if names.len() > MAX_MECHANISMS {
        return Err(LoginError::Malformed);
    }
    let text = |name: &[u8]| {
        let text = std::str::from_utf8(name).ok()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    let names: Option<Vec<String>> = names.into_iter().map(text).collect();
    names.ok_or(LoginError::Malformed)
}

/// Fields of one type byte and one text each; a zero byte ends them.
fn said(body: &[u8]) -> Result<ServerSaid, LoginError> {
    let fields = body.strip_suffix(&[0]).ok_or(LoginError::Malformed)?;
    let mut said = ServerSaid {
        sqlstate: "XX000".into(),
        message: String::new(),
    };
    for field in fields.split(|byte| *byte == 0) {
        match field.split_first() {
            Some((b'C', state)) if is_sqlstate(state) => said.sqlstate = String::from_utf8_lossy(state).into_owned(),
            Some((b'M', text)) => {
                let text = String::from_utf8_lossy(text);
                said.message = text
                    .chars()
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .take(MAX_SAID)
                    .collect();
            }
            _ => {}
        }
    }
    Ok(said)
}

fn is_sqlstate(bytes: &[u8]) -> bool {
    bytes.len() == 5
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// The PasswordMessage with this password or hash. Whoever sends it wipes it afterwards.
#[must_use]
pub fn password_message(password: &[u8]) -> Vec<u8> {
    answer(&[password, &[0]])
}

/// The SASLInitialResponse that begins this mechanism.
#[must_use]
pub fn sasl_initial(mechanism: &str, first: &[u8]) -> Vec<u8> {
    let length = u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes();
    answer(&[mechanism.as_bytes(), &[0], &length, first])
}

/// The SASLResponse that goes on with the mechanism.
#[must_use]
pub fn sasl_response(next: &[u8]) -> Vec<u8> {
    answer(&[next])
}

/// The AuthenticationOk for a caller whom somebody has logged in.
#[must_use]
pub fn authentication_ok() -> Vec<u8> {
    super::message_of(b'R', &[0; 4])
}

/// One buffer of the right size from the start: growing would leave copies of a password behind.
fn answer(parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().fold(4_usize, |sum, part| sum.saturating_add(part.len()));
    let mut message = Vec::with_capacity(length.saturating_add(1));
    message.push(b'p');
    message.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    parts.iter().for_each(|part| message.extend_from_slice(part));
    message
}

#[cfg(test)]
mod tests;
