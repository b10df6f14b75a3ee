//! What is around this agent at the moment: its host's addresses, asked of the kernel, and where the gateway is.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::address::{Surroundings, canonical};

/// Addresses of gateways that are remembered; the oldest go first. An agent has at most four links.
const GATEWAYS: usize = 16;

/// Where the gateway was last found.
#[derive(Debug, Default)]
pub struct Neighbourhood {
    gateway: Mutex<Vec<IpAddr>>,
}

impl Neighbourhood {
    /// Remembers an address at which the gateway was dialled.
    pub fn gateway_is_at(&self, address: IpAddr) {
        let address = canonical(address);
        let mut known = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other| *other != address);
        known.push(address);
        let excess = known.len().saturating_sub(GATEWAYS);
        known.drain(..excess);
    }

    /// Reads this host's addresses anew: they change while the agent runs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn look(&self) -> io::Result<Surroundings> {
        let interfaces = getifaddrs().map_err(io::Error::from)?;
        let addresses = interfaces.flat_map(|interface| [interface.address, interface.broadcast]);
        Ok(Surroundings {
            own: addresses.flatten().filter_map(|address| ip(&address)).collect(),
            gateway: self.gateway.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        })
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    let v6: Ipv6Addr = address.as_sockaddr_in6()?.ip();
    Some(IpAddr::V6(v6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_knows_its_own_addresses() {
        let found = Neighbourhood::default().look().unwrap();
        assert!(found.own.contains(&"127.0.0.1".parse().unwrap()), "{found:?}");
    }

    #[test]
    fn the_latest_gateways_are_remembered() {
        let near = Neighbourhood::default();
        for last in 0..40_u8 {
            near.gateway_is_at(IpAddr::from([203, 0, 113, last]));
        }
        near.gateway_is_at("::ffff:203.0.113.39".parse().unwrap());
        let gateway = near.look().unwrap().gateway;
        assert_eq!(gateway.len(), GATEWAYS);
        assert_eq!(gateway.last(), Some(&IpAddr::from([203, 0, 113, 39])));
    }
}
