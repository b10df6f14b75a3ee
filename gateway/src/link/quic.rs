//! The UDP side of the one port, and the key that outlives a restart.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use fairlead_runtime::config_file::write_private;
use fairlead_runtime::quic;
use quinn::crypto::rustls::QuicServerConfig;

/// Lets a restarted gateway tell its agents at once that their connections are gone (stateless reset, RFC 9000 section
/// 10.3), instead of leaving them to the idle timeout.
pub struct ResetKey([u8; 64]);

impl ResetKey {
    /// Reads the key from `path`, or makes it there (mode 0600).
    ///
    /// # Errors
    /// When the file cannot be read or written, or has another length.
    pub fn load_or_create(path: &Path) -> anyhow::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => match <[u8; 64]>::try_from(bytes) {
                Ok(key) => Ok(Self(key)),
                Err(_) => bail!(
                    "{} is damaged (64 bytes expected): delete it; agents then notice this restart later",
                    path.display()
                ),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut key = [0_u8; 64];
                rand::fill(&mut key);
                write_private(path, &key, 0o600)?;
                Ok(Self(key))
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// Binds the UDP side.
///
/// # Errors
/// When the address is in use or not ours, or the TLS settings do not suit QUIC.
pub fn bind(listen: SocketAddr, tls: Arc<rustls::ServerConfig>, key: &ResetKey) -> anyhow::Result<quinn::Endpoint> {
    let socket = quic::socket(listen).with_context(|| format!("cannot listen on UDP {listen}"))?;
    adopt(socket, tls, key)
}

/// Takes a UDP socket that is bound.
///
/// # Errors
/// When the socket cannot be used, or the TLS settings do not suit QUIC.
pub fn adopt(socket: UdpSocket, tls: Arc<rustls::ServerConfig>, key: &ResetKey) -> anyhow::Result<quinn::Endpoint> {
    let crypto = QuicServerConfig::try_from(tls).context("the TLS settings have no cipher suite for QUIC")?;
    let endpoint = quic::endpoint(socket, quic::endpoint_config(&key.0), Some(quic::server_config(crypto)));
    endpoint.context("cannot start QUIC")
}
