//! A connection: streams are opened and accepted on it, and it is closed with a reason.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::VarInt;

use super::websocket::WebSocket;
use super::{Closed, Kind, Receiver, Sender};

/// An authenticated connection to a peer. Clones are the same connection.
#[derive(Clone, Debug)]
pub enum Connection {
    /// Over QUIC.
    Quic(quinn::Connection),
    /// Over WebSocket.
    WebSocket(WebSocket),
}

/// The TLS connection has no secret to export; it never happens after a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the TLS connection exports no keying material")]
pub struct NoKeyingMaterial;

impl Connection {
    /// Opens a stream, waiting while the peer lets no further one be open. The peer hears of it with its first byte.
    /// Cancel safe.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn open(&self) -> Result<(Sender, Receiver), Closed> {
        match self {
            Self::Quic(connection) => {
                let (send, receive) = connection.open_bi().await?;
                Ok((Sender::Quic(send), Receiver::Quic(receive)))
            }
            Self::WebSocket(connection) => {
                let (send, receive) = connection.open().await?;
                Ok((Sender::WebSocket(send), Receiver::WebSocket(receive)))
            }
        }
    }

    /// How long [`Self::open`] may take: the peer lets only so many streams be open, and a place must come free within this.
    /// Over WebSocket it may have to dial first, which takes four round trips.
    pub fn opens_within(&self) -> Duration {
        match self {
            Self::Quic(_) => Duration::from_secs(2),
            Self::WebSocket(_) => Duration::from_secs(6),
        }
    }

    /// Waits for a stream that the peer opens. Cancel safe.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn accept(&self) -> Result<(Sender, Receiver), Closed> {
        match self {
            Self::Quic(connection) => {
                let (send, receive) = connection.accept_bi().await?;
                Ok((Sender::Quic(send), Receiver::Quic(receive)))
            }
            Self::WebSocket(connection) => {
                let (send, receive) = connection.accept().await?;
                Ok((Sender::WebSocket(send), Receiver::WebSocket(receive)))
            }
        }
    }

    /// How many streams the peer may have open from now on: `count` at any time, and up to a seventh more, which whoever
    /// accepts them turns away. Each costs memory, used or not.
    pub fn permit_streams(&self, count: u32) {
        match self {
            Self::Quic(connection) => {
                // quinn tells the peer of streams that ended only once they are more than an eighth of what it permits.
                let withheld = count.div_ceil(7);
                connection.set_max_concurrent_bi_streams(VarInt::from_u32(count.saturating_add(withheld)));
            }
            Self::WebSocket(connection) => connection.permit_streams(count),
        }
    }

    /// How many bytes the peer may have in flight from now on, over all its streams together.
    pub fn permit_bytes(&self, count: u32) {
        match self {
            Self::Quic(connection) => connection.set_receive_window(VarInt::from_u32(count)),
            // Each stream has a TCP connection of its own, and the kernel's windows.
            Self::WebSocket(_) => {}
        }
    }

    /// Ends the connection and every stream on it; the peer is told `code` and `text`, unless it is closed already.
    pub fn close(&self, code: u32, text: &str) {
        match self {
            Self::Quic(connection) => connection.close(VarInt::from_u32(code), text.as_bytes()),
            Self::WebSocket(connection) => connection.close(code, text),
        }
    }

    /// Waits for the end. Cancel safe.
    pub async fn closed(&self) -> Closed {
        match self {
            Self::Quic(connection) => connection.closed().await.into(),
            Self::WebSocket(connection) => connection.closed().await,
        }
    }

    /// How it ended; `None` while it stands.
    pub fn close_reason(&self) -> Option<Closed> {
        match self {
            Self::Quic(connection) => connection.close_reason().map(Closed::from),
            Self::WebSocket(connection) => connection.close_reason(),
        }
    }

    /// Where the peer's packets come from; changes when the peer moves.
    pub fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(connection) => connection.remote_address(),
            Self::WebSocket(connection) => connection.remote_address(),
        }
    }

    /// The round trip as far as it is known.
    pub fn rtt(&self) -> Option<Duration> {
        match self {
            Self::Quic(connection) => Some(connection.rtt()),
            Self::WebSocket(connection) => connection.rtt(),
        }
    }

    /// The largest packet that is known to pass, in bytes; `None` where the transport does not know.
    pub fn packet_size(&self) -> Option<u16> {
        match self {
            Self::Quic(connection) => Some(connection.stats().path.current_mtu),
            Self::WebSocket(_) => None,
        }
    }

    /// Packets sent so far, and those of them that were lost; `None` where the transport does not tell.
    pub fn lost(&self) -> Option<(u64, u64)> {
        match self {
            Self::Quic(connection) => {
                let path = connection.stats().path;
                Some((path.sent_packets, path.lost_packets))
            }
            Self::WebSocket(_) => None,
        }
    }

    /// How many packets have come so far, where the transport knows: one that has no more of them is about to be lost.
    pub fn packets_heard(&self) -> Option<u64> {
        match self {
            Self::Quic(connection) => Some(connection.stats().udp_rx.datagrams),
            Self::WebSocket(_) => None,
        }
    }

    /// Which transport it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Quic(_) => Kind::Quic,
            Self::WebSocket(_) => Kind::WebSocket,
        }
    }

    /// Fills `output` with keying material of this connection (RFC 8446 section 7.5), the same at both ends and at no other
    /// connection.
    ///
    /// # Errors
    /// [`NoKeyingMaterial`].
    pub fn export_keying_material(&self, output: &mut [u8], label: &[u8]) -> Result<(), NoKeyingMaterial> {
        match self {
            Self::Quic(connection) => connection
                .export_keying_material(output, label, b"")
                .map_err(|_| NoKeyingMaterial),
            Self::WebSocket(connection) => {
                let exported = connection.export(output, label);
                exported.then_some(()).ok_or(NoKeyingMaterial)
            }
        }
    }
}

impl From<quinn::Connection> for Connection {
    fn from(connection: quinn::Connection) -> Self {
        Self::Quic(connection)
    }
}

impl From<WebSocket> for Connection {
    fn from(connection: WebSocket) -> Self {
        Self::WebSocket(connection)
    }
}
