//! `fairlead-gateway init`: keys, authority, state and a commented configuration, once and idempotently.

pub mod account;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use fairlead_runtime::config_file::write_private;

use crate::authority::AuthorityFiles;
use crate::config::{self, ACCESS_TEMPLATE, Config, TEMPLATE};
use crate::store::SqliteStore;

/// What `init` did, for the person who ran it.
#[derive(Debug)]
pub struct Report {
    /// The configuration in force.
    pub config: Config,
    /// Files that were made; empty when everything was there.
    pub made: Vec<String>,
}

/// The command line lacks what a first `init` needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a new gateway needs its DNS name: --domain gw.example.com")]
pub struct NoDomain;

/// Sets a gateway up.
///
/// # Errors
/// When the file exists with another domain, a file cannot be written, or the state directory is open to others.
pub fn init(config_file: &Path, domain: Option<&str>, now: SystemTime) -> anyhow::Result<Report> {
    let mut report = settings(config_file, domain)?;
    report.made.extend(state(&report.config, now)?);
    Ok(report)
}

/// The first half: the configuration and the access policy.
///
/// # Errors
/// When the file exists with another domain, or cannot be written.
pub fn settings(config_file: &Path, domain: Option<&str>) -> anyhow::Result<Report> {
    let mut made = Vec::new();
    if !config_file.exists() {
        let domain = domain.ok_or(NoDomain)?;
        write_templates(config_file, domain, &mut made)?;
    }
    let config = config::load(config_file).map_err(|mistakes| anyhow::anyhow!(join(&mistakes)))?;
    if let Some(domain) = domain.filter(|domain| !domain.eq_ignore_ascii_case(&config.domain)) {
        bail!(
            "{} says domain: {}, not {domain}; a gateway's domain and trust domain stay what they were set up with",
            config_file.display(),
            config.domain
        );
    }
    Ok(Report { config, made })
}

/// The second half: authority and database. Gives what was made.
fn state(config: &Config, now: SystemTime) -> anyhow::Result<Vec<String>> {
    let mut made = Vec::new();
    let files = AuthorityFiles::open(&config.state_dir)?;
    if files.create_missing(&config.trust_domain, now)? {
        made.push(format!("{} (CA, SSH keys)", config.state_dir.display()));
    }
    files.load(now)?;
    let database = state_file(&config.state_dir);
    if !database.exists() {
        made.push(database.display().to_string());
    }
    SqliteStore::open(&database)?;
    Ok(made)
}

/// The database's path.
pub fn state_file(state_dir: &Path) -> PathBuf {
    state_dir.join("state.db")
}

fn write_templates(config_file: &Path, domain: &str, made: &mut Vec<String>) -> anyhow::Result<()> {
    let text = TEMPLATE.replace("DOMAIN", &domain.to_ascii_lowercase());
    config::check(&config_file.display().to_string(), &text).map_err(|mistakes| anyhow::anyhow!(join(&mistakes)))?;
    let parent = config_file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let access = parent.join("access.d");
    std::fs::create_dir_all(&access).with_context(|| format!("cannot make {}", access.display()))?;
    let policy = access.join("access.yaml");
    if !policy.exists() {
        write_private(&policy, ACCESS_TEMPLATE.as_bytes(), 0o644)?;
        made.push(policy.display().to_string());
    }
    write_private(config_file, text.as_bytes(), 0o644)?;
    made.push(config_file.display().to_string());
    Ok(())
}

fn join(mistakes: &[fairlead_runtime::config_file::Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
