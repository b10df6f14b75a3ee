//! What a link, an enrolment or a caller's conversation runs over: a connection of byte streams, whichever transport
//! carries it. Rooms above know [`Connection`], [`Sender`] and [`Receiver`], and no type of a transport's library.
//!
//! A closed set: an `enum`, so that a session's future has one known size and no call through a table. How a connection
//! comes to be (sockets, TLS, addresses) is the business of those who dial and accept; what the bytes and the numbers
//! mean, of the wire room.

mod closed;
mod connection;
mod stream;
pub mod websocket;

pub use closed::{Closed, abandoned_code, closed_code, connection_lost};
pub use connection::Connection;
pub use stream::{Receiver, Sender, Stopped};

/// Which transport carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// QUIC, over UDP.
    Quic,
    /// WebSocket over TLS, over TCP.
    WebSocket,
}

impl Kind {
    /// The name in lists, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebSocket => "websocket",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
