//! A handshake over QUIC.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use fairlead_identity::tls;
use fairlead_runtime::quic::{self, Role};
use fairlead_runtime::transport::Connection;
use quinn::crypto::rustls::QuicClientConfig;

use super::Failure;

pub(super) async fn connect(
    address: SocketAddr,
    domain: &str,
    settings: &Arc<rustls::ClientConfig>,
    role: Role,
) -> Result<Connection, Failure> {
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
    connecting.await.map(Connection::from).map_err(|error| Failure {
        by_certificate: tls_alert(&error).is_some(),
        expired: tls_alert(&error) == Some(45),
        text: in_words(&error),
    })
}

/// With the stable name of the refusal where it is ours. For what TLS has no alert for, quinn says so in the text.
fn in_words(error: &quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::TransportError(found)
            if tls_alert(error).is_some() || found.reason.starts_with("TLS error") =>
        {
            format!("refused ({}): {error}", tls::handshake_refusal(&found.reason))
        }
        _ => error.to_string(),
    }
}

/// TLS alerts travel as QUIC errors 0x100 to 0x1ff (RFC 9001 section 4.8).
fn tls_alert(error: &quinn::ConnectionError) -> Option<u64> {
    let code = match error {
        quinn::ConnectionError::TransportError(error) => u64::from(error.code),
        quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        _ => return None,
    };
    code.checked_sub(0x100).filter(|alert| *alert < 0x100)
}
