//! `agent.yaml`: the customer's file, as written (strict) and as checked (nothing optional that must be there).

mod builtin_ssh;
mod credentials;
mod endpoints;
mod upstream;
mod upstream_tls;
mod warnings;
mod ways;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fairlead_identity::name::EndpointUrl;
use fairlead_policy::Document;
use fairlead_runtime::config_file::{self, HostPort, Mistake};
use serde::Deserialize;
use serde_yaml::Spanned;

use crate::link::Ways;

pub use builtin_ssh::BuiltinSsh;
use builtin_ssh::WrittenBuiltinSsh;
pub use credentials::Credential;
pub use endpoints::Endpoint;
use endpoints::WrittenEndpoint;
pub use upstream::{TcpUpstream, Upstream};
pub use upstream_tls::{Mode as UpstreamTlsMode, UpstreamTls};
pub use ways::WaysAsWritten;
use ways::WrittenTransport;

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
    /// By which transports and proxies the gateway is reached.
    pub ways: Ways,
    /// The same as the file says it.
    pub ways_as_written: WaysAsWritten,
    /// Fewer keep-alives, slower to notice a loss.
    pub data_saver: bool,
    /// As whom callers of `builtin:ssh` run.
    pub builtin_ssh: BuiltinSsh,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: Spanned<u32>,
    gateway: Option<Spanned<OneOrMany>>,
    state_dir: Option<PathBuf>,
    #[serde(default)]
    transport: WrittenTransport,
    proxy: Option<Spanned<String>>,
    proxy_password_file: Option<Spanned<PathBuf>>,
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

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenAudit {
    file: Option<PathBuf>,
}

/// What happens to the files with passwords that a file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Secrets {
    /// They are read, and one that cannot be is a mistake.
    Read,
    /// They are left alone: whoever only looks at the file need not be allowed to read them.
    LeftAlone,
}

/// Reads and checks a file, and reads the passwords that it names.
///
/// # Errors
/// Every mistake of the file at once, each with its place.
pub fn load(path: &Path) -> Result<Config, Vec<Mistake>> {
    load_with(path, Secrets::Read)
}

/// As [`load`], for somebody who only looks: passwords are not read.
///
/// # Errors
/// Those of [`load`].
pub fn look(path: &Path) -> Result<Config, Vec<Mistake>> {
    load_with(path, Secrets::LeftAlone)
}

fn load_with(path: &Path, secrets: Secrets) -> Result<Config, Vec<Mistake>> {
    let file = path.display().to_string();
    let text = config_file::read(path, config_file::MAX_BYTES)
        .map_err(|error| vec![Mistake::about(&file, error.to_string())])?;
    check_with(&file, &text.text, secrets)
}

/// Checks the text of a file that is called `file` in messages.
///
/// # Errors
/// Every mistake at once, each with its place.
pub fn check(file: &str, text: &str) -> Result<Config, Vec<Mistake>> {
    check_with(file, text, Secrets::Read)
}

fn check_with(file: &str, text: &str, secrets: Secrets) -> Result<Config, Vec<Mistake>> {
    let written: Written = config_file::parse(file, text).map_err(|first| all_unknown(file, text, first))?;
    let mut checker = Checker {
        file,
        text,
        secrets,
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
    let (ways, ways_as_written) = checker.ways(&written);
    if let Some(excess) = written.endpoints.get(MAX_ENDPOINTS) {
        checker.at(excess, format!("at most {MAX_ENDPOINTS} endpoints"));
    }
    let mut endpoints = Vec::new();
    for endpoint in written.endpoints {
        endpoints.extend(checker.endpoint(endpoint.value));
    }
    let builtin_ssh = checker.builtin_ssh(written.builtin_ssh);
    if !checker.mistakes.is_empty() {
        return Err(checker.mistakes);
    }
    let state_dir = written.state_dir.unwrap_or_else(|| "/var/lib/fairlead-agent".into());
    Ok(Config {
        gateways,
        audit_file: written.audit.file.unwrap_or_else(|| state_dir.join("audit.jsonl")),
        state_dir,
        endpoints,
        ways,
        ways_as_written,
        data_saver: written.data_saver,
        builtin_ssh,
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
    secrets: Secrets,
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
}

#[cfg(test)]
mod tests;
