//! Dials an upstream: exactly the addresses that were checked.

use std::net::SocketAddr;
use std::time::Duration;

use fairlead_runtime::relay;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// One address.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);

/// Why an upstream could not be reached. For the agent's own log and audit: it names addresses of the customer's network.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No address answered.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// All attempts together took too long.
    #[error("no address answered in time")]
    TimedOut,
}

/// Connects to the first of the checked `addresses` that answers, by `deadline` at the latest.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, DialError> {
    timeout_at(deadline, try_all(addresses))
        .await
        .unwrap_or(Err(DialError::TimedOut))
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
