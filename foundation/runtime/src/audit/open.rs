//! Finds where the chain of an existing file goes on, and cuts off what a crash left.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::verify::link;
use super::{AuditError, Chain, Cut, Head, MAX_LINE, NO_PREVIOUS, hash};

/// How far from the end the last whole line is looked for, in bytes: one line, and as much rubbish after it.
const WINDOW: usize = 2 * MAX_LINE;

/// Opens and locks the file, and returns where its chain stands, with what had to be cut off.
pub(super) fn open(path: &Path) -> Result<(Chain, Option<Cut>), AuditError> {
    let mut file = open_locked(path)?;
    let failed = |what| {
        move |source| AuditError::Io {
            path: path.to_owned(),
            what,
            source,
        }
    };
    let length = file.metadata().map_err(failed("examined"))?.len();
    let window = read_window(&mut file, length).map_err(failed("read"))?;
    let reaches_start = length <= u64::try_from(WINDOW).unwrap_or(u64::MAX);
    let (head, rest) =
        last_whole_line(&window, reaches_start).ok_or_else(|| AuditError::Damaged { path: path.to_owned() })?;
    let whole = length.saturating_sub(u64::try_from(rest.len()).unwrap_or(u64::MAX));
    let cut = match rest {
        [] => None,
        torn => Some(move_aside(path, &file, torn, whole).map_err(failed("mended"))?),
    };
    let chain = Chain {
        file: Arc::new(file),
        head,
        length: whole,
        torn: false,
        unsynced: false,
        line: Vec::new(),
    };
    Ok((chain, cut))
}

/// Opens a fresh file at `path`, locked, unless what is there is still `current`.
pub(super) fn replacement(path: &Path, current: &File) -> Result<Option<File>, AuditError> {
    let failed = |source| AuditError::Io {
        path: path.to_owned(),
        what: "examined",
        source,
    };
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let ours = identity(current.metadata().map_err(failed)?);
    if path.symlink_metadata().is_ok_and(|metadata| identity(metadata) == ours) {
        return Ok(None);
    }
    let file = open_locked(path)?;
    if file.metadata().map_err(failed)?.len() > 0 {
        return Err(AuditError::OtherChain { path: path.to_owned() });
    }
    Ok(Some(file))
}

fn open_locked(path: &Path) -> Result<File, AuditError> {
    let failed = |what| {
        move |source| AuditError::Io {
            path: path.to_owned(),
            what,
            source,
        }
    };
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        // A link could lead the lines elsewhere; opening a pipe would wait for its reader.
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)
        .map_err(failed("opened"))?;
    let metadata = file.metadata().map_err(failed("examined"))?;
    if !metadata.is_file() {
        return Err(AuditError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(AuditError::Writable {
            path: path.to_owned(),
            mode,
        });
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AuditError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed("locked")(error)),
    }
}

fn read_window(file: &mut File, length: u64) -> io::Result<Vec<u8>> {
    let window = u64::try_from(WINDOW).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(length.saturating_sub(window)))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The chain's head as the last line that is a record gives it, and what follows that line. `None` where the chain
/// cannot be found: then nothing is touched.
fn last_whole_line(window: &[u8], reaches_start: bool) -> Option<(Head, &[u8])> {
    let mut end = window.len();
    while let Some(line_break) = window.get(..end)?.iter().rposition(|byte| *byte == b'\n') {
        let before = window.get(..line_break)?;
        let start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map(|at| at.saturating_add(1));
        // A line whose beginning may lie before the window is not judged.
        let start = match start {
            Some(start) => start,
            None if reaches_start => 0,
            None => return None,
        };
        let line = window.get(start..line_break)?;
        if let Some(link) = link(line) {
            let head = Head {
                seq: link.seq,
                hash: hash(line),
            };
            return Some((head, window.get(line_break.saturating_add(1)..)?));
        }
        end = line_break;
    }
    let only_a_beginning = reaches_start && end == window.len() && begins_like_a_line(window);
    only_a_beginning.then(|| {
        (
            Head {
                seq: 0,
                hash: NO_PREVIOUS.to_owned(),
            },
            window,
        )
    })
}

/// Whether a file without a whole line can be ours: empty, the beginning of a first line, or the zeros that some file
/// systems leave after a power cut. Anything else is somebody's file, named here by mistake.
fn begins_like_a_line(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0) || bytes.iter().zip(b"{\"v\":").all(|(is, due)| is == due)
}

/// Copies the torn piece to its own file, safely, before it is cut off.
fn move_aside(path: &Path, file: &File, torn: &[u8], whole: u64) -> io::Result<Cut> {
    let mut name = path.as_os_str().to_owned();
    name.push(".torn");
    let beside = PathBuf::from(name);
    let mut aside = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&beside)?;
    aside.write_all(torn)?;
    aside.write_all(b"\n")?;
    aside.sync_all()?;
    file.set_len(whole)?;
    file.sync_all()?;
    Ok(Cut {
        bytes: u64::try_from(torn.len()).unwrap_or(u64::MAX),
        sha256: hash(torn),
        file: beside,
    })
}
