//! `agent.yaml`: the customer's file, as written (strict) and as checked (nothing optional that must be there).

mod upstream_tls;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use fairlead_identity::name::{EndpointUrl, Protocol};
use fairlead_policy::{Document, LocalRules, RuleAsWritten};
use fairlead_runtime::config_file::{self, HostPort, Mistake};
use ipnet::IpNet;
use serde::Deserialize;
use serde_yaml::Spanned;

use upstream_tls::WrittenTls;
pub use upstream_tls::{Mode as UpstreamTlsMode, UpstreamTls};

/// The commented file that the package installs.
pub const TEMPLATE: &str = include_str!("agent.yaml");

/// Endpoints in one file.
const MAX_ENDPOINTS: usize = 256;

/// An agent's settings, checked.
#[derive(Debug)]
pub struct Config {
    /// Gateways to dial, `host:port`; empty: those of the enrolment.
    pub gateways: Vec<String>,
    /// Key, certificate and roots; 0700.
    pub state_dir: PathBuf,
    /// What callers may reach.
    pub endpoints: Vec<Endpoint>,
    /// The customer's own audit log.
    pub audit_file: PathBuf,
    /// Fewer keep-alives, slower to notice a loss.
    pub data_saver: bool,
    /// Whether `builtin:ssh` may run as root, a service or nobody.
    pub allow_service_account: bool,
    /// Where the customer controls the running agent.
    pub control_socket: ControlSocket,
    /// The file, as it was named.
    pub file: PathBuf,
    /// SHA-256 of the file, hex, so that an auditor can tell which file was in force.
    pub digest: String,
}

/// The socket for `status`, `sessions`, `cut` and `pause`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSocket {
    /// Where it is.
    pub path: PathBuf,
    /// Whether the file says so: then an agent that cannot have it does not start. The usual place is given up with a warning,
    /// so that a second agent needs no settings.
    pub required: bool,
}

impl ControlSocket {
    /// Where it is unless the file says otherwise.
    pub const USUAL: &str = "/run/fairlead-agent/control.sock";

    fn of(written: Option<PathBuf>) -> Self {
        Self {
            required: written.is_some(),
            path: written.unwrap_or_else(|| Self::USUAL.into()),
        }
    }
}

/// One endpoint of the file.
#[derive(Debug)]
pub struct Endpoint {
    /// Its URL.
    pub url: EndpointUrl,
    /// The line of the file it stands on.
    pub line: u32,
    /// What the agent dials for it.
    pub upstream: Upstream,
    /// Other agents may offer the same URL.
    pub pooling_enabled: bool,
    /// Who may use it, in the customer's words; `None`: every caller that the gateway permits.
    pub rules: Option<LocalRules>,
}

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
struct Written {
    version: Spanned<u32>,
    gateway: Option<Spanned<OneOrMany>>,
    state_dir: Option<PathBuf>,
    #[serde(default)]
    endpoints: Vec<Spanned<WrittenEndpoint>>,
    #[serde(default)]
    audit: WrittenAudit,
    #[serde(default)]
    data_saver: bool,
    control_socket: Option<PathBuf>,
    #[serde(default)]
    builtin_ssh: WrittenBuiltinSsh,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEndpoint {
    url: Spanned<String>,
    upstream: WrittenUpstream,
    #[serde(default)]
    pooling_enabled: bool,
    rules: Option<Vec<RuleAsWritten>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUpstream {
    url: Spanned<String>,
    #[serde(default)]
    allow_cidrs: Vec<Spanned<String>>,
    tls: Option<Spanned<WrittenTls>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenAudit {
    file: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenBuiltinSsh {
    #[serde(default)]
    allow_service_account: bool,
}

/// Reads and checks a file.
///
/// # Errors
/// Every mistake of the file at once, each with its place.
pub fn load(path: &Path) -> Result<Config, Vec<Mistake>> {
    let file = path.display().to_string();
    let text = config_file::read(path, config_file::MAX_BYTES)
        .map_err(|error| vec![Mistake::about(&file, error.to_string())])?;
    check(&file, &text.text)
}

/// Checks the text of a file that is called `file` in messages.
///
/// # Errors
/// Every mistake at once, each with its place.
pub fn check(file: &str, text: &str) -> Result<Config, Vec<Mistake>> {
    let written: Written = config_file::parse(file, text).map_err(|first| all_unknown(file, text, first))?;
    let mut checker = Checker {
        file,
        text,
        mistakes: Vec::new(),
        seen: BTreeMap::new(),
    };
    if written.version.value != 1 {
        checker.at(&written.version, "this program reads version 1 of this file");
    }
    let gateways = written
        .gateway
        .as_ref()
        .map(|gateway| checker.gateways(gateway))
        .unwrap_or_default();
    if let Some(excess) = written.endpoints.get(MAX_ENDPOINTS) {
        checker.at(excess, format!("at most {MAX_ENDPOINTS} endpoints"));
    }
    let mut endpoints = Vec::new();
    for endpoint in written.endpoints {
        endpoints.extend(checker.endpoint(endpoint.value));
    }
    if !checker.mistakes.is_empty() {
        return Err(checker.mistakes);
    }
    let state_dir = written.state_dir.unwrap_or_else(|| "/var/lib/fairlead-agent".into());
    Ok(Config {
        gateways,
        audit_file: written.audit.file.unwrap_or_else(|| state_dir.join("audit.jsonl")),
        state_dir,
        endpoints,
        data_saver: written.data_saver,
        allow_service_account: written.builtin_ssh.allow_service_account,
        control_socket: ControlSocket::of(written.control_socket),
        file: file.into(),
        digest: fairlead_runtime::audit::hash(text.as_bytes()),
    })
}

/// A file that cannot be read: all its unknown keys where it has some, since the reader stops at the first.
fn all_unknown(file: &str, text: &str, first: Vec<Mistake>) -> Vec<Mistake> {
    let unknown = Document::Agent.unknown_keys(file, text);
    if unknown.is_empty() {
        return first;
    }
    let mistakes = unknown.into_iter().map(|found| Mistake {
        file: found.file,
        line: found.line,
        column: found.column,
        message: found.message,
        snippet: found.snippet,
        help: found.help,
    });
    mistakes.collect()
}

/// Collects semantic mistakes, so that a person sees all of them at once.
struct Checker<'a> {
    file: &'a str,
    text: &'a str,
    mistakes: Vec<Mistake>,
    /// URLs so far, with the line of the first.
    seen: BTreeMap<EndpointUrl, u64>,
}

impl Checker<'_> {
    fn at<T>(&mut self, place: &Spanned<T>, message: impl Into<String>) {
        self.mistakes
            .push(Mistake::at(self.file, self.text, place.referenced, message));
    }

    fn gateways(&mut self, written: &Spanned<OneOrMany>) -> Vec<String> {
        let list = match &written.value {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many.as_slice(),
        };
        if list.is_empty() || list.len() > 4 {
            self.at(written, "one to four gateways");
        }
        for address in list {
            if let Err(error) = address.parse::<HostPort>() {
                self.at(written, format!("`{address}` is no gateway address: {error}"));
            }
        }
        list.to_vec()
    }

    fn endpoint(&mut self, written: WrittenEndpoint) -> Option<Endpoint> {
        let url = match written.url.value.parse::<EndpointUrl>() {
            Ok(url) => Some(url),
            Err(error) => {
                self.at(&written.url, error.to_string());
                None
            }
        };
        if let Some(url) = &url {
            self.check_url(url, &written.url);
        }
        let upstream = self.upstream(&written.upstream, url.as_ref());
        let rules = match written
            .rules
            .map(|rules| LocalRules::compile(self.file, self.text, &rules))
        {
            Some(Ok(rules)) => Some(rules),
            Some(Err(mistakes)) => {
                // The policy room reports in its own type with the same fields.
                self.mistakes.extend(mistakes.into_iter().map(of_policy));
                None
            }
            None => None,
        };
        Some(Endpoint {
            url: url?,
            line: u32::try_from(written.url.referenced.line()).unwrap_or(0),
            upstream: upstream?,
            pooling_enabled: written.pooling_enabled,
            rules,
        })
    }

    fn check_url(&mut self, url: &EndpointUrl, place: &Spanned<String>) {
        if !matches!(url.protocol.as_str(), "ssh" | "tcp" | "tls" | "postgres") {
            self.at(
                place,
                format!(
                    "this release serves ssh://, tcp://, tls:// and postgres:// endpoints; {}:// comes later",
                    url.protocol
                ),
            );
        }
        if let Some(first) = self.seen.insert(url.clone(), place.referenced.line()) {
            self.at(place, format!("{url} is listed twice; the first is on line {first}"));
        }
    }

    fn upstream(&mut self, written: &WrittenUpstream, url: Option<&EndpointUrl>) -> Option<Upstream> {
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

fn of_policy(mistake: fairlead_policy::Mistake) -> Mistake {
    let fairlead_policy::Mistake {
        file,
        line,
        column,
        message,
        snippet,
        help,
    } = mistake;
    Mistake {
        file,
        line,
        column,
        message,
        snippet,
        help,
    }
}

#[cfg(test)]
mod tests;
