//! Dials an upstream: exactly the addresses that were checked.

use std::time::Duration;

use fairlead_runtime::relay;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::resolve::{ResolveError, Resolver, resolve};
use crate::config::TcpUpstream;

/// One address.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);
/// All addresses together; below the time the gateway waits for an answer.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// Why an upstream could not be reached. For the agent's own log and audit: it names addresses of the customer's network.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name gave no address to dial.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No address answered.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// All attempts together took too long.
    #[error("no address answered within 10 s")]
    TimedOut,
}

/// Connects to the first address that answers.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(upstream: &TcpUpstream, resolver: &dyn Resolver) -> Result<TcpStream, DialError> {
    timeout(DIAL_LIMIT, try_all(upstream, resolver))
        .await
        .unwrap_or(Err(DialError::TimedOut))
}

async fn try_all(upstream: &TcpUpstream, resolver: &dyn Resolver) -> Result<TcpStream, DialError> {
    let mut tried = Vec::new();
    for address in resolve(upstream, resolver).await? {
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
