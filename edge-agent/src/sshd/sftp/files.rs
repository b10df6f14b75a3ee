//! File operations. They block: [`super::serve`] runs them where they may.

use std::fs::{self, DirBuilder, File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use russh_sftp::protocol::{FileAttributes, OpenFlags};

use super::refusal::Refusal;

/// Permission bits that a client may set: those of `chmod`.
const MODE: u32 = 0o7777;

pub(super) fn open(path: &Path, flags: OpenFlags, attrs: &FileAttributes) -> Result<File, Refusal> {
    // Never waits for the other end of a FIFO or a line's carrier, and never makes a terminal ours.
    let mut more = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let mut options = OpenOptions::new();
    let writes = flags.intersects(OpenFlags::WRITE | OpenFlags::APPEND);
    options.read(flags.contains(OpenFlags::READ) || !writes).write(writes);
    // These by number, because the standard library forbids combinations that the protocol allows (append and truncate).
    for (flag, bit) in [
        (OpenFlags::APPEND, OFlag::O_APPEND),
        (OpenFlags::CREATE, OFlag::O_CREAT),
        (OpenFlags::TRUNCATE, OFlag::O_TRUNC),
        (OpenFlags::EXCLUDE, OFlag::O_EXCL),
    ] {
        more.set(bit, flags.contains(flag));
    }
    options
        .custom_flags(more.bits())
        .mode(attrs.permissions.map_or(0o666, |mode| mode & MODE));
    Ok(options.open(path)?)
}

/// Up to `length` bytes; fewer only at the end of the file or where the device gives no more.
pub(super) fn read(file: &File, offset: u64, length: u32) -> Result<Vec<u8>, Refusal> {
    let mut data = vec![0; length as usize];
    let mut filled = 0;
    while let Some(rest) = data.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if filled > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    data.truncate(filled);
    if filled == 0 && length > 0 {
        Err(Refusal::end())
    } else {
        Ok(data)
    }
}

/// Writes all of `data`; to a file opened for appending the offset means nothing.
pub(super) fn write(file: &File, offset: u64, data: &[u8]) -> Result<(), Refusal> {
    Ok(file.write_all_at(data, offset)?)
}

pub(super) fn stat(path: &Path) -> Result<Metadata, Refusal> {
    Ok(fs::metadata(path)?)
}

pub(super) fn lstat(path: &Path) -> Result<Metadata, Refusal> {
    Ok(fs::symlink_metadata(path)?)
}

pub(super) fn fstat(file: &File) -> Result<Metadata, Refusal> {
    Ok(file.metadata()?)
}

/// Changes size, permissions and times, in this order, as far as they are given.
pub(super) fn set(path: &Path, attrs: &FileAttributes) -> Result<(), Refusal> {
    refuse_owner(attrs)?;
    if let Some(size) = attrs.size {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
        options.open(path)?.set_len(size)?;
    }
    if let Some(mode) = attrs.permissions {
        fs::set_permissions(path, Permissions::from_mode(mode & MODE))?;
    }
    set_times(path, attrs, UtimensatFlags::FollowSymlink)
}

/// Changes a link's own times; a link has no permissions of its own on Linux, which is no failure.
pub(super) fn set_link(path: &Path, attrs: &FileAttributes) -> Result<(), Refusal> {
    refuse_owner(attrs)?;
    set_times(path, attrs, UtimensatFlags::NoFollowSymlink)
}

pub(super) fn fset(file: &File, attrs: &FileAttributes) -> Result<(), Refusal> {
    refuse_owner(attrs)?;
    if let Some(size) = attrs.size {
        file.set_len(size)?;
    }
    if let Some(mode) = attrs.permissions {
        file.set_permissions(Permissions::from_mode(mode & MODE))?;
    }
    if let (Some(accessed), Some(modified)) = (attrs.atime, attrs.mtime) {
        let at = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
        file.set_times(FileTimes::new().set_accessed(at(accessed)).set_modified(at(modified)))?;
    }
    Ok(())
}

fn refuse_owner(attrs: &FileAttributes) -> Result<(), Refusal> {
    if attrs.uid.is_some() || attrs.gid.is_some() {
        return Err(Refusal::unsupported("changing the owner"));
    }
    Ok(())
}

fn set_times(path: &Path, attrs: &FileAttributes, flags: UtimensatFlags) -> Result<(), Refusal> {
    if let (Some(accessed), Some(modified)) = (attrs.atime, attrs.mtime) {
        let at = |seconds: u32| TimeSpec::from_duration(Duration::from_secs(seconds.into()));
        utimensat(AT_FDCWD, path, &at(accessed), &at(modified), flags)?;
    }
    Ok(())
}

pub(super) fn make_directory(path: &Path, attrs: &FileAttributes) -> Result<(), Refusal> {
    let mode = attrs.permissions.map_or(0o777, |mode| mode & MODE);
    Ok(DirBuilder::new().mode(mode).create(path)?)
}

pub(super) fn remove_directory(path: &Path) -> Result<(), Refusal> {
    Ok(fs::remove_dir(path)?)
}

pub(super) fn remove(path: &Path) -> Result<(), Refusal> {
    Ok(fs::remove_file(path)?)
}

/// Renames without replacing anything, as version 3 of the protocol demands.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), Refusal> {
    // A hard link fails atomically where the name is taken. Directories, and file systems without links, get a check.
    if fs::symlink_metadata(from)?.is_file() {
        match fs::hard_link(from, to) {
            Ok(()) => return Ok(fs::remove_file(from)?),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error.into()),
            Err(_) => {}
        }
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(fs::rename(from, to)?),
        Err(error) => Err(error.into()),
    }
}

/// Renames, replacing what is there (`posix-rename@openssh.com`).
pub(super) fn replace(from: &Path, to: &Path) -> Result<(), Refusal> {
    Ok(fs::rename(from, to)?)
}

pub(super) fn hard_link(from: &Path, to: &Path) -> Result<(), Refusal> {
    Ok(fs::hard_link(from, to)?)
}

pub(super) fn symlink(content: &Path, link: &Path) -> Result<(), Refusal> {
    Ok(std::os::unix::fs::symlink(content, link)?)
}

pub(super) fn read_link(path: &Path) -> Result<PathBuf, Refusal> {
    Ok(fs::read_link(path)?)
}

/// The path without links and dots. Its last part need not exist: clients ask before they create.
pub(super) fn real_path(path: &Path) -> Result<PathBuf, Refusal> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
            _ => Err(error.into()),
        },
        real => Ok(real?),
    }
}

pub(super) fn sync(file: &File) -> Result<(), Refusal> {
    Ok(file.sync_all()?)
}
