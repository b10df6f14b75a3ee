//! Names to addresses, and which of them may be dialled (SECURITY.md P3).
//!
//! The agent resolves, checks every address of the answer, and dials one that it checked; nothing is looked up twice. An
//! address that the customer wrote literally is the customer's word. An address that only a name leads to must not be
//! this host, its link, a metadata service or a multicast group, and must lie in `allow_cidrs` where the file gives them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::timeout;

use crate::config::TcpUpstream;

/// Looking up one name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// Addresses of one answer that are looked at; a longer answer is refused whole.
const ANSWER_LIMIT: usize = 64;

/// Asks the system, or in tests something that lies like a hostile name server.
pub trait Resolver: Send + Sync {
    /// All addresses of `host`.
    fn lookup<'a>(&'a self, host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;
}

/// The resolver of the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn lookup<'a>(&'a self, host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(async move {
            Ok(tokio::net::lookup_host((host, 0))
                .await?
                .map(|address| address.ip())
                .collect())
        })
    }
}

/// Why an upstream's name gives no address to dial.
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
        /// The address.
        address: IpAddr,
        /// The rule it breaks.
        why: &'static str,
    },
}

/// The addresses of an upstream that may be dialled, in the resolver's order.
///
/// # Errors
/// See [`ResolveError`]. One forbidden address refuses the whole answer: a name server that mixes addresses is not to be
/// believed on the rest.
pub async fn resolve(upstream: &TcpUpstream, resolver: &dyn Resolver) -> Result<Vec<SocketAddr>, ResolveError> {
    let host = upstream.host.as_str();
    if let Ok(literal) = host.parse::<IpAddr>() {
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
    let mut checked = Vec::with_capacity(answer.len());
    for address in answer {
        let address = canonical(address);
        if let Err(why) = check(address, &upstream.allow_cidrs) {
            return Err(ResolveError::Forbidden {
                host: host.into(),
                address,
                why,
            });
        }
        checked.push(SocketAddr::new(address, upstream.port));
    }
    Ok(checked)
}

/// The IPv4 address inside an IPv6 one, where there is one: mapped (RFC 4291), compatible, NAT64 (RFC 6052), 6to4
/// (RFC 3056); so that no spelling of an address escapes its check.
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        (0x64, 0xff9b, 0, 0, 0, 0) => embedded(g, h),
        (0, 0, 0, 0, 0, 0) if g != 0 => embedded(g, h),
        (0x2002, high, low, ..) => embedded(high, low),
        _ => address,
    }
}

fn check(address: IpAddr, allow_cidrs: &[IpNet]) -> Result<(), &'static str> {
    match address {
        IpAddr::V4(v4) => check_v4(v4)?,
        IpAddr::V6(v6) => check_v6(v6)?,
    }
    if allow_cidrs.is_empty() || allow_cidrs.iter().any(|range| range.contains(&address)) {
        Ok(())
    } else {
        Err("it is outside allow_cidrs")
    }
}

fn check_v4(address: Ipv4Addr) -> Result<(), &'static str> {
    match address.octets() {
        [0, ..] => Err("0.0.0.0/8 is this host"),
        [127, ..] => Err("loopback; write it literally if it is meant"),
        [169, 254, ..] => Err("link-local and metadata services; write it literally if it is meant"),
        [224..=239, ..] => Err("multicast"),
        [255, 255, 255, 255] => Err("broadcast"),
        _ => Ok(()),
    }
}

fn check_v6(address: Ipv6Addr) -> Result<(), &'static str> {
    if address.is_unspecified() || address.is_loopback() {
        Err("loopback; write it literally if it is meant")
    } else if address.is_multicast() {
        Err("multicast")
    } else if address.is_unicast_link_local() {
        Err("link-local; write it literally if it is meant")
    } else if address.segments().starts_with(&[0xfd00, 0xec2]) {
        Err("metadata services; write it literally if it is meant")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
