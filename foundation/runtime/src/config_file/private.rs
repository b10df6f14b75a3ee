//! The program's own files: written whole or not at all, and never readable by others, not even for a moment.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::OFlag;

/// In the name of every file that is being written.
const MARK: &str = ".being-written.";
/// Age after which such a file was left behind by a process that was killed.
const STALE: Duration = Duration::from_secs(600);

/// Why a file or directory of the program's own cannot be used. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The operating system refuses.
    #[error("{} cannot be {what}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a past participle.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The path has no file name.
    #[error("{} is not the name of a file", path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// There is something else where the directory should be.
    #[error("{} is not a directory (or is a link to one); name a directory of its own", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Others may look into the directory, which holds keys.
    #[error("{} is open to others (mode {mode:04o}) and holds keys; run: chmod 700 {}", path.display(), path.display())]
    TooOpen {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The directory belongs to somebody else.
    #[error("{} belongs to user id {owner}, not to the user this program runs as ({user}); run: chown {user} {}", path.display(), path.display())]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
}

/// Puts `bytes` at `path` with exactly the permission bits `mode`, replacing what was there.
///
/// After a crash at any point there is the old file or the new one, whole: the bytes go to a new file in the same
/// directory, which has its mode before its first byte and is on disk before it takes the name. This call waits for the
/// disk; run it through [`crate::tasks::TaskGroup::blocking`] where others must not wait.
///
/// # Errors
/// [`PrivateError::Io`]; what was there stays.
pub fn write_private(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PrivateError> {
    let temporary = temporary_beside(path)?;
    let done = write_new(&temporary, bytes, mode)
        .and_then(|()| std::fs::rename(&temporary, path))
        .and_then(|()| sync_directory(path));
    done.map_err(|source| {
        // After the rename there is nothing to remove, before it nothing else to do about it.
        drop(std::fs::remove_file(&temporary));
        PrivateError::Io {
            path: path.to_owned(),
            what: "written",
            source,
        }
    })
}

/// Makes sure that `path` is a directory only this program's user may enter: creates it with mode 0700 (and missing
/// parents with the usual one), and removes what a killed process left half written.
///
/// # Errors
/// [`PrivateError`] for an existing directory that is looser, foreign or none; it is not changed then, because what lies
/// in it may be known already.
pub fn private_dir(path: &Path) -> Result<(), PrivateError> {
    let failed = |what| {
        move |source| PrivateError::Io {
            path: path.to_owned(),
            what,
            source,
        }
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(failed("created"))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("created")(error)),
    }
    // Not followed: a link would let its owner exchange what it leads to.
    let metadata = path.symlink_metadata().map_err(failed("examined"))?;
    if !metadata.is_dir() {
        return Err(PrivateError::NotADirectory { path: path.to_owned() });
    }
    let (owner, user) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    if owner != user {
        return Err(PrivateError::ForeignOwner {
            path: path.to_owned(),
            owner,
            user,
        });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PrivateError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    sweep(path);
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode & 0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    // The umask may have taken bits that `mode` has.
    file.set_permissions(Permissions::from_mode(mode & 0o777))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Process and counter in the name: two writers never share a file that is being written.
fn temporary_beside(path: &Path) -> Result<PathBuf, PrivateError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| PrivateError::NoName { path: path.to_owned() })?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(
        "{MARK}{}.{}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    Ok(path.with_file_name(temporary))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Removes files left behind by a killed process; a failure leaves rubbish, which is no reason not to start.
fn sweep(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let marked = entry.file_name().to_string_lossy().contains(MARK);
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| time.elapsed().ok());
        if marked && age.is_some_and(|age| age > STALE) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}
