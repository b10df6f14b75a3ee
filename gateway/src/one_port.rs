//! The one port: a TCP and a UDP socket of the same number, bound here or by systemd.

use std::net::SocketAddr;

use anyhow::Context;
use fairlead_runtime::activation;
use tokio::net::TcpListener;

use crate::config::Dedicated;
use crate::link::{self, ResetKey};

/// How often a port is tried again when port 0 was asked for and only one of TCP and UDP was free.
const PORT_TRIES: usize = 16;

/// The ports beside the one port, in the order of the file.
///
/// # Errors
/// When one is taken.
pub(crate) async fn bind_beside(listeners: &[Dedicated]) -> anyhow::Result<Vec<TcpListener>> {
    let mut sockets = Vec::new();
    for Dedicated { protocol, listen } in listeners {
        let socket = TcpListener::bind(listen).await;
        sockets.push(socket.with_context(|| format!("cannot listen on TCP {listen} for {protocol}"))?);
    }
    Ok(sockets)
}

/// Both sockets: as systemd bound them, else by `listen`.
///
/// # Errors
/// When the port is taken, or what systemd handed over is not this pair.
pub(crate) async fn bind(
    listen: SocketAddr,
    settings: &quinn::ServerConfig,
    key: &ResetKey,
) -> anyhow::Result<(TcpListener, quinn::Endpoint)> {
    if let Some(inherited) = activation::take()? {
        let quic = link::adopt(inherited.udp, settings.clone(), key)?;
        return Ok((TcpListener::from_std(inherited.tcp)?, quic));
    }
    let mut tries = 0;
    loop {
        let tcp = TcpListener::bind(listen).await.with_context(|| {
            format!("cannot listen on TCP {listen}: choose another `listen`, or end what uses the port")
        })?;
        match link::bind(tcp.local_addr()?, settings.clone(), key) {
            Ok(quic) => return Ok((tcp, quic)),
            Err(_) if listen.port() == 0 && tries < PORT_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}
