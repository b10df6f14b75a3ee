//! How a connection ended, and what an error of one of its streams says.

use std::io;

/// Why a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The peer closed it, and said the number of its reason.
    #[error("closed by peer: {text}{}(code {code})", if text.is_empty() { "" } else { " " })]
    ByPeer {
        /// The number; the wire room names it.
        code: u64,
        /// The peer's own words, as long as a packet at most.
        text: String,
    },
    /// The peer refused the handshake with a TLS alert (RFC 8446 section 6), which it may say after ours had ended.
    #[error("{text}")]
    Refused {
        /// The alert's number.
        alert: u8,
        /// In words for a log.
        text: String,
    },
    /// Silence, a reset, a broken protocol, or closed by this side.
    #[error("{0}")]
    Lost(String),
}

impl From<quinn::ConnectionError> for Closed {
    fn from(error: quinn::ConnectionError) -> Self {
        let text = error.to_string();
        match error {
            quinn::ConnectionError::ApplicationClosed(close) => Self::ByPeer {
                code: close.error_code.into_inner(),
                text: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            // TLS alerts travel as QUIC errors 0x100 to 0x1ff (RFC 9001 section 4.8).
            quinn::ConnectionError::ConnectionClosed(close) => match u64::from(close.error_code).checked_sub(0x100) {
                Some(alert) => match u8::try_from(alert) {
                    Ok(alert) => Self::Refused { alert, text },
                    Err(_) => Self::Lost(text),
                },
                None => Self::Lost(text),
            },
            _ => Self::Lost(text),
        }
    }
}

/// Why a stream over WebSocket ended, inside an [`io::Error`]; over QUIC the library's own errors say it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
    /// The peer broke it off for the reason of this number.
    #[error("stream broken off by peer: error {0}")]
    Abandoned(u64),
    /// The connection is gone.
    #[error("connection lost")]
    Lost(#[source] Closed),
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Abandoned(_) => io::ErrorKind::ConnectionReset,
            StreamError::Lost(_) => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// Returns the code by which the peer abandoned a stream, out of an error that a relay, a read or a write gave.
pub fn abandoned_code(error: &io::Error) -> Option<u64> {
    let inner = error.get_ref()?;
    if let Some(StreamError::Abandoned(code)) = inner.downcast_ref() {
        return Some(*code);
    }
    if let Some(quinn::ReadError::Reset(code)) = inner.downcast_ref() {
        return Some(code.into_inner());
    }
    match inner.downcast_ref() {
        Some(quinn::WriteError::Stopped(code)) => Some(code.into_inner()),
        _ => None,
    }
}

/// Whether an error that a relay, a read or a write gave means that the whole connection is gone, not one stream.
pub fn connection_lost(error: &io::Error) -> bool {
    lost(error).is_some()
}

/// Returns the code by which the peer closed the whole connection, out of an error that a relay, a read or a write gave.
pub fn closed_code(error: &io::Error) -> Option<u64> {
    match lost(error)? {
        Closed::ByPeer { code, .. } => Some(code),
        _ => None,
    }
}

fn lost(error: &io::Error) -> Option<Closed> {
    let inner = error.get_ref()?;
    if let Some(StreamError::Lost(closed)) = inner.downcast_ref() {
        return Some(closed.clone());
    }
    match (inner.downcast_ref(), inner.downcast_ref()) {
        (Some(quinn::ReadError::ConnectionLost(lost)), _) | (_, Some(quinn::WriteError::ConnectionLost(lost))) => {
            Some(lost.clone().into())
        }
        _ => None,
    }
}
