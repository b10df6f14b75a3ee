//! The statements of callers, in the customer's keeping: a file of JSON lines that contains whatever callers write, data and
//! passwords among it.
//!
//! Lines are written before the statements go on to the database, so that what ran stands in the file. It is not the audit
//! log: lines are not chained. Deliberately not here: what a statement is, and which callers have one.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;

/// Why statements cannot be written down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("{} cannot be written: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is no file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} holds data and is open to others (mode {mode:04o}); run: chmod 640 {}", path.display(), path.display())]
    TooOpen { path: PathBuf, mode: u32 },
}

/// One file, for all sessions that write to it.
#[derive(Debug)]
pub(crate) struct StatementLog {
    path: PathBuf,
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    /// The last line may be a piece: a line break goes before the next.
    torn: bool,
}

impl StatementLog {
    fn open(path: &Path) -> Result<Self, LogError> {
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(Writer {
                file: open(path)?,
                torn: false,
            }),
        })
    }

    /// Writes whole lines, or says that it could not.
    pub(crate) fn write(&self, lines: &[u8]) -> Result<(), LogError> {
        let written = self.writer().write(lines);
        written.map_err(|source| LogError::Io {
            path: self.path.clone(),
            source,
        })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
        }
        self.torn = true;
        self.file.write_all(lines)?;
        self.torn = false;
        Ok(())
    }
}

/// The files in use, by path.
#[derive(Debug, Default)]
pub(crate) struct StatementLogs {
    open: Mutex<BTreeMap<PathBuf, Arc<StatementLog>>>,
}

impl StatementLogs {
    /// The log at `path`, which takes lines as far as can be told: one that failed has taken a line break since.
    pub(crate) fn ready(&self, path: &Path) -> Result<Arc<StatementLog>, LogError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = open.get(path) {
            log.write(&[])?;
            return Ok(Arc::clone(log));
        }
        let log = Arc::new(StatementLog::open(path)?);
        open.insert(path.to_owned(), Arc::clone(&log));
        Ok(log)
    }

    /// Opens the files again, for whoever moves them away, and lets go of those without a session. A file that cannot be
    /// opened goes on as it was.
    pub(crate) fn reopen(&self) {
        let mut logs = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|_, log| Arc::strong_count(log) > 1);
        for log in logs.values() {
            match open(&log.path) {
                Ok(file) => *log.writer() = Writer { file, torn: false },
                Err(error) => tracing::error!(%error, "the statement log goes on in its old file"),
            }
        }
    }
}

fn open(path: &Path) -> Result<File, LogError> {
    let failed = |source| LogError::Io {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        // A link could lead the lines elsewhere; opening a pipe would wait for its reader.
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(LogError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o027 != 0 {
        return Err(LogError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_a_private_file_that_can_be_moved_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statements.jsonl");
        let logs = StatementLogs::default();
        let log = logs.ready(&path).unwrap();
        log.write(b"one\n").unwrap();
        let moved = dir.path().join("moved");
        std::fs::rename(&path, &moved).unwrap();
        log.write(b"two\n").unwrap();
        logs.reopen();
        log.write(b"three\n").unwrap();
        assert_eq!(std::fs::read(&moved).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_open_to_others_or_none_at_all_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("log"), dir.path().join("link"));
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for mode in [0o644, 0o660, 0o602] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let told = StatementLogs::default().ready(&path).unwrap_err().to_string();
            assert!(told.contains("chmod 640"), "{told}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        StatementLogs::default().ready(&path).unwrap();
        for nowhere in [&link, &dir.path().to_owned(), &dir.path().join("no/log")] {
            StatementLogs::default().ready(nowhere).unwrap_err();
        }
    }

    #[test]
    fn after_a_torn_line_the_next_one_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = StatementLog::open(&path).unwrap();
        log.write(b"{\"a").unwrap();
        log.writer().torn = true;
        log.write(b"{}\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"{\"a\n{}\n");
    }
}
