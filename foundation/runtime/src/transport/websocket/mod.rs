//! WebSocket over TLS (RFC 6455) where UDP does not pass: one connection carries one stream, and several of them make up
//! what QUIC has in one. PERFORMANCE says why: no head-of-line blocking between sessions, and the cheapest bulk path.
//!
//! The framing is tungstenite's. What it means here: a binary message holds bytes of the stream, an empty one ends a
//! direction, a close frame breaks the stream off or ends the whole connection with a number (`close_code`), a text
//! message is an [`Order`] between the transports of a link. docs/wire.md has the bytes. Not here: sockets, TLS settings,
//! proxies and who may come in; those belong to who dials and who accepts.

mod carrier;
mod close_code;
mod dialled;
mod framing;
mod link;
mod order;
mod orders;
mod pool;
mod socket;
mod state;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub use carrier::Carrier;
pub use order::Order;
pub use socket::{ReadHalf, WriteHalf};
pub use state::WebSocket;

/// Bytes of a stream in one message, at most: what a TLS record holds, the frame's header counted.
pub const MAX_PAYLOAD: usize = 16 * 1024 - 16;
/// What is taken from a peer in one message and in one frame, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;
/// What is read at once, in bytes; kept by each connection as long as it stands.
const READ_BUFFER: usize = 4 * 1024;
/// What may wait to be written, in bytes: one message and what a ping asks for.
const WRITE_BUFFER: usize = 128 * 1024;

/// Longest silence of a link's first connection, and how often its dialling side speaks; see [`crate::quic::IDLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// The connection is lost when nothing came for so long.
    pub idle: Duration,
    /// A ping is sent this often; `None` for the side that only answers.
    pub every: Option<Duration>,
}

/// A WebSocket after its handshake, over TLS of any make.
pub type Raw = WebSocketStream<Box<dyn Carrier>>;

/// A future that makes a further connection of a link or conversation.
pub type Dialling = Pin<Box<dyn Future<Output = io::Result<Raw>> + Send>>;

/// Makes further connections to where the first one leads, each proven in the same way.
pub trait Dial: Send + Sync + 'static {
    /// Dials once; `stream` is its number among those of the link, as the peer is told.
    fn dial(&self, stream: u64) -> Dialling;
    /// Where the first one leads.
    fn remote_address(&self) -> SocketAddr;
}

/// The limits of every WebSocket of ours, in place of the library's (64 MiB messages, 128 KiB buffers).
pub fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .accept_unmasked_frames(false)
}

#[cfg(test)]
mod tests;
