//! Names to addresses, and which of them may be dialled (SECURITY.md P3).
//!
//! The agent resolves, checks every address of the answer, and dials one that it checked; nothing is looked up twice. An
//! address that the customer wrote literally is the customer's word. An address that only a name leads to must pass
//! [`super::address`], and one that does not refuses the whole answer: a name server that mixes addresses is not to be
//! believed on the rest.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fairlead_runtime::tasks::TaskGroup;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::address::{Forbidden, Surroundings, admit};
use crate::config::TcpUpstream;

/// Looking up one name, the wait for a place included.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// Lookups at a time. The system's resolver cannot be cancelled: each holds a thread until it gives up by itself.
const LOOKUPS: usize = 16;
/// Addresses of one answer that are looked at; a longer answer is refused whole.
const ANSWER_LIMIT: usize = 64;

/// What a lookup gives: every address, or the system's reason.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Asks the system, or in tests something that lies like a hostile name server.
pub trait Resolver: Send + Sync {
    /// All addresses of `host`.
    fn lookup<'a>(&'a self, host: &'a str) -> Lookup<'a>;
}

/// The resolver of the device.
#[derive(Clone, Debug)]
pub struct SystemResolver {
    tasks: TaskGroup,
    places: Arc<Semaphore>,
}

impl SystemResolver {
    /// A resolver whose threads belong to `tasks`.
    pub fn new(tasks: TaskGroup) -> Self {
        Self {
            tasks,
            places: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }
}

impl Resolver for SystemResolver {
    fn lookup<'a>(&'a self, host: &'a str) -> Lookup<'a> {
        Box::pin(async move {
            let place = Arc::clone(&self.places);
            let place = place.acquire_owned().await.map_err(io::Error::other)?;
            let host = host.to_owned();
            let work = move || {
                // Kept until the system's resolver is done, also when nobody waits for it any more.
                let _place = place;
                let found = (host.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            };
            self.tasks
                .blocking("lookup", work)
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)))
        })
    }
}

/// Why an upstream's name gives no address to dial. For the agent's own log and audit.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The lookup failed.
    #[error("`{host}` cannot be resolved: {source}")]
    Lookup {
        /// The name in the file.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The lookup took too long.
    #[error("`{host}` was not resolved within 5 s")]
    TimedOut {
        /// The name in the file.
        host: String,
    },
    /// The answer is empty or too long to be honest.
    #[error("`{host}` has {count} addresses; 1 to 64 are accepted")]
    Count {
        /// The name in the file.
        host: String,
        /// How many came.
        count: usize,
    },
    /// One address of the answer may not be dialled, so none is.
    #[error("`{host}` resolves to {address}, which may not be dialled: {why}")]
    Forbidden {
        /// The name in the file.
        host: String,
        /// The address, as it came.
        address: IpAddr,
        /// The rule it breaks.
        why: Forbidden,
    },
    /// This host's own addresses are not known, so none can be told apart from them.
    #[error("this host's own addresses cannot be read: {0}")]
    Surroundings(io::Error),
}

impl ResolveError {
    /// The name of the reason in the agent's own audit.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lookup { .. } | Self::TimedOut { .. } => "lookup-failed",
            Self::Count { count: 0, .. } => "lookup-failed",
            Self::Count { .. } | Self::Forbidden { .. } | Self::Surroundings(_) => "address-refused",
        }
    }
}

/// The addresses of an upstream that may be dialled, in the resolver's order. `surroundings` is asked after the answer
/// came, and only for a name.
///
/// # Errors
/// See [`ResolveError`].
pub async fn resolve(
    upstream: &TcpUpstream,
    resolver: &dyn Resolver,
    surroundings: impl FnOnce() -> io::Result<Surroundings> + Send,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let host = upstream.host.as_str();
    if let Some(literal) = upstream.literal() {
        return Ok(vec![SocketAddr::new(literal, upstream.port)]);
    }
    let answer = match timeout(LOOKUP_LIMIT, resolver.lookup(host)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(source)) => {
            return Err(ResolveError::Lookup {
                host: host.into(),
                source,
            });
        }
        Err(_) => return Err(ResolveError::TimedOut { host: host.into() }),
    };
    if answer.is_empty() || answer.len() > ANSWER_LIMIT {
        return Err(ResolveError::Count {
            host: host.into(),
            count: answer.len(),
        });
    }
    let surroundings = surroundings().map_err(ResolveError::Surroundings)?;
    let mut checked = Vec::with_capacity(answer.len());
    for address in answer {
        let admitted = admit(address, &upstream.allow_cidrs, &surroundings);
        let admitted = admitted.map_err(|why| ResolveError::Forbidden {
            host: host.into(),
            address,
            why,
        })?;
        checked.push(SocketAddr::new(admitted, upstream.port));
    }
    Ok(checked)
}

#[cfg(test)]
mod tests;
