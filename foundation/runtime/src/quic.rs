//! The QUIC settings both ends share: windows, idle time, keep-alive, socket buffers, and the keys that let a
//! restarted gateway reset the flows of its former life.
//!
//! TLS settings are made in the identity room and handed in; what travels on the streams belongs to the wire room.

mod bundle;
mod laned;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use congestion::PatientFactory;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, Socket, Type};

use laned::LanedRuntime;

/// Size asked for each UDP socket buffer, in bytes. The kernel's default (208 KiB) loses packets under load.
pub const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// How often a link looks whether its path takes larger packets by now (RFC 8899).
const LARGER_PACKETS_EVERY: Duration = Duration::from_secs(12 * 3600);
/// What one stream may have in flight, in bytes. A larger window buys throughput on long paths (1 MiB at 50 ms is
/// 20 MiB/s) and costs as much memory per stalled session.
pub const STREAM_WINDOW: u32 = 1024 * 1024;
/// What one connection may have in flight, in bytes, each way.
pub const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Streams an agent lets its gateway have open at first; it may raise the number while running. quinn pays memory for
/// each permitted stream when the connection starts, so this is small.
pub const AGENT_STREAMS: u32 = 128;
/// Streams a gateway lets a peer have open before it knows who it is.
pub const GATEWAY_STREAMS: u32 = 8;
/// Longest silence before a link counts as lost.
pub const IDLE: Duration = Duration::from_secs(12);
/// How often the dialling side speaks when there is nothing to say.
pub const KEEP_ALIVE: Duration = Duration::from_secs(7);
/// [`IDLE`] of an agent on a metered link, and the longest a gateway grants anybody.
pub const SAVER_IDLE: Duration = Duration::from_secs(60);
/// [`KEEP_ALIVE`] of an agent on a metered link.
pub const SAVER_KEEP_ALIVE: Duration = Duration::from_secs(25);
/// Connections that wait for their first decision, at most; packets of later ones are dropped. Above what a gateway lets
/// wait for a slot, so that each is decided on.
const MAX_INCOMING: usize = 1536;
/// Bytes kept of a connection that waits for its first decision, and of all of them.
const INCOMING_BUFFER: u64 = 16 * 1024;
const INCOMING_BUFFER_TOTAL: u64 = 8 * 1024 * 1024;
/// Handshake bytes kept that came out of order, per connection and level: as much as a certificate chain may have. What
/// comes in order goes to TLS, which takes messages of up to 64 KiB.
const HANDSHAKE_BUFFER: usize = 16 * 1024;
/// Shortest time between two stateless resets: a thousand a second tells a restarted gateway's fleet within seconds,
/// and is still no amplifier (a reset is smaller than the packet it answers).
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// Which end of a connection the settings are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepts connections.
    Gateway,
    /// Dials and accepts streams.
    Agent,
    /// An agent on a metered link: fewer keep-alives, slower to notice a loss.
    SavingAgent,
    /// Dials and opens streams.
    Caller,
}

/// Returns the transport settings of one end.
///
/// The time of silence a connection survives is the smaller of what both ends grant: the gateway grants
/// [`SAVER_IDLE`], so the dialling side decides.
pub fn transport(role: Role) -> TransportConfig {
    let (streams, idle, keep_alive) = match role {
        Role::Gateway => (GATEWAY_STREAMS, SAVER_IDLE, None),
        Role::Agent => (AGENT_STREAMS, IDLE, Some(KEEP_ALIVE)),
        Role::SavingAgent => (AGENT_STREAMS, SAVER_IDLE, Some(SAVER_KEEP_ALIVE)),
        Role::Caller => (0, IDLE, Some(KEEP_ALIVE)),
    };
    let idle_ms = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
    let mut packets = MtuDiscoveryConfig::default();
    // Of what an idle link on a meter sends, probes every ten minutes (the default) would be a third.
    packets.interval(LARGER_PACKETS_EVERY);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(VarInt::from_u32(idle_ms).into()))
        .keep_alive_interval(keep_alive)
        .mtu_discovery_config(Some(packets))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .congestion_controller_factory(Arc::new(PatientFactory::default()))
        .crypto_buffer_size(HANDSHAKE_BUFFER)
        .datagram_receive_buffer_size(None);
    transport
}

/// Returns a gateway's settings around its TLS settings, with bounds on what waits before the first decision.
pub fn server_config(tls: QuicServerConfig) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport(Role::Gateway)))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
    config
}

/// Returns a dialling side's settings around its TLS settings.
pub fn client_config(tls: QuicClientConfig, role: Role) -> quinn::ClientConfig {
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport(role)));
    config
}

/// Returns a gateway's endpoint settings from the 64 secret bytes it keeps in its state directory.
///
/// With the same bytes after a restart, packets of flows that the former process knew are answered by a stateless
/// reset (RFC 9000, section 10.3), so peers dial again at once instead of waiting out [`IDLE`].
pub fn endpoint_config(reset_key: &[u8; 64]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset_key)));
    let cid_key = connection_id_key(reset_key);
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)))
        .min_reset_interval(RESET_INTERVAL);
    config
}

/// Binds a UDP socket with buffers of [`SOCKET_BUFFER`]; an IPv6 wildcard also takes IPv4. Logs a warning where the
/// kernel gives less.
///
/// # Errors
/// The operating system's, of binding.
pub fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    enlarge_buffers(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Makes a quinn endpoint on `socket`, inside a tokio runtime. `server` is the accepting side's settings. Connections
/// that are accepted in a [lane](crate::lane) stay in it until their pass is released.
///
/// # Errors
/// The operating system's, of registering the socket.
pub fn endpoint(
    socket: UdpSocket,
    config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> io::Result<quinn::Endpoint> {
    quinn::Endpoint::new(config, server, socket, Arc::new(LanedRuntime))
}

/// A digest, not the key's own bytes: connection ids are public and their hash is not made to hide its key.
fn connection_id_key(reset_key: &[u8; 64]) -> u64 {
    let digest = Sha256::new()
        .chain_update(b"connection ids")
        .chain_update(reset_key)
        .finalize();
    digest.iter().take(8).fold(0, |key, byte| (key << 8) | u64::from(*byte))
}

fn enlarge_buffers(socket: &Socket) {
    // A refusal leaves the default, which the check below reports.
    drop(socket.set_recv_buffer_size(SOCKET_BUFFER));
    drop(socket.set_send_buffer_size(SOCKET_BUFFER));
    let receive = socket.recv_buffer_size().unwrap_or_default();
    let send = socket.send_buffer_size().unwrap_or_default();
    if receive < SOCKET_BUFFER || send < SOCKET_BUFFER {
        tracing::warn!(
            receive_bytes = receive,
            send_bytes = send,
            wanted_bytes = SOCKET_BUFFER,
            "the kernel limits UDP socket buffers: raise net.core.rmem_max and net.core.wmem_max"
        );
    }
}

mod congestion;
#[cfg(test)]
pub(crate) mod loopback;
#[cfg(test)]
mod tests;
