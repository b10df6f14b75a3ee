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

/// The settings of the UDP side around its TLS settings.
///
/// # Errors
/// When the TLS settings do not suit QUIC.
pub fn settings(tls: Arc<rustls::ServerConfig>) -> anyhow::Result<quinn::ServerConfig> {
    Ok(quic::server_config(crypto(tls)?))
}

/// The same settings with other TLS settings; the key of address tokens stays, so that a Retry on its way is good.
///
/// # Errors
/// When the TLS settings do not suit QUIC.
pub fn with_tls(settings: &quinn::ServerConfig, tls: Arc<rustls::ServerConfig>) -> anyhow::Result<quinn::ServerConfig> {
    let mut settings = settings.clone();
    settings.crypto = Arc::new(crypto(tls)?);
    Ok(settings)
}

fn crypto(tls: Arc<rustls::ServerConfig>) -> anyhow::Result<QuicServerConfig> {
    QuicServerConfig::try_from(tls).context("the TLS settings have no cipher suite for QUIC")
}

/// Binds the UDP side.
///
/// # Errors
/// When the address is in use or not ours.
pub fn bind(listen: SocketAddr, settings: quinn::ServerConfig, key: &ResetKey) -> anyhow::Result<quinn::Endpoint> {
    let socket = quic::socket(listen).with_context(|| format!("cannot listen on UDP {listen}"))?;
    adopt(socket, settings, key)
}

/// Takes a UDP socket that is bound.
///
/// # Errors
/// When the socket cannot be used.
pub fn adopt(socket: UdpSocket, settings: quinn::ServerConfig, key: &ResetKey) -> anyhow::Result<quinn::Endpoint> {
    let endpoint = quic::endpoint(socket, quic::endpoint_config(&key.0), Some(settings));
    endpoint.context("cannot start QUIC")
}
