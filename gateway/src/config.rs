//! `gateway.yaml`: as written (strict, every key optional that has a default) and as checked (nothing optional that must
//! be there).

mod callers;
mod events;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairlead_policy::Document;
use fairlead_runtime::config_file::{self, HumanDuration, Mistake};
use serde::Deserialize;
use serde_yaml::Spanned;

pub use callers::{CertificateFiles, Certificates, Dedicated, read_certificates};
use callers::{WrittenListener, WrittenTls};
use events::WrittenEvents;

use crate::events::Broker;

/// The commented file that `fairlead-gateway init` writes; `DOMAIN` is replaced.
pub const TEMPLATE: &str = include_str!("gateway.yaml");
/// The commented access policy that `fairlead-gateway init` writes beside it.
pub const ACCESS_TEMPLATE: &str = include_str!("access.yaml");

/// A gateway's settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The domain under which callers name endpoints; the gateway's own DNS name.
    pub domain: String,
    /// The trust domain in every certificate.
    pub trust_domain: String,
    /// The one port, TCP and UDP.
    pub listen: SocketAddr,
    /// What agents and callers are told to dial.
    pub announce: Vec<String>,
    /// State: database, CA and host keys, audit; 0700.
    pub state_dir: PathBuf,
    /// Files and directories of access policy.
    pub access: Vec<PathBuf>,
    /// The administration socket.
    pub admin_socket: PathBuf,
    /// Where metrics and health are served, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Ceilings.
    pub limits: Limits,
    /// How long running sessions may go on after SIGTERM.
    pub drain: Duration,
    /// Lives of certificates.
    pub certificates: Lives,
    /// Certificates of the operator's that callers are shown for the names in them.
    pub tls_files: Vec<CertificateFiles>,
    /// Ports beside the one port.
    pub listeners: Vec<Dedicated>,
    /// Brokers that are told what happens.
    pub events: Vec<Broker>,
}

/// Ceilings of what one gateway carries.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Linked agents.
    pub links: usize,
    /// Live sessions in all.
    pub sessions: usize,
    /// Live sessions of one caller.
    pub sessions_per_caller: PerCaller,
    /// Peers that have not proved who they are.
    pub handshakes_in_flight: usize,
    /// Of those, from one source: an IPv4 address, or the /64 of an IPv6 address.
    pub handshakes_per_source: usize,
    /// Failed logins in a row that shut a source out for 30 s; 0 for never.
    pub login_failures_per_source: u32,
}

/// Live sessions of one caller, by kind.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PerCaller {
    /// Of a user.
    pub user: usize,
    /// Of a workload.
    pub workload: usize,
}

/// Lives of the certificates the gateway issues.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// Of agents.
    pub agent: Duration,
    /// Of users.
    pub user: Duration,
    /// Of workloads that come by a join string.
    pub workload: Duration,
    /// How long after the end of its last certificate an agent may still renew by proof of its key.
    pub absent: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            links: 20_000,
            sessions: 50_000,
            sessions_per_caller: PerCaller::default(),
            handshakes_in_flight: 512,
            handshakes_per_source: 32,
            login_failures_per_source: 5,
        }
    }
}

impl Default for PerCaller {
    fn default() -> Self {
        Self {
            user: 256,
            workload: 10_000,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: Spanned<u32>,
    domain: Spanned<String>,
    trust_domain: Option<Spanned<String>>,
    listen: Option<Spanned<String>>,
    #[serde(default)]
    announce: Vec<Spanned<String>>,
    state_dir: Option<PathBuf>,
    access: Option<Vec<PathBuf>>,
    #[serde(default)]
    admin: WrittenAdmin,
    #[serde(default)]
    limits: Limits,
    drain: Option<HumanDuration>,
    #[serde(default)]
    certificates: WrittenLives,
    #[serde(default)]
    tls: WrittenTls,
    #[serde(default)]
    listeners: Vec<WrittenListener>,
    #[serde(default)]
    events: Vec<WrittenEvents>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenAdmin {
    socket: Option<PathBuf>,
    metrics_listen: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenLives {
    agent: Option<Spanned<HumanDuration>>,
    user: Option<Spanned<HumanDuration>>,
    workload: Option<Spanned<HumanDuration>>,
    absent: Option<Spanned<HumanDuration>>,
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
    let mut mistakes = Mistakes {
        file,
        text,
        found: Vec::new(),
    };
    if written.version.value != 1 {
        mistakes.at(&written.version, "this program reads version 1 of this file");
    }
    let domain = mistakes.domain(&written.domain);
    let trust_domain = written
        .trust_domain
        .as_ref()
        .map_or_else(|| domain.clone(), |name| mistakes.domain(name));
    let listen = match &written.listen {
        Some(listen) => mistakes.address(listen),
        None => Some(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 443))),
    };
    let metrics_listen = written
        .admin
        .metrics_listen
        .as_ref()
        .map(|listen| mistakes.address(listen));
    let lives = Lives {
        agent: mistakes.life(written.certificates.agent.as_ref(), days(14), days(90)),
        user: mistakes.life(written.certificates.user.as_ref(), days(1) / 3, days(1)),
        workload: mistakes.life(written.certificates.workload.as_ref(), days(30), days(90)),
        absent: mistakes.life(written.certificates.absent.as_ref(), days(90), days(3650)),
    };
    let port = listen.map_or(443, |listen| listen.port());
    let mut announce: Vec<String> = written.announce.iter().map(|address| address.value.clone()).collect();
    if announce.is_empty() {
        announce.push(format!("{domain}:{port}"));
    }
    if announce.len() > 4 {
        mistakes.at(&written.domain, "announce lists more than 4 addresses");
    }
    let tls_files = mistakes.certificate_files(written.tls);
    let listeners = mistakes.listeners(&written.listeners);
    let events = mistakes.events(&written.events, &domain);
    mistakes.finish()?;
    Ok(Config {
        tls_files,
        listeners,
        events,
        trust_domain,
        domain,
        listen: listen.unwrap_or_else(|| SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 443))),
        announce,
        state_dir: written.state_dir.unwrap_or_else(|| "/var/lib/fairlead-gateway".into()),
        access: written
            .access
            .unwrap_or_else(|| vec!["/etc/fairlead-gateway/access.d".into()]),
        admin_socket: written
            .admin
            .socket
            .unwrap_or_else(|| "/run/fairlead-gateway/admin.sock".into()),
        metrics_listen: metrics_listen.flatten(),
        limits: written.limits,
        drain: written.drain.map_or(Duration::from_secs(600), HumanDuration::get),
        certificates: lives,
    })
}

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

/// A file that cannot be read: all its unknown keys where it has some, since the reader stops at the first.
fn all_unknown(file: &str, text: &str, first: Vec<Mistake>) -> Vec<Mistake> {
    let unknown = Document::Gateway.unknown_keys(file, text);
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
struct Mistakes<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Mistake>,
}

impl Mistakes<'_> {
    fn at<T>(&mut self, place: &Spanned<T>, message: impl Into<String>) {
        self.found
            .push(Mistake::at(self.file, self.text, place.referenced, message));
    }

    fn domain(&mut self, name: &Spanned<String>) -> String {
        let text = name.value.to_ascii_lowercase();
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() > 253 || !text.split('.').all(label) {
            self.at(
                name,
                format!("`{text}` is not a DNS name (lower-case letters, digits, hyphens and dots)"),
            );
        }
        text
    }

    fn address(&mut self, listen: &Spanned<String>) -> Option<SocketAddr> {
        match listen.value.to_socket_addrs().ok().and_then(|mut found| found.next()) {
            Some(address) => Some(address),
            None => {
                self.at(
                    listen,
                    format!(
                        "`{}` is not an address and port such as `[::]:443` or `0.0.0.0:443`",
                        listen.value
                    ),
                );
                None
            }
        }
    }

    fn life(&mut self, written: Option<&Spanned<HumanDuration>>, default: Duration, longest: Duration) -> Duration {
        let Some(written) = written else { return default };
        let life = written.value.get();
        if life < Duration::from_secs(10) || life > longest {
            self.at(
                written,
                format!(
                    "a certificate of this kind lives from 10s to {}h",
                    longest.as_secs() / 3600
                ),
            );
        }
        life
    }

    fn finish(self) -> Result<(), Vec<Mistake>> {
        if self.found.is_empty() { Ok(()) } else { Err(self.found) }
    }
}

#[cfg(test)]
mod tests;
