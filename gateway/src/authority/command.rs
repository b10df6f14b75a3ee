//! What `fairlead-gateway ca` does: looks, prepares the next issuing authority, puts it in force.
//!
//! It works on the files, with or without a running gateway; one that runs is then told to take up what they say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use fairlead_runtime::audit::{AuditLog, Record};
use serde::Serialize;

use super::book::{Book, State};
use super::files::{AuthorityFiles, RootKey};
use super::tell;
use crate::config::Config;
use crate::init::state_file;
use crate::registry::{hex, unix};
use crate::store::{AgentRow, SiteScope, SqliteStore, Store, WaitingToken};

/// Every authority on disk, for `ca status`. Times are unix seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// By number.
    pub issuing: Vec<IssuingStatus>,
    /// By number.
    pub roots: Vec<RootStatus>,
}

/// One issuing authority.
#[derive(Clone, Debug, Serialize)]
pub struct IssuingStatus {
    /// Its number, which is in the names of its files.
    pub number: u32,
    /// What it is for.
    pub state: State,
    /// The number of its root.
    pub root: u32,
    /// SHA-256 of its certificate, hex.
    pub sha256: String,
    /// The first moment at which it is valid.
    pub not_before: i64,
    /// The last moment at which it is valid.
    pub not_after: i64,
    /// How many certificates it has signed that are good now.
    pub certificates: u64,
}

/// One root.
#[derive(Clone, Debug, Serialize)]
pub struct RootStatus {
    /// Its number, which is in the names of its files.
    pub number: u32,
    /// SHA-256 of its certificate, hex; join strings pin it.
    pub sha256: String,
    /// The last moment at which it is valid.
    pub not_after: i64,
    /// Whether peers are told to trust it.
    pub trusted: bool,
    /// Whether its private key lies beside it; better where nobody reaches it.
    pub key_is_here: bool,
    /// How many agents that may link have said that they trust it.
    pub agents: u64,
}

/// What `ca issue` made.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The number of the new issuing authority.
    pub number: u32,
    /// The number of its root.
    pub root: u32,
    /// Where the private key of a new root was written.
    pub new_root_key: Option<PathBuf>,
    /// Whether a running gateway has taken it up.
    pub is_running: bool,
}

/// What a rotation would do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The number in force.
    pub from: u32,
    /// The number that would be.
    pub to: u32,
    /// The root of the next, where it is another than that of the present.
    pub new_root: Option<u32>,
    /// Agents that could not verify the gateway any more.
    pub stranded: Vec<Stranded>,
    /// Agents that were away for too long to renew, whatever is done here.
    pub lost: Vec<Stranded>,
    /// Join strings that pin a root which the gateway would no longer show.
    pub join_strings: Vec<WaitingToken>,
}

/// An agent that a rotation leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranded {
    /// NAME.SITE.
    pub agent: String,
    /// When it was heard last, unix seconds.
    pub last_seen: Option<i64>,
}

impl Plan {
    /// Whether nobody would be left behind.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        self.stranded.is_empty() && self.join_strings.is_empty()
    }
}

/// Looks.
///
/// # Errors
/// When the state directory cannot be read.
pub fn status(config: &Config, now: SystemTime) -> anyhow::Result<Status> {
    let files = AuthorityFiles::look(&config.state_dir)?;
    let (book, store) = (files.book()?, store(config)?);
    let counts = store.certificates_by_issuer(unix(now))?;
    let agents = store.agents(&SiteScope::Every)?;
    let issuing = book.issuing.values().map(|one| IssuingStatus {
        number: one.number,
        state: book.state(one.number),
        root: one.root,
        sha256: hex(&one.above.issuing_sha256()),
        not_before: unix(one.above.not_before()),
        not_after: unix(one.above.not_after()),
        certificates: counts.get(&one.number).copied().unwrap_or_default(),
    });
    Ok(Status {
        issuing: issuing.collect(),
        roots: roots(&files, &book, &agents, now)?,
    })
}

fn roots(files: &AuthorityFiles, book: &Book, agents: &[AgentRow], now: SystemTime) -> anyhow::Result<Vec<RootStatus>> {
    let trusted = book.trusted(now)?.sha256s();
    // A root whose making was cut short has nothing under it and is left out.
    let known: BTreeMap<u32, _> = book.issuing.values().map(|one| (one.root, &one.above)).collect();
    let status = known.into_iter().map(|(number, above)| {
        let sha256 = above.root_sha256();
        let shown = hex(&sha256);
        let trusting = |agent: &&AgentRow| !agent.disabled && agent.spki.is_some() && agent.roots.contains(&shown);
        RootStatus {
            number,
            not_after: unix(above.root_not_after()),
            trusted: trusted.contains(&sha256),
            key_is_here: files.has_root_key(number),
            agents: u64::try_from(agents.iter().filter(trusting).count()).unwrap_or(u64::MAX),
            sha256: shown,
        }
    });
    Ok(status.collect())
}

/// Prepares the next issuing authority, under the newest root or under a new one.
///
/// # Errors
/// When the root's key is not to be had, a file cannot be written, or the running gateway keeps what it has.
pub async fn issue(
    config: &Config,
    new_root: bool,
    root_key_file: Option<&Path>,
    now: SystemTime,
) -> anyhow::Result<Prepared> {
    let files = AuthorityFiles::open(&config.state_dir)?;
    let turn = files.turn()?;
    let root_key = root_key_file.map_or(RootKey::Here, RootKey::At);
    let number = files.prepare(&turn, new_root, root_key, now)?;
    let book = files.book()?;
    let root = book.next().context("the new issuing authority is not there")?.root;
    let here = || config.state_dir.join(format!("ca/root-{root}.key.pem"));
    Ok(Prepared {
        number,
        root,
        new_root_key: new_root.then(|| root_key_file.map_or_else(here, Path::to_owned)),
        is_running: tell::reload(&config.admin_socket).await?.is_some(),
    })
}

/// Says what [`rotate`] would do.
///
/// # Errors
/// When there is nothing to rotate to, or the state cannot be read.
pub fn plan(config: &Config, now: SystemTime) -> anyhow::Result<Plan> {
    let book = AuthorityFiles::look(&config.state_dir)?.book()?;
    let active = book.active()?;
    let next = book
        .next()
        .context("there is no next issuing authority; prepare one with `fairlead-gateway ca issue`")?;
    if !(next.above.not_before()..next.above.not_after()).contains(&now) {
        bail!("issuing authority {} is not valid now; prepare another", next.number);
    }
    let mut plan = Plan {
        from: active.number,
        to: next.number,
        new_root: (next.root != active.root).then_some(next.root),
        stranded: Vec::new(),
        lost: Vec::new(),
        join_strings: Vec::new(),
    };
    if plan.new_root.is_none() {
        return Ok(plan);
    }
    let (store, root) = (store(config)?, hex(&next.above.root_sha256()));
    let absent = i64::try_from(config.certificates.absent.as_secs()).unwrap_or(i64::MAX);
    for agent in store.agents(&SiteScope::Every)? {
        if agent.disabled || agent.spki.is_none() || agent.roots.contains(&root) {
            continue;
        }
        let is_lost = agent
            .not_after
            .is_some_and(|end| end.saturating_add(absent) < unix(now));
        let list = if is_lost { &mut plan.lost } else { &mut plan.stranded };
        list.push(Stranded {
            agent: agent.id.to_string(),
            last_seen: agent.last_seen,
        });
    }
    plan.join_strings = store.waiting_tokens(unix(now))?;
    Ok(plan)
}

/// Puts the next issuing authority in force. Returns whether a running gateway has taken it up.
///
/// # Errors
/// When somebody else was quicker, a file cannot be written, or the running gateway keeps what it has.
pub async fn rotate(config: &Config, plan: &Plan, now: SystemTime) -> anyhow::Result<bool> {
    let files = AuthorityFiles::open(&config.state_dir)?;
    let turn = files.turn()?;
    // Whoever holds the log writes the line: the running gateway when it takes the change up, else this command.
    let log = AuditLog::open(&config.state_dir.join("audit.jsonl"), &config.domain).ok();
    if let Some(log) = &log {
        let mut record = Record::new("ca.change");
        record.decision = Some("allow".into());
        record.fact("issuing_from", plan.from);
        record.fact("issuing_to", plan.to);
        log.append(&record).context("the audit log cannot be written")?;
        log.sync()?;
    }
    files.put_in_force(&turn, plan.to, now)?;
    if log.is_some() {
        return Ok(false);
    }
    match tell::reload(&config.admin_socket).await? {
        Some(_) => Ok(true),
        None => bail!(
            "the files put issuing authority {} in force, but the gateway that runs here does not answer on {}; \
             send it SIGHUP",
            plan.to,
            config.admin_socket.display()
        ),
    }
}

fn store(config: &Config) -> anyhow::Result<SqliteStore> {
    Ok(SqliteStore::open(&state_file(&config.state_dir))?)
}
