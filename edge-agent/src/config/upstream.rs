//! `upstream:` of an endpoint: what the agent dials for it.

use std::fmt;
use std::net::IpAddr;

use fairlead_identity::name::{EndpointUrl, Protocol};
use fairlead_runtime::config_file::HostPort;
use ipnet::IpNet;
use serde::Deserialize;
use serde_yaml::Spanned;

use super::Checker;
use super::upstream_tls::{UpstreamTls, WrittenTls};

/// What is behind an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// A TCP service.
    Tcp(TcpUpstream),
    /// The agent's own SSH server.
    BuiltinSsh,
}

/// A TCP service of the customer's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpUpstream {
    /// A name, or an address written literally.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Where the name's addresses must lie; empty: anywhere but special ranges.
    pub allow_cidrs: Vec<IpNet>,
    /// TLS to it; `None`: plain TCP.
    pub tls: Option<UpstreamTls>,
}

impl TcpUpstream {
    /// The address, where the file gives one in place of a name: then the customer means exactly that one.
    pub fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for TcpUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "tls" } else { "tcp" };
        match self.literal() {
            Some(IpAddr::V6(v6)) => write!(f, "{scheme}://[{v6}]:{}", self.port),
            _ => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(upstream) => upstream.fmt(f),
            Self::BuiltinSsh => f.write_str("builtin:ssh"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenUpstream {
    pub(super) url: Spanned<String>,
    #[serde(default)]
    pub(super) allow_cidrs: Vec<Spanned<String>>,
    pub(super) tls: Option<Spanned<WrittenTls>>,
}

impl Checker<'_> {
    pub(super) fn upstream(&mut self, written: &WrittenUpstream, url: Option<&EndpointUrl>) -> Option<Upstream> {
        let place = &written.url;
        if place.value == "builtin:ssh" {
            return self.builtin(written, url);
        }
        let (rest, speaks_tls) = match (place.value.strip_prefix("tcp://"), place.value.strip_prefix("tls://")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => {
                let text = "is no upstream: write tcp://HOST:PORT, tls://HOST:PORT, or builtin:ssh";
                self.at(place, format!("`{}` {text}", place.value));
                return None;
            }
        };
        let is_postgres = url.is_some_and(|url| url.protocol == Protocol::Postgres);
        let tls = self.upstream_tls(written, speaks_tls, is_postgres)?;
        let address = match rest.parse::<HostPort>() {
            Ok(address) => address,
            Err(error) => {
                self.at(place, format!("`{rest}` is no HOST:PORT: {error}"));
                return None;
            }
        };
        let mut allow_cidrs = Vec::new();
        for cidr in &written.allow_cidrs {
            match cidr.value.parse::<IpNet>() {
                Ok(parsed) => allow_cidrs.push(parsed),
                Err(_) => self.at(
                    cidr,
                    format!("`{}` is no address range such as 10.9.0.0/24", cidr.value),
                ),
            }
        }
        let upstream = TcpUpstream {
            host: address.host().to_owned(),
            port: address.port(),
            allow_cidrs,
            tls,
        };
        self.check_host(&upstream, place);
        Some(Upstream::Tcp(upstream))
    }

    fn check_host(&mut self, upstream: &TcpUpstream, place: &Spanned<String>) {
        let host = &upstream.host;
        if let Some(literal) = upstream.literal() {
            let ranges = &upstream.allow_cidrs;
            if !ranges.is_empty() && !ranges.iter().any(|range| range.contains(&literal)) {
                self.at(place, format!("{literal} is outside its own allow_cidrs"));
            }
        } else if ends_in_a_number(host) {
            // The system's resolver reads these as addresses without asking anybody: `127.1`, `0x7f000001`, `2130706433`.
            self.at(
                place,
                format!(
                    "`{host}` is neither a name nor an address: write an address with four numbers, such as 10.9.0.5"
                ),
            );
        }
    }

    /// `None` after a mistake, else what was asked for.
    fn upstream_tls(
        &mut self,
        written: &WrittenUpstream,
        speaks_tls: bool,
        is_postgres: bool,
    ) -> Option<Option<UpstreamTls>> {
        if is_postgres && speaks_tls {
            let text =
                "a database is asked for TLS in its own protocol: write tcp://HOST:PORT, and tls: { … } beside it";
            self.at(&written.url, text);
            return None;
        }
        match (&written.tls, speaks_tls) {
            (None, false) => Some(None),
            (Some(tls), false) if !is_postgres => {
                self.at(tls, "write tls://HOST:PORT to speak TLS to this upstream");
                None
            }
            (None, true) => {
                let text = "a tls:// upstream needs to know whom to trust: tls: { mode: verify-full, ca_file: FILE }";
                self.at(&written.url, text);
                None
            }
            (Some(tls), _) => match UpstreamTls::check(&tls.value) {
                Ok(checked) => Some(Some(checked)),
                Err((about_file, text)) => {
                    match tls.value.ca_file.as_ref().filter(|_| about_file) {
                        Some(file) => self.at(file, text),
                        None => self.at(&tls.value.mode, text),
                    }
                    None
                }
            },
        }
    }

    fn builtin(&mut self, written: &WrittenUpstream, url: Option<&EndpointUrl>) -> Option<Upstream> {
        if url.is_some_and(|url| url.protocol != Protocol::Ssh) {
            self.at(&written.url, "builtin:ssh serves ssh:// endpoints only");
        }
        if let Some(tls) = &written.tls {
            self.at(tls, "tls has no meaning for builtin:ssh, which dials nothing");
        }
        if let Some(cidr) = written.allow_cidrs.first() {
            self.at(cidr, "allow_cidrs has no meaning for builtin:ssh, which dials nothing");
        }
        if cfg!(feature = "builtin-ssh") {
            Some(Upstream::BuiltinSsh)
        } else {
            self.at(
                &written.url,
                "this build of the agent has no SSH server of its own (Cargo feature builtin-ssh)",
            );
            None
        }
    }
}

/// Whether a resolver may take it for an IPv4 address (the "ends in a number checker" of the URL standard).
fn ends_in_a_number(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(last) || hex.is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
