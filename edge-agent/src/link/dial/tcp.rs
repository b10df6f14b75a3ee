//! A TCP connection to a gateway, straight or through a proxy.

use std::fmt;
use std::net::SocketAddr;

use fairlead_runtime::relay;
use tokio::net::TcpStream;

use super::{Failure, Proxy};

/// Where a TCP connection is to lead.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// To this address.
    Direct(SocketAddr),
    /// To a gateway, `host:port`, whose name the proxy looks up.
    Behind(Box<Proxy>, String),
}

impl Target {
    pub(super) fn behind(proxy: Proxy, gateway: &str) -> Self {
        Self::Behind(Box::new(proxy), gateway.to_owned())
    }

    /// Connects; returns the address that was dialled, a proxy's where there is one.
    pub(super) async fn connect(&self) -> Result<(TcpStream, SocketAddr), Failure> {
        let stream = match self {
            Self::Direct(address) => TcpStream::connect(address)
                .await
                .map_err(|error| Failure::plain(&error))?,
            Self::Behind(proxy, gateway) => proxy.connect(gateway).await.map_err(|error| Failure::plain(&error))?,
        };
        relay::prepare(&stream).map_err(|error| Failure::plain(&error))?;
        let address = stream.peer_addr().map_err(|error| Failure::plain(&error))?;
        Ok((stream, address))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) => write!(f, "{address}"),
            Self::Behind(proxy, gateway) => write!(f, "{gateway} through {proxy}"),
        }
    }
}
