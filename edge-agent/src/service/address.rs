//! What an IP address means: its one canonical spelling, the IPv4 addresses that it hides, and whether a name may lead to it.
//!
//! Pure: the surroundings (this host's own addresses, the gateway's) are arguments. The rules are those of SECURITY.md P3.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses that are special here and nowhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// This host's own: those of its interfaces, and their broadcast addresses.
    pub own: Vec<IpAddr>,
    /// The gateway's, as last dialled.
    pub gateway: Vec<IpAddr>,
}

/// Why a name may not lead to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// 0.0.0.0/8 and `::`: this host.
    ThisHost,
    /// 127.0.0.0/8 and `::1`.
    Loopback,
    /// 169.254.0.0/16 and fe80::/10.
    LinkLocal,
    /// Where clouds keep credentials for whoever asks from inside.
    Metadata,
    /// 224.0.0.0/4 and ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// An address of one of this host's interfaces.
    Own,
    /// An address at which the gateway was dialled.
    Gateway,
    /// Not in `allow_cidrs`.
    OutsideRanges,
}

impl Forbidden {
    const fn text(self) -> &'static str {
        match self {
            Self::ThisHost => "0.0.0.0/8 and :: are this host",
            Self::Loopback => "loopback; write the address itself if it is meant",
            Self::LinkLocal => "link-local; write the address itself if it is meant",
            Self::Metadata => "a metadata service; write the address itself if it is meant",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Own => "this host's own address; write the address itself if it is meant",
            Self::Gateway => "the gateway's address; write the address itself if it is meant",
            Self::OutsideRanges => "it is outside allow_cidrs",
        }
    }
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The address to dial for one that a name leads to: an IPv4 address in IPv6 spelling (mapped and compatible, RFC 4291)
/// becomes IPv4, every other stays as it is.
///
/// # Errors
/// Why it may not be dialled. An IPv6 address that a translator or tunnel turns into IPv4 is judged by each IPv4 address it
/// can mean, too.
pub fn admit(address: IpAddr, allow_cidrs: &[IpNet], surroundings: &Surroundings) -> Result<IpAddr, Forbidden> {
    let address = canonical(address);
    special(address, surroundings)?;
    let hidden = match address {
        IpAddr::V4(_) => Hidden::default(),
        IpAddr::V6(v6) => Hidden::of(v6),
    };
    for v4 in &hidden.certain {
        special(IpAddr::V4(*v4), surroundings)?;
    }
    // Only one of these readings is the translator's; 0.0.0.0/8 is what the others make of padding.
    for v4 in hidden.possible.iter().filter(|v4| v4.octets()[0] != 0) {
        special(IpAddr::V4(*v4), surroundings)?;
    }
    let listed = |address: IpAddr| allow_cidrs.iter().any(|range| range.contains(&address));
    let translated = hidden.translated.map(IpAddr::V4);
    if allow_cidrs.is_empty() || listed(address) || translated.is_some_and(listed) {
        Ok(address)
    } else {
        Err(Forbidden::OutsideRanges)
    }
}

/// The one spelling of an address that is compared and dialled.
pub fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    // `::` and `::1` are addresses of their own; ::0.0.x.y is 0.0.0.0/8 in another spelling, and as good as this host.
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0, high, low] => IpAddr::V4(joined(high, low)),
        _ => address,
    }
}

fn special(address: IpAddr, surroundings: &Surroundings) -> Result<(), Forbidden> {
    match address {
        IpAddr::V4(v4) => special_v4(v4)?,
        IpAddr::V6(v6) => special_v6(v6)?,
    }
    if surroundings.own.contains(&address) {
        Err(Forbidden::Own)
    } else if surroundings.gateway.contains(&address) {
        Err(Forbidden::Gateway)
    } else {
        Ok(())
    }
}

fn special_v4(address: Ipv4Addr) -> Result<(), Forbidden> {
    match address.octets() {
        [0, ..] => Err(Forbidden::ThisHost),
        [127, ..] => Err(Forbidden::Loopback),
        // Most clouds; Alibaba; Oracle; Azure's wire server.
        [169, 254, 169, 254] | [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => Err(Forbidden::Metadata),
        [169, 254, ..] => Err(Forbidden::LinkLocal),
        [224..=239, ..] => Err(Forbidden::Multicast),
        [255, 255, 255, 255] => Err(Forbidden::Broadcast),
        _ => Ok(()),
    }
}

fn special_v6(address: Ipv6Addr) -> Result<(), Forbidden> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Err(Forbidden::ThisHost),
        [0, 0, 0, 0, 0, 0, 0, 1] => Err(Forbidden::Loopback),
        // Amazon (the whole prefix is kept for such services); Google.
        [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..] => Err(Forbidden::Metadata),
        [0xfe80..=0xfebf, ..] => Err(Forbidden::LinkLocal),
        [0xff00..=0xffff, ..] => Err(Forbidden::Multicast),
        _ => Ok(()),
    }
}

/// IPv4 addresses inside an IPv6 one.
#[derive(Default)]
struct Hidden {
    /// Packets to it reach this IPv4 address, through a translator at the well-known prefix.
    translated: Option<Ipv4Addr>,
    /// Packets to it go to or through these.
    certain: Vec<Ipv4Addr>,
    /// What it may mean, by the length that a local translator gave its prefix.
    possible: Vec<Ipv4Addr>,
}

impl Hidden {
    fn of(address: Ipv6Addr) -> Self {
        let bytes = address.octets();
        let [a, b, c, d, e, f, g, h] = address.segments();
        let mut hidden = Self::default();
        match (a, b, c) {
            // NAT64 at the well-known prefix (RFC 6052 section 2.1).
            (0x64, 0xff9b, 0) if (d, e, f) == (0, 0, 0) => {
                hidden.translated = Some(joined(g, h));
                hidden.certain.push(joined(g, h));
            }
            // NAT64 at a local prefix (RFC 8215): it may be 48, 56, 64 or 96 bits long (RFC 6052 section 2.2).
            (0x64, 0xff9b, 1) => {
                let [.., n6, n7, _, n9, n10, n11, n12, n13, n14, n15] = bytes;
                let readings = [
                    [n6, n7, n9, n10],
                    [n7, n9, n10, n11],
                    [n9, n10, n11, n12],
                    [n12, n13, n14, n15],
                ];
                hidden.possible = readings.map(Ipv4Addr::from).to_vec();
            }
            // 6to4 (RFC 3056).
            (0x2002, high, low) => hidden.certain.push(joined(high, low)),
            // Teredo (RFC 4380): the server, and the client with its bits turned.
            (0x2001, 0, _) => hidden.certain.extend([joined(c, d), joined(!g, !h)]),
            // IPv4-translated (RFC 2765).
            (0, 0, 0) if (d, e, f) == (0, 0xffff, 0) => hidden.certain.push(joined(g, h)),
            _ => {}
        }
        // ISATAP (RFC 5214): any prefix, the IPv4 address in the interface's half.
        if matches!((e, f), (0 | 0x200, 0x5efe)) {
            hidden.certain.push(joined(g, h));
        }
        hidden
    }
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests;
