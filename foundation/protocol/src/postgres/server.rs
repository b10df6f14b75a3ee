//! What a server sends, followed message by message without being kept.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{CancelKey, MAX_CANCEL_KEY, MIN_CANCEL_SECRET, message_of};

/// Type and length.
pub(super) const HEADER: usize = 5;

/// The server does not speak the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ServerError {
    /// A message says a length that none has.
    #[error("a message of the database says it is {0} bytes long")]
    Length(u32),
    /// The cancel key is none that any version has, or a second one.
    #[error("the database's cancel key is none, or not its first")]
    CancelKey,
}

/// Follows what a server sends: where it stands between messages, and the cancel key it gives.
#[derive(Debug)]
pub struct Server {
    /// The beginning of a message whose header is not whole, or of a cancel key.
    pub(super) held: BytesMut,
    /// Bytes of the message under way that are still to come.
    left: usize,
    /// The first ReadyForQuery has passed: nothing is changed any longer.
    is_ready: bool,
    shown: CancelKey,
    given: Option<CancelKey>,
}

/// What is to be passed on to the client.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// In this order.
    pub bytes: Vec<Bytes>,
}

impl Server {
    /// Follows a server from its first message. The client is shown `shown` in place of the key that the server gives; of
    /// its secret only [`MIN_CANCEL_SECRET`] bytes where the server's own has no more, because clients of protocol 3.0
    /// take no other length.
    #[must_use]
    pub fn new(shown: CancelKey) -> Self {
        Self {
            held: BytesMut::new(),
            left: 0,
            is_ready: false,
            shown,
            given: None,
        }
    }

    /// Whether the last byte that was passed on ends a message: only then can something be said in between.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.left == 0 && self.held.is_empty()
    }

    /// The key that the client was shown and the one that the server has given, once it has.
    #[must_use]
    pub fn cancel_keys(&self) -> Option<(&CancelKey, &CancelKey)> {
        Some((&self.shown, self.given.as_ref()?))
    }

    /// Follows the next bytes; what comes out is what the client gets. At most a header, or a cancel key, is held back.
    ///
    /// # Errors
    /// When the server does not speak the protocol; nothing more can be passed on then.
    pub fn follow(&mut self, mut bytes: Bytes) -> Result<Answered, ServerError> {
        let mut answered = Answered::default();
        if !self.held.is_empty() {
            self.held.extend_from_slice(&bytes);
            bytes = self.held.split().freeze();
        }
        // Runs of messages that pass unchanged go on as they came.
        let mut passing = 0_usize;
        loop {
            let rest = bytes.get(passing..).unwrap_or_default();
            if self.left > 0 {
                let taken = self.left.min(rest.len());
                self.left = self.left.saturating_sub(taken);
                passing = passing.saturating_add(taken);
                if self.left > 0 {
                    break;
                }
                continue;
            }
            let Some((kind, length)) = header(rest)? else {
                break;
            };
            let whole = length.saturating_add(1);
            if !self.is_ready && kind == b'K' {
                if length > MAX_CANCEL_KEY.saturating_add(8) {
                    return Err(ServerError::CancelKey);
                }
                if rest.len() < whole {
                    break;
                }
                if passing > 0 {
                    answered.bytes.push(bytes.split_to(passing));
                    passing = 0;
                }
                let message = bytes.split_to(whole.min(bytes.len()));
                answered.bytes.push(self.exchange(&message)?);
                continue;
            }
            self.is_ready |= kind == b'Z';
            self.left = whole;
        }
        if passing > 0 {
            answered.bytes.push(bytes.split_to(passing.min(bytes.len())));
        }
        self.held.extend_from_slice(&bytes);
        Ok(answered)
    }

    /// Keeps the server's key and gives the message that the client is shown.
    fn exchange(&mut self, message: &Bytes) -> Result<Bytes, ServerError> {
        let given = super::cancel(message.get(HEADER..).unwrap_or_default()).ok_or(ServerError::CancelKey)?;
        if self.given.is_some() {
            return Err(ServerError::CancelKey);
        }
        if given.secret.len() == MIN_CANCEL_SECRET {
            self.shown.secret.truncate(MIN_CANCEL_SECRET);
        }
        self.given = Some(given);
        let body = [self.shown.process.to_be_bytes().as_slice(), &self.shown.secret].concat();
        Ok(Bytes::from(message_of(b'K', &body)))
    }
}

/// Type and length (without the type's byte) of the message that begins here; `None` where bytes are missing.
fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>, ServerError> {
    let (Some(kind), Some(length)) = (bytes.first(), bytes.get(1..HEADER).and_then(<[u8]>::first_chunk::<4>)) else {
        return Ok(None);
    };
    let said = u32::from_be_bytes(*length);
    // A message is below 1 GiB in every version; above it, somebody else speaks.
    match usize::try_from(said) {
        Ok(length) if (4..=1 << 30).contains(&length) => Ok(Some((*kind, length))),
        _ => Err(ServerError::Length(said)),
    }
}
