//! Values that appear in every configuration file: durations and addresses, each with one way to write it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// Units from the largest to the smallest, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
/// Longest duration: a hundred years. Longer ones are typing mistakes, and sums with them overflow somewhere.
const MAX_MILLIS: u64 = 36_525 * 86_400_000;
/// Longest host name (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number, no unit, an unknown unit, or units not from large to small.
    #[error("`{0}` is not a duration; write a number and a unit, such as 500ms, 90s, 10m, 8h, 14d or 1h30m")]
    Unreadable(String),
    /// More than a hundred years.
    #[error("`{0}` is longer than a hundred years")]
    TooLong(String),
}

/// Reads `500ms`, `90s`, `10m`, `8h`, `14d`, and sums from large to small such as `1h30m`. No spaces, fractions or signs.
///
/// # Errors
/// [`DurationError`], which repeats at most 40 characters of `text`.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let unreadable = || DurationError::Unreadable(text.chars().take(40).collect());
    let too_long = || DurationError::TooLong(text.chars().take(40).collect());
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest
            .len()
            .saturating_sub(rest.trim_start_matches(|c: char| c.is_ascii_digit()).len());
        let (number, after) = rest.split_at_checked(digits).ok_or_else(unreadable)?;
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters).ok_or_else(unreadable)?;
        // The iterator goes on where it stood: a unit that comes again, or a larger one, is not found.
        let (_, millis) = units.find(|(name, _)| *name == unit).ok_or_else(unreadable)?;
        if number.is_empty() {
            return Err(unreadable());
        }
        let part = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*millis))
            .ok_or_else(too_long)?;
        total = total
            .checked_add(part)
            .filter(|sum| *sum <= MAX_MILLIS)
            .ok_or_else(too_long)?;
        rest = after;
    }
    if text.is_empty() {
        return Err(unreadable());
    }
    Ok(Duration::from_millis(total))
}

/// A [`Duration`] as people write it in configuration files; see [`parse_duration`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// The duration.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl From<HumanDuration> for Duration {
    fn from(human: HumanDuration) -> Self {
        human.0
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for HumanDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_duration(text).map(Self)
    }
}

impl fmt::Display for HumanDuration {
    /// The shortest sum of units; what is below a millisecond is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        for (name, millis) in UNITS {
            if left >= millis {
                write!(f, "{}{name}", left / millis)?;
                left %= millis;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text is not a host and port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// There is no `:port` at the end, or it is not a number up to 65535.
    #[error("`{0}` has no port; write HOST:PORT, such as gw.example.com:443 or [::]:443")]
    Port(String),
    /// An IPv6 address without brackets.
    #[error("`{0}`: an IPv6 address stands in brackets, such as [::1]:443")]
    Brackets(String),
    /// The host is empty or has characters no host name has.
    #[error("`{0}` has no host that could be looked up")]
    Host(String),
}

/// A host (a name or an IP address) and a port, written `host:port` or `[::]:443`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 lets the system choose where something listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, when the host is not a name.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(80).collect::<String>();
        let (host, port) = text.rsplit_once(':').ok_or_else(|| HostPortError::Port(shown()))?;
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if inside.is_none() && host.contains(':') {
            return Err(HostPortError::Brackets(shown()));
        }
        // u16's own parser would take a plus sign.
        let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        let port = port
            .and_then(|port| port.parse().ok())
            .ok_or_else(|| HostPortError::Port(shown()))?;
        let host = match inside {
            Some(address) => address.parse::<Ipv6Addr>().ok().map(|address| address.to_string()),
            None => Some(host).filter(|host| is_host(host)).map(str::to_owned),
        };
        Ok(Self {
            host: host.ok_or_else(|| HostPortError::Host(shown()))?,
            port,
        })
    }
}

fn is_host(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (1..=MAX_HOST).contains(&host.len()) && host.bytes().all(allowed) && !host.starts_with(['.', '-'])
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, millis, shown) in [
            ("500ms", 500, "500ms"),
            ("90s", 90_000, "1m30s"),
            ("10m", 600_000, "10m"),
            ("8h", 28_800_000, "8h"),
            ("14d", 1_209_600_000, "14d"),
            ("1h30m", 5_400_000, "1h30m"),
            ("1d1ms", 86_400_001, "1d1ms"),
            ("0s", 0, "0s"),
        ] {
            let read: HumanDuration = text.parse().unwrap();
            assert_eq!(read.get(), Duration::from_millis(millis), "{text}");
            assert_eq!(read.to_string(), shown);
            assert_eq!(shown.parse::<HumanDuration>().unwrap(), read);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in [
            "",
            "10",
            "m",
            "10 m",
            "-1s",
            "+1s",
            "1.5h",
            "10M",
            "1m1h",
            "1s1s",
            "10min",
            "ten",
            "1\u{660}s",
            "1s ",
        ] {
            let error = parse_duration(text).unwrap_err();
            assert_eq!(error, DurationError::Unreadable(text.to_owned()));
            assert!(error.to_string().contains("10m"));
        }
        for text in ["36526d", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(
                parse_duration(text).unwrap_err(),
                DurationError::TooLong(text.to_owned())
            );
        }
    }

    #[test]
    fn addresses_read_and_print() {
        for (text, host, port, literal) in [
            ("gw.example.com:443", "gw.example.com", 443, false),
            ("[::]:443", "::", 443, true),
            ("127.0.0.1:0", "127.0.0.1", 0, true),
            ("[::1]:65535", "::1", 65_535, true),
        ] {
            let read: HostPort = text.parse().unwrap();
            assert_eq!((read.host(), read.port()), (host, port));
            assert_eq!(read.socket_addr().is_some(), literal, "{text}");
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let error = |text: &str| text.parse::<HostPort>().unwrap_err();
        for text in ["gw", "gw:", "gw:65536", "gw:+1", "gw: 1", "gw:-1"] {
            assert!(matches!(error(text), HostPortError::Port(_)), "{text}");
        }
        for text in ["::1:443", "::"] {
            assert!(matches!(error(text), HostPortError::Brackets(_)), "{text}");
        }
        for text in [
            ":443",
            "[]:443",
            "[gw]:443",
            "[fe80::1%eth0]:443",
            "a b:1",
            "*:1",
            "-a:1",
            "http//x:1",
        ] {
            assert!(matches!(error(text), HostPortError::Host(_)), "{text}");
        }
    }
}
