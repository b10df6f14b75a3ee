//! Dialling a gateway over QUIC: every address of every name, one after the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fairlead_identity::tls;
use fairlead_runtime::quic::{self, Role};
use fairlead_runtime::transport::Connection;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::timeout;

/// One handshake with one address.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Looking up one name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// Addresses tried of one name.
const ADDRESSES_PER_NAME: usize = 8;

/// Why no gateway could be reached; says each address and what happened there.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the gateway over QUIC (UDP): {tried}")]
pub struct DialError {
    /// Address and reason, joined for one line.
    pub tried: String,
    /// Whether at least one gateway answered and refused us by its certificate or ours, so that retrying alone
    /// does not help.
    pub refused: bool,
}

/// Connects to the first of `gateways` (`host:port`) that completes a handshake as `domain`.
///
/// # Errors
/// [`DialError`] when none did.
pub async fn dial(
    gateways: &[String],
    domain: &str,
    settings: &Arc<rustls::ClientConfig>,
    role: Role,
) -> Result<Connection, DialError> {
    let mut tried = Vec::new();
    let mut refused = false;
    for gateway in gateways.iter().take(4) {
        let addresses = match timeout(LOOKUP_LIMIT, tokio::net::lookup_host(gateway.as_str())).await {
            Ok(Ok(addresses)) => addresses.take(ADDRESSES_PER_NAME).collect::<Vec<_>>(),
            Ok(Err(error)) => {
                tried.push(format!("{gateway}: {error}"));
                continue;
            }
            Err(_) => {
                tried.push(format!("{gateway}: the name was not resolved within 5 s"));
                continue;
            }
        };
        for address in addresses {
            match connect(address, domain, settings, role).await {
                Ok(connection) => return Ok(connection.into()),
                Err(Failure { text, by_certificate }) => {
                    refused |= by_certificate;
                    tried.push(format!("{address}: {text}"));
                }
            }
        }
    }
    Err(DialError {
        tried: if tried.is_empty() {
            "no address is configured".into()
        } else {
            tried.join("; ")
        },
        refused,
    })
}

struct Failure {
    text: String,
    by_certificate: bool,
}

impl Failure {
    fn plain(error: &dyn std::fmt::Display) -> Self {
        Self {
            text: error.to_string(),
            by_certificate: false,
        }
    }
}

async fn connect(
    address: SocketAddr,
    domain: &str,
    settings: &Arc<rustls::ClientConfig>,
    role: Role,
) -> Result<quinn::Connection, Failure> {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = quic::socket(SocketAddr::new(any, 0)).map_err(|error| Failure::plain(&error))?;
    let endpoint =
        quic::endpoint(socket, quinn::EndpointConfig::default(), None).map_err(|error| Failure::plain(&error))?;
    let crypto = QuicClientConfig::try_from(Arc::clone(settings)).map_err(|error| Failure::plain(&error))?;
    let connecting = endpoint
        .connect_with(quic::client_config(crypto, role), address, domain)
        .map_err(|error| Failure::plain(&error))?;
    match timeout(HANDSHAKE_LIMIT, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(Failure {
            by_certificate: is_tls_refusal(&error),
            text: in_words(&error),
        }),
        Err(_) => Err(Failure {
            text: "no answer within 5 s (is UDP blocked?)".into(),
            by_certificate: false,
        }),
    }
}

/// With the stable name of the refusal where it is ours. For what TLS has no alert for, quinn says so in the text.
fn in_words(error: &quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::TransportError(found)
            if is_tls_refusal(error) || found.reason.starts_with("TLS error") =>
        {
            format!("refused ({}): {error}", tls::handshake_refusal(&found.reason))
        }
        _ => error.to_string(),
    }
}

/// TLS alerts travel as QUIC errors 0x100 to 0x1ff (RFC 9001 section 4.8).
fn is_tls_refusal(error: &quinn::ConnectionError) -> bool {
    let code = match error {
        quinn::ConnectionError::TransportError(error) => u64::from(error.code),
        quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        _ => return false,
    };
    (0x100..0x200).contains(&code)
}
