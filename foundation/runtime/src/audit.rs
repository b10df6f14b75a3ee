//! The audit file: one JSON line per event, each holding the hash of the line before it, written before the act it
//! records.
//!
//! Audit is not logging: who cannot append must not act. What the chain alone finds is an edit, a deletion, a swap or
//! an insertion; a cut at the end, and an edit of the last line, need a signed checkpoint, for which [`AuditLog::head`]
//! is the seam. Which events there are belongs to the rooms that record them.

mod open;
mod record;
mod unended;
mod verify;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::tasks::TaskGroup;

pub use record::{Line, Record};
pub use unended::unended;
pub use verify::{BadLine, FirstBad, Verified, verify, verify_since};

/// The version of the schema, the field `v` of every line.
pub const VERSION: u32 = 1;
/// Longest line, its line break included, in bytes. Facts that do not fit are left out and counted.
pub const MAX_LINE: usize = 64 * 1024;
/// The field `prev` of the first line of all.
pub const NO_PREVIOUS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// How often what was written is brought to the disk by [`keep_synced`].
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Why the audit file cannot be used. Whoever gets this refuses the act.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The operating system refuses.
    #[error("the audit file {} cannot be {what}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as a past participle.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Another process writes to it.
    #[error("the audit file {} is in use by another process; stop it, or give this one a file of its own", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It is a directory, a pipe or a device.
    #[error("the audit file {} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others may write to it.
    #[error("the audit file {} may be changed by others (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its end holds no line from which the chain could go on.
    #[error("the end of the audit file {} is no audit record; keep it as evidence under another name and start again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// At the path of a renamed file there is one that already has lines.
    #[error("{} holds lines already and cannot take the place of the renamed audit file; remove it", path.display())]
    OtherChain {
        /// The file.
        path: PathBuf,
    },
    /// Even without its facts the record is longer than a line may be.
    #[error("an audit record of {bytes} bytes is longer than {MAX_LINE}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// Where the chain stands: the last line's number and hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of the last line; 0 before the first.
    pub seq: u64,
    /// SHA-256 of the last line without its line break, in hex; [`NO_PREVIOUS`] before the first.
    pub hash: String,
}

/// Prints `SEQ:HASH`.
impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

/// A text is not `SEQ:HASH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write SEQ:HASH as an earlier check printed it, for instance 17:9f86d0… with 64 hexadecimal digits")]
pub struct NotAHead;

impl std::str::FromStr for Head {
    type Err = NotAHead;

    fn from_str(text: &str) -> Result<Self, NotAHead> {
        let (seq, hash) = text.split_once(':').ok_or(NotAHead)?;
        if hash.len() != NO_PREVIOUS.len() || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAHead);
        }
        Ok(Self {
            seq: seq.parse().map_err(|_| NotAHead)?,
            hash: hash.to_ascii_lowercase(),
        })
    }
}

/// The audit file of one program; this process is its only writer.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    node: String,
    chain: Mutex<Chain>,
}

#[derive(Debug)]
struct Chain {
    file: Arc<File>,
    head: Head,
    /// Where the last whole line ends.
    length: u64,
    /// A failed write may have left a piece of a line after `length`.
    torn: bool,
    /// Something was written since the last sync.
    unsynced: bool,
    /// Kept between lines, so that a line costs one write and no allocation of its size.
    line: Vec<u8>,
}

impl AuditLog {
    /// Opens or creates the file (mode 0600), takes its lock, and goes on after its last whole line. `node` is this
    /// program's name in every line.
    ///
    /// A torn last line, left by a crash, is moved to a file beside it that ends in `.torn`, and a record says so.
    ///
    /// # Errors
    /// [`AuditError`]; the program must not serve then.
    pub fn open(path: &Path, node: &str) -> Result<Self, AuditError> {
        let (chain, cut) = open::open(path)?;
        let log = Self {
            path: path.to_owned(),
            node: node.to_owned(),
            chain: Mutex::new(chain),
        };
        if let Some(cut) = cut {
            log.append(&cut.into_record())?;
        }
        Ok(log)
    }

    /// Writes one record and returns its number. The line has been handed to the operating system when this returns:
    /// it survives the end of this process, and a power cut after the next [`sync`](Self::sync).
    ///
    /// Costs one hash and one `write` of the line; callers take turns. It may wait as long as the disk does.
    ///
    /// # Errors
    /// [`AuditError`]; nothing was recorded then, and what the record announces must not happen.
    pub fn append(&self, record: &Record) -> Result<u64, AuditError> {
        self.append_at(record, SystemTime::now())
    }

    /// As [`append`](Self::append), with the moment given.
    ///
    /// # Errors
    /// Those of [`append`](Self::append).
    pub fn append_at(&self, record: &Record, at: SystemTime) -> Result<u64, AuditError> {
        let ts = record::timestamp(at);
        let mut chain = self.chain();
        chain.mend().map_err(self.failed("mended"))?;
        let seq = chain.head.seq.saturating_add(1);
        let Chain { line, head, .. } = &mut *chain;
        let whole = Line {
            v: VERSION,
            seq,
            prev: &head.hash,
            ts: &ts,
            node: &self.node,
            record,
        };
        if compose(line, &whole).map_err(self.failed("written"))? > MAX_LINE {
            let shortened = record.without_facts();
            let bytes = compose(
                line,
                &Line {
                    record: &shortened,
                    ..whole
                },
            )
            .map_err(self.failed("written"))?;
            if bytes > MAX_LINE {
                return Err(AuditError::TooLong { bytes });
            }
        }
        chain.write().map_err(self.failed("written"))?;
        chain.head.seq = seq;
        Ok(seq)
    }

    /// Where the chain stands now.
    pub fn head(&self) -> Head {
        self.chain().head.clone()
    }

    /// Brings what was written to the disk. Waits for the disk, but lets others append meanwhile.
    ///
    /// # Errors
    /// [`AuditError::Io`]; lines written since the last success may be lost by a power cut.
    pub fn sync(&self) -> Result<(), AuditError> {
        let file = {
            let mut chain = self.chain();
            if !std::mem::take(&mut chain.unsynced) {
                return Ok(());
            }
            Arc::clone(&chain.file)
        };
        file.sync_data().map_err(|error| {
            self.chain().unsynced = true;
            self.failed("brought to the disk")(error)
        })
    }

    /// Goes on in a new file at the same path, after somebody renamed the old one (log rotation). The chain goes on:
    /// the new file's first line holds the hash of the old one's last. Without a rename nothing happens.
    ///
    /// # Errors
    /// [`AuditError`]; the old file stays in use.
    pub fn reopen(&self) -> Result<(), AuditError> {
        self.sync()?;
        let mut chain = self.chain();
        if let Some(file) = open::replacement(&self.path, &chain.file)? {
            chain.file = Arc::new(file);
            chain.length = 0;
            chain.torn = false;
        }
        Ok(())
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> AuditError {
        let path = self.path.clone();
        move |source| AuditError::Io {
            path: path.clone(),
            what,
            source,
        }
    }
}

/// Calls [`AuditLog::sync`] once a second until the group's token is cancelled. A failure is logged and tried again;
/// the owner calls `sync` once more when everything else has ended.
pub async fn keep_synced(log: Arc<AuditLog>, group: TaskGroup) {
    let mut ticks = tokio::time::interval(SYNC_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let token = group.token().clone();
    while token.run_until_cancelled(ticks.tick()).await.is_some() {
        if !log.chain().unsynced {
            continue;
        }
        let same = Arc::clone(&log);
        match group.blocking("audit sync", move || same.sync()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "audit records are not safe from a power cut"),
            Err(error) => tracing::debug!(%error, "the last audit sync is left to the owner"),
        }
    }
}

impl Chain {
    /// Removes what a failed write left, so that the next line begins where a line should.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Writes the composed line, whole or not at all.
    fn write(&mut self) -> io::Result<()> {
        if let Err(error) = (&*self.file).write_all(&self.line) {
            self.torn = true;
            // Now if possible, so that readers do not see the piece; else before the next line.
            drop(self.mend());
            return Err(error);
        }
        self.length = self
            .length
            .saturating_add(u64::try_from(self.line.len()).unwrap_or(u64::MAX));
        self.unsynced = true;
        self.head.hash = hash(self.line.strip_suffix(b"\n").unwrap_or(&self.line));
        Ok(())
    }
}

/// Puts the line and its break into `buffer` and returns the length.
fn compose(buffer: &mut Vec<u8>, line: &Line<'_>) -> io::Result<usize> {
    buffer.clear();
    serde_json::to_writer(&mut *buffer, line)?;
    buffer.push(b'\n');
    Ok(buffer.len())
}

/// SHA-256 of any bytes in hex, as the chain and the digests of files in audit lines are written.
pub fn hash(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a String does not fail.
        let _infallible = write!(hex, "{byte:02x}");
    }
    hex
}

/// What was cut from the end of the file when it was opened.
struct Cut {
    bytes: u64,
    sha256: String,
    file: PathBuf,
}

impl Cut {
    fn into_record(self) -> Record {
        let facts = Map::from_iter([
            ("bytes".to_owned(), Value::from(self.bytes)),
            ("sha256".to_owned(), Value::from(self.sha256)),
            ("file".to_owned(), Value::from(self.file.display().to_string())),
        ]);
        Record {
            event: "audit.torn".into(),
            reason: Some("the file ended inside a line; the piece was moved".into()),
            facts: Some(facts),
            ..Record::default()
        }
    }
}

#[cfg(test)]
mod tests;
