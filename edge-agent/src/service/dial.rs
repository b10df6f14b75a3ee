//! Dials an upstream: exactly the addresses that were checked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_identity::name::Protocol;
use fairlead_identity::tls;
use fairlead_protocol::postgres;
use fairlead_runtime::relay;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{TcpUpstream, UpstreamTls};

/// One address.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);

/// Why an upstream could not be reached. For the agent's own log and audit: it names addresses of the customer's network.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No address answered.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The upstream's TLS is not what the file asks for.
    #[error("TLS with {0}")]
    Tls(String),
    /// All attempts together took too long.
    #[error("no address answered in time")]
    TimedOut,
}

/// A connection to an upstream.
#[derive(Debug)]
pub enum Dialled {
    /// As it is.
    Plain(TcpStream),
    /// Inside TLS, trusted as the file says.
    Tls(Box<TlsStream<TcpStream>>),
}

/// How far a connection to an upstream can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The upstream has proven itself by TLS, against a CA of the customer's choice.
    Proven,
    /// It is on this machine.
    OwnMachine,
    /// Somebody in between may be it.
    None,
}

/// What is known of a connection to an upstream.
#[derive(Clone, Debug)]
pub struct Channel {
    /// How far it can be relied on.
    pub trust: Trust,
    /// What ties a login to it: `tls-server-end-point` (RFC 5929). `None` without TLS.
    pub binding: Option<Vec<u8>>,
}

impl Dialled {
    /// What is known of it, by what the file says of this upstream.
    pub fn channel(&self, upstream: &TcpUpstream) -> Channel {
        let (tcp, certificate) = match self {
            Self::Plain(tcp) => (tcp, None),
            Self::Tls(tls) => {
                let (tcp, session) = tls.get_ref();
                (tcp, session.peer_certificates().and_then(<[_]>::first))
            }
        };
        let is_own = tcp.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        let trust = if upstream.tls.as_ref().is_some_and(UpstreamTls::proves) {
            Trust::Proven
        } else if is_own {
            Trust::OwnMachine
        } else {
            Trust::None
        };
        Channel {
            trust,
            binding: certificate.and_then(tls::server_end_point),
        }
    }
}

/// Connects to the first of the checked `addresses` that answers, and speaks TLS where the file says so, by `deadline` at
/// the latest.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(
    upstream: &TcpUpstream,
    protocol: Protocol,
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<Dialled, DialError> {
    let dialled = async {
        let mut stream = try_all(addresses).await?;
        if upstream.tls.is_some() && protocol == Protocol::Postgres {
            ask_postgres_for_tls(&mut stream).await?;
        }
        match &upstream.tls {
            None => Ok(Dialled::Plain(stream)),
            Some(wanted) => Ok(Dialled::Tls(Box::new(secure(upstream, wanted, stream).await?))),
        }
    };
    timeout_at(deadline, dialled).await.unwrap_or(Err(DialError::TimedOut))
}

/// A database speaks TLS once it was asked in its own protocol.
async fn ask_postgres_for_tls(stream: &mut TcpStream) -> Result<(), DialError> {
    let failed = |error: std::io::Error| DialError::Tls(format!("the database: {error}"));
    stream.write_all(&postgres::tls_request()).await.map_err(failed)?;
    // One byte and no more: what follows belongs to the handshake.
    let mut answer = [0];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    if answer == postgres::ACCEPT_TLS {
        Ok(())
    } else {
        Err(DialError::Tls("the database: it does not speak TLS".into()))
    }
}

/// The TLS handshake with an upstream; the name to be proven is the one in the file.
async fn secure(
    upstream: &TcpUpstream,
    tls: &UpstreamTls,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, DialError> {
    let failed = |error: &dyn std::fmt::Display| DialError::Tls(format!("{}: {error}", upstream.host));
    let name = ServerName::try_from(upstream.host.clone()).map_err(|error| failed(&error))?;
    let connector = TlsConnector::from(Arc::clone(tls.settings()));
    connector.connect(name, stream).await.map_err(|error| failed(&error))
}

async fn try_all(addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut tried = Vec::new();
    for address in addresses {
        match timeout(ADDRESS_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                if let Err(error) = relay::prepare(&stream) {
                    tracing::debug!(%address, %error, "cannot set socket options");
                }
                return Ok(stream);
            }
            Ok(Err(error)) => tried.push(format!("{address}: {error}")),
            Err(_) => tried.push(format!("{address}: no answer within 5 s")),
        }
    }
    Err(DialError::Connect(tried.join("; ")))
}
