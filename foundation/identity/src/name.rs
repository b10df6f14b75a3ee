//! Names of hosts, sites and endpoints: parsed once into a canonical form, compared only there.
//!
//! Two spellings of one name are how access checks are got around (RUSTSEC-2024-0421), so the
//! types here hold canonical lower-case values and have no other constructor than parsing.
//! Nothing here resolves a name; a host is a key into the gateway's and the agent's own lists.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Longest [`Label`] in bytes.
pub const MAX_LABEL_BYTES: usize = 30;
/// Longest text any parser of this module looks at, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// The site of a host that is written without one.
pub const DEFAULT_SITE: &str = "default";
/// The suffix that marks a name as one of ours inside SSH and endpoint URLs; no site can have it.
pub const INTERNAL_SUFFIX: &str = "internal";

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// The text is empty.
    #[error("the name is empty")]
    Empty,
    /// The text is longer than any name can be.
    #[error("the name has {0} bytes; at most {MAX_NAME_BYTES} are read")]
    TooLong(usize),
    /// One label breaks the rules for labels.
    #[error(
        "`{label}` is not a valid name: {problem} (1 to {MAX_LABEL_BYTES} of a-z, 0-9 and -, \
         no - at either end, no --)"
    )]
    BadLabel {
        /// The label, cut to a printable length.
        label: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The text has labels we cannot read as a host of a site.
    #[error("`{text}` is not HOST, HOST.SITE or HOST.SITE.{INTERNAL_SUFFIX}{also}")]
    UnknownShape {
        /// The text, cut to a printable length.
        text: String,
        /// Further shapes that would have been read.
        also: String,
    },
    /// The text is an IP address, or a number that resolvers take for one.
    #[error("`{0}` is an IP address; endpoints are reached by name (HOST.SITE)")]
    IpAddress(String),
    /// `internal` stands where the site should.
    #[error("`{0}` lacks the site: write HOST.SITE.{INTERNAL_SUFFIX}")]
    ReservedSite(String),
    /// The URL has no `PROTOCOL://`, or a protocol that does not exist.
    #[error(
        "`{0}` does not start with a known protocol; one of ssh:// postgres:// mysql:// mqtt:// \
         rdp:// tcp:// tls:// http://"
    )]
    UnknownProtocol(String),
    /// The port is absent and the protocol has no default.
    #[error("`{url}` needs a port: {protocol} has no default, write {protocol}://HOST.SITE:PORT")]
    MissingPort {
        /// The URL as given.
        url: String,
        /// Its protocol.
        protocol: Protocol,
    },
    /// The port is not a decimal number of 1 to 65535.
    #[error("`{0}` is not a port; a number from 1 to 65535 is")]
    BadPort(String),
}

/// One name: a host, a site, a user, a workload or a gateway.
///
/// Invariant: 1 to [`MAX_LABEL_BYTES`] of `a-z`, `0-9`, `-`; no `-` at either end; no `--`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The site `default`.
    #[must_use]
    pub fn default_site() -> Self {
        Self(DEFAULT_SITE.to_owned())
    }

    fn problem(text: &str) -> Option<&'static str> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() {
            Some("it is empty")
        } else if text.len() > MAX_LABEL_BYTES {
            Some("it is too long")
        } else if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Some("it has an upper-case letter")
        } else if !text.bytes().all(allowed) {
            Some("it has a character that is not allowed")
        } else if text.starts_with('-') || text.ends_with('-') {
            Some("it starts or ends with -")
        } else if text.contains("--") {
            Some("it contains --")
        } else {
            None
        }
    }
}

impl FromStr for Label {
    type Err = NameError;

    /// Reads a label exactly as written; upper case is an error, not folded.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match Self::problem(text) {
            None => Ok(Self(text.to_owned())),
            Some(problem) => Err(NameError::BadLabel {
                label: printable(text),
                problem,
            }),
        }
    }
}

impl TryFrom<String> for Label {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Label {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Label {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Label {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

/// What is spoken at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// SSH, port 22.
    Ssh,
    /// PostgreSQL, port 5432.
    Postgres,
    /// MySQL, port 3306.
    Mysql,
    /// MQTT, port 1883.
    Mqtt,
    /// RDP, port 3389.
    Rdp,
    /// Any bytes over TCP; the port is always written.
    Tcp,
    /// Any bytes over TLS; the port is always written.
    Tls,
    /// HTTP, port 80.
    Http,
}

impl Protocol {
    /// Every protocol, in the order of this type.
    pub const ALL: [Self; 8] = [
        Self::Ssh,
        Self::Postgres,
        Self::Mysql,
        Self::Mqtt,
        Self::Rdp,
        Self::Tcp,
        Self::Tls,
        Self::Http,
    ];

    /// The URL scheme, which is also the value of `endpoint.protocol` in rules.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Mqtt => "mqtt",
            Self::Rdp => "rdp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Http => "http",
        }
    }

    /// The port that need not be written; `None` where it always is.
    #[must_use]
    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::Ssh => Some(22),
            Self::Postgres => Some(5432),
            Self::Mysql => Some(3306),
            Self::Mqtt => Some(1883),
            Self::Rdp => Some(3389),
            Self::Http => Some(80),
            Self::Tcp | Self::Tls => None,
        }
    }
}

impl FromStr for Protocol {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| NameError::UnknownProtocol(printable(text)))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A service an agent offers: HOST.SITE, protocol and port.
///
/// Two endpoints are the same when their values are; [`fmt::Display`] writes the canonical URL,
/// always with the site and `.internal`, and with the port only where it is not the default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointUrl {
    /// The protocol.
    pub protocol: Protocol,
    /// The host: an agent's name or a host bound to agents.
    pub host: Label,
    /// The site of the host.
    pub site: Label,
    /// The port, never 0 when parsed.
    pub port: u16,
}

impl FromStr for EndpointUrl {
    type Err = NameError;

    /// Reads `PROTOCOL://HOST[.SITE[.internal]][:PORT]`, in any case, nothing before or after.
    fn from_str(text: &str) -> Result<Self, NameError> {
        bounded(text)?;
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| NameError::UnknownProtocol(printable(text)))?;
        let protocol: Protocol = scheme.parse()?;
        let (name, port) = match rest.rsplit_once(':') {
            Some((name, port)) => (name, Some(parse_port(port)?)),
            None => (rest, None),
        };
        let (host, site) = parse_internal(&name.to_ascii_lowercase(), None)?;
        let port = port.or(protocol.default_port()).ok_or_else(|| NameError::MissingPort {
            url: printable(text),
            protocol,
        })?;
        Ok(Self {
            protocol,
            host,
            site,
            port,
        })
    }
}

impl TryFrom<String> for EndpointUrl {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            host,
            site,
            port,
        } = self;
        write!(f, "{protocol}://{host}.{site}.{INTERNAL_SUFFIX}")?;
        if protocol.default_port() == Some(*port) {
            Ok(())
        } else {
            write!(f, ":{port}")
        }
    }
}

/// What a caller asks for by host and port, before it is known which protocol is offered there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The host: an agent's name or a host bound to agents.
    pub host: Label,
    /// The site of the host.
    pub site: Label,
    /// The port.
    pub port: u16,
}

impl Target {
    /// The endpoint of this host and port that speaks `protocol`.
    #[must_use]
    pub fn endpoint(&self, protocol: Protocol) -> EndpointUrl {
        EndpointUrl {
            protocol,
            host: self.host.clone(),
            site: self.site.clone(),
            port: self.port,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, site, port } = self;
        write!(f, "{host}.{site}.{INTERNAL_SUFFIX}:{port}")
    }
}

/// Reads the name of a host as callers write it, into (host, site).
///
/// Forms: `HOST`, `HOST.SITE`, `HOST.SITE.internal`, `HOST.SITE.<domain>`, `HOST--SITE.<domain>`;
/// in any case, with or without one trailing dot. One label alone means the site `default`.
///
/// # Errors
/// Everything else, IP addresses in every spelling included.
pub fn parse_host(text: &str, domain: &str) -> Result<(Label, Label), NameError> {
    bounded(text)?;
    let name = text.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let domain = domain.to_ascii_lowercase();
    let domain = domain.strip_suffix('.').unwrap_or(&domain);
    match name.strip_suffix(domain).and_then(|n| n.strip_suffix('.')) {
        Some(below) if !domain.is_empty() => parse_below_domain(below, text, domain),
        _ => parse_internal(name, Some(domain)),
    }
}

/// Reads `HOST.SITE` or `HOST--SITE`, what is left of a name once the domain is cut off.
fn parse_below_domain(below: &str, text: &str, domain: &str) -> Result<(Label, Label), NameError> {
    match (below.split_once('.'), below.split_once("--")) {
        (Some((host, site)), _) if !site.contains('.') => pair(host, site, text),
        (None, Some((host, site))) => pair(host, site, text),
        _ => Err(unknown_shape(text, Some(domain))),
    }
}

/// Reads `HOST`, `HOST.SITE` or `HOST.SITE.internal` in lower case.
fn parse_internal(name: &str, domain: Option<&str>) -> Result<(Label, Label), NameError> {
    if looks_like_ip(name) {
        return Err(NameError::IpAddress(printable(name)));
    }
    let mut labels = name.split('.');
    match (labels.next(), labels.next(), labels.next(), labels.next()) {
        (Some(host), None, ..) => Ok((host.parse()?, Label::default_site())),
        (Some(host), Some(site), None, _) => pair(host, site, name),
        (Some(host), Some(site), Some(INTERNAL_SUFFIX), None) => pair(host, site, name),
        _ => Err(unknown_shape(name, domain)),
    }
}

fn pair(host: &str, site: &str, text: &str) -> Result<(Label, Label), NameError> {
    if site == INTERNAL_SUFFIX {
        return Err(NameError::ReservedSite(printable(text)));
    }
    Ok((host.parse()?, site.parse()?))
}

/// True for what `inet_aton`, `inet_pton` or a URL parser would take for an address, such as
/// `10.1`, `0x7f.1`, `127.0.0.1`, `[::1]` or `fe80::1%eth0`.
fn looks_like_ip(name: &str) -> bool {
    let number = |label: &str| {
        let digits = |s: &str, radix| !s.is_empty() && s.chars().all(|c| c.is_digit(radix));
        digits(label, 10) || label.strip_prefix("0x").is_some_and(|hex| digits(hex, 16))
    };
    name.contains(':') || (!name.is_empty() && name.split('.').all(number))
}

fn parse_port(text: &str) -> Result<u16, NameError> {
    let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if plain => Ok(port),
        _ => Err(NameError::BadPort(printable(text))),
    }
}

fn bounded(text: &str) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        length if length > MAX_NAME_BYTES => Err(NameError::TooLong(length)),
        _ => Ok(()),
    }
}

fn unknown_shape(text: &str, domain: Option<&str>) -> NameError {
    NameError::UnknownShape {
        text: printable(text),
        also: domain.map_or_else(String::new, |d| format!(" nor HOST.SITE.{d} nor HOST--SITE.{d}")),
    }
}

/// The text as an error may show it: at most 64 characters, controls replaced.
pub(crate) fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(64).map(clean).collect()
}

#[cfg(test)]
mod tests;
