//! Sockets that the service manager bound before this program began (systemd's socket activation, sd_listen_fds(3)): how a
//! program without capabilities gets a port below 1024.
//!
//! What is listened on is decided by the unit then, not by the program's own file.

use std::io;
use std::net::{TcpListener, UdpSocket};

/// One TCP and one UDP socket, not blocking.
#[derive(Debug)]
pub struct Inherited {
    /// Listens for callers.
    pub tcp: TcpListener,
    /// Receives datagrams.
    pub udp: UdpSocket,
}

/// Why what was handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// The unit names something else.
    #[error(
        "the service manager handed over {streams} TCP and {datagrams} UDP sockets; the .socket unit must have exactly one \
         ListenStream= and one ListenDatagram=, with one port"
    )]
    Sockets {
        /// How many listening TCP sockets.
        streams: usize,
        /// How many UDP sockets.
        datagrams: usize,
    },
    /// The system refuses to use one.
    #[error("a socket of the service manager cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// Takes the sockets that were handed to this process; `None` when there are none. A second call finds none.
///
/// # Errors
/// [`ActivationError`] when they are not one of each kind.
pub fn take() -> Result<Option<Inherited>, ActivationError> {
    let mut handed = listenfd::ListenFd::from_env();
    if handed.len() == 0 {
        return Ok(None);
    }
    let (mut streams, mut datagrams) = (Vec::new(), Vec::new());
    for index in 0..handed.len() {
        // Asked as one kind, a socket of the other is left in its place.
        match handed.take_tcp_listener(index) {
            Ok(socket) => streams.extend(socket),
            Err(_) => datagrams.extend(handed.take_udp_socket(index)?),
        }
    }
    match (
        <[TcpListener; 1]>::try_from(streams),
        <[UdpSocket; 1]>::try_from(datagrams),
    ) {
        (Ok([tcp]), Ok([udp])) => {
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            Ok(Some(Inherited { tcp, udp }))
        }
        (streams, datagrams) => Err(ActivationError::Sockets {
            streams: streams.map_or_else(|several| several.len(), |one| one.len()),
            datagrams: datagrams.map_or_else(|several| several.len(), |one| one.len()),
        }),
    }
}
