//! `fairlead-gateway backup` and `restore`: everything a gateway is, in one sealed file.
//!
//! In it: the authority, the SSH keys, a copy of the database of one moment, the last good policy, gateway.yaml and the
//! access policy's files. Not in it: the audit log, which is a file of lines and grows for ever; copy it by itself.
//!
//! A backup is put back on an empty machine only. What it says is true again: who was let in, and who was shut out. Join
//! strings are the exception: whoever holds one from that time may have lost it since, so all of them end.

mod archive;
mod command;
mod seal;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use fairlead_runtime::audit::{AuditLog, Record};
use fairlead_runtime::config_file::{Mistake, private_dir, write_private};

use crate::authority::AuthorityFiles;
use crate::config::{self, Config};
use crate::init::state_file;
use crate::registry::unix;
use crate::store::{SqliteStore, backup as database};

pub use archive::Archive;
pub use command::{Backup, Restore, Told};
pub use seal::{Key, Lock};

/// The settings' name in an archive.
const SETTINGS: &str = "config/gateway.yaml";
/// The folder of the access policy's files in an archive.
const ACCESS: &str = "config/access.d/";
/// The folder of the state in an archive.
const STATE: &str = "state/";
/// The database's name in an archive.
const DATABASE: &str = "state/state.db";

/// Takes everything that the gateway of this file is; one that runs goes on.
///
/// # Errors
/// When a file cannot be read, or an authority is being made or put in force at this moment.
pub fn take(config_file: &Path, config: &Config, now: SystemTime) -> anyhow::Result<Archive> {
    let files = AuthorityFiles::look(&config.state_dir)?;
    files.load(now)?;
    note(config, "gateway.backup");
    // Nobody changes the authority between its files.
    let _turn = files.turn()?;
    let mut archive = Archive::new(now);
    archive.add(SETTINGS, read(config_file)?)?;
    for file in access_files(config) {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        archive.add(&format!("{ACCESS}{name}"), read(&file)?)?;
    }
    let copy = config.state_dir.join(format!(".backup.{}", std::process::id()));
    drop(std::fs::remove_file(&copy));
    let copied = database::copy(&state_file(&config.state_dir), &copy).map_err(anyhow::Error::from);
    let bytes = copied.and_then(|()| read(&copy));
    drop(std::fs::remove_file(&copy));
    archive.add(DATABASE, bytes?)?;
    for (name, file) in state_files(&config.state_dir)? {
        archive.add(&format!("{STATE}{name}"), read(&file)?)?;
    }
    Ok(archive)
}

/// Puts the settings and the access policy in their places; what is there stays. Gives the settings and what was made.
///
/// # Errors
/// When a file cannot be written, has mistakes, or is another gateway's.
pub fn restore_settings(archive: &Archive, config_file: &Path) -> anyhow::Result<(Config, Vec<PathBuf>)> {
    let mut made = Vec::new();
    let kept = archive.get(SETTINGS).context("the backup lacks gateway.yaml")?;
    let folder = config_file.parent().unwrap_or(Path::new(".")).join("access.d");
    for name in archive.names().filter(|name| name.starts_with(ACCESS)) {
        let file = folder.join(name.trim_start_matches(ACCESS));
        if !file.exists() {
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            write_private(&file, archive.get(name).unwrap_or_default(), 0o644)?;
            made.push(file);
        }
    }
    if !config_file.exists() {
        if let Some(parent) = config_file.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        write_private(config_file, kept, 0o644)?;
        made.push(config_file.to_owned());
    }
    let config = config::load(config_file).map_err(|mistakes| {
        let mistakes: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
        anyhow::anyhow!(mistakes.join("\n"))
    })?;
    Ok((config, made))
}

/// Puts the state in its place, which must be empty, and ends all join strings. Gives how many were still good.
///
/// # Errors
/// When there is a state already, a file cannot be written, or what was put there is not a gateway's of these settings.
pub fn restore_state(archive: &Archive, config: &Config, now: SystemTime) -> anyhow::Result<u64> {
    is_empty(&config.state_dir)?;
    private_dir(&config.state_dir)?;
    // The database last: without it a state that was put back by half is none.
    let files = archive
        .names()
        .filter(|name| name.starts_with(STATE) && *name != DATABASE);
    for name in files.chain([DATABASE]) {
        let bytes = archive.get(name).with_context(|| format!("the backup lacks {name}"))?;
        let file = config.state_dir.join(name.trim_start_matches(STATE));
        if let Some(parent) = file.parent() {
            private_dir(parent)?;
        }
        write_private(&file, bytes, 0o600)?;
    }
    crate::own_authorities(config, now)?;
    let mut store = SqliteStore::open(&state_file(&config.state_dir))?;
    let ended = store.end_tokens(unix(now))?;
    note(config, "gateway.restore");
    Ok(ended)
}

/// Whether a backup may be put here.
///
/// # Errors
/// In words, when there is anything.
pub fn is_empty(state_dir: &Path) -> anyhow::Result<()> {
    match std::fs::read_dir(state_dir) {
        Ok(mut entries) => match entries.next() {
            Some(_) => bail!(
                "{} is not empty, and a backup never overwrites: stop the gateway and move it away first",
                state_dir.display()
            ),
            None => Ok(()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", state_dir.display())),
    }
}

/// Seals `archive` and writes it to `out`.
///
/// # Errors
/// When it cannot be sealed or written.
pub fn write(archive: &Archive, lock: &Lock, out: &mut dyn Write) -> anyhow::Result<()> {
    let packed = archive.pack()?;
    lock.seal(&packed, out)
}

/// Opens what [`write`] made.
///
/// # Errors
/// With another key, or when the file is damaged, too long or no backup.
pub fn open(sealed: &[u8], key: &Key) -> anyhow::Result<Archive> {
    Archive::unpack(&key.open(sealed)?)
}

/// How long ago, in words for the person who restores.
pub fn age_of(archive: &Archive, now: SystemTime) -> String {
    let seconds = now.duration_since(archive.made()).unwrap_or_default().as_secs();
    let (count, unit) = match seconds {
        ..120 => (seconds, "seconds"),
        120..7_200 => (seconds / 60, "minutes"),
        7_200..172_800 => (seconds / 3_600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit}")
}

/// A line in the gateway's own log; the running gateway holds it, and then the act has none.
fn note(config: &Config, event: &'static str) {
    let Ok(log) = AuditLog::open(&config.state_dir.join("audit.jsonl"), &config.domain) else {
        return;
    };
    let written = log.append(&Record::new(event)).map(drop);
    if let Err(error) = written.and_then(|()| log.sync()) {
        tracing::warn!(%error, event, "not in the audit log");
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn access_files(config: &Config) -> Vec<PathBuf> {
    let below = |path: &PathBuf| match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![path.clone()],
    };
    let mut files: Vec<PathBuf> = config.access.iter().flat_map(below).collect();
    files.retain(|file| file.is_file() && file.extension().is_some_and(|ending| ending == "yaml"));
    files
}

/// What lies in the state but for the database, the audit log, and what is being written: names below it, and files.
fn state_files(state_dir: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for folder in ["", "ca/", "ssh/"] {
        let dir = state_dir.join(folder);
        let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", dir.display()))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let left_out = ["state.db", "audit.jsonl", "lock", "."];
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file && !left_out.iter().any(|start| name.starts_with(start)) {
                found.push((format!("{folder}{name}"), entry.path()));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
