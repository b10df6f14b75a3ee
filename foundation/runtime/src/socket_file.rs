//! A unix socket's file: taken when nobody answers on it, right mode from the moment it can be found, removed at the end.
//!
//! Whose questions are answered on it, and how, belongs to the room that listens.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

const SOCKET_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o750;
/// How long a process behind an existing socket gets to accept before it counts as alive but busy.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Why the socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error("another process already answers on {path}; stop it, or give this one a socket of its own")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{path} is there and is not a socket; move it away, or choose another place")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Everybody may replace files in its directory.
    #[error(
        "the directory of {path} can be written by everybody, so anybody could take the socket's place; run: chmod o-w {directory}"
    )]
    OpenDirectory {
        /// The socket.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// The system refused.
    #[error("cannot {act} for the socket {path}: {source}")]
    System {
        /// What was tried.
        act: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening unix socket and its file.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that only our own file is ever removed.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// Listens at `path`; replaces a socket on which nobody answers.
    ///
    /// # Errors
    /// [`SocketError`]; a socket on which somebody answers is never replaced.
    pub async fn take(path: &Path) -> Result<Self, SocketError> {
        let failed = |act: &'static str| {
            let path = path.to_owned();
            move |source| SocketError::System { act, path, source }
        };
        directory(path)?;
        nobody_answers(path).await?;
        // Made under another name and moved into place: at `path` it never stands with a wider mode, and never half made.
        let made = path.with_extension(format!("new-{}", std::process::id()));
        let bound = bind_at(&made);
        let listener = bound.map_err(failed("listen"))?;
        let moved = std::fs::rename(&made, path);
        if moved.is_err() {
            remove_quietly(&made);
        }
        moved.map_err(failed("put the file in place"))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity: identity(path),
        })
    }

    /// What connections come from.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Removes the file, unless another process has taken its place.
    pub fn remove(self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            remove_quietly(&self.path);
        }
    }
}

fn bind_at(path: &Path) -> io::Result<UnixListener> {
    remove_quietly(path);
    let listener = UnixListener::bind(path)?;
    match std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)) {
        Ok(()) => Ok(listener),
        Err(error) => {
            remove_quietly(path);
            Err(error)
        }
    }
}

fn directory(path: &Path) -> Result<(), SocketError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |act| {
        move |source| SocketError::System {
            act,
            path: path.to_owned(),
            source,
        }
    };
    match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed("make the directory")(error)),
        _ => {}
    }
    let mode = std::fs::metadata(directory)
        .map_err(failed("look at the directory"))?
        .mode();
    // With the sticky bit (as on /tmp) only a file's owner replaces it.
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        return Err(SocketError::OpenDirectory {
            path: path.to_owned(),
            directory: directory.to_owned(),
        });
    }
    Ok(())
}

async fn nobody_answers(path: &Path) -> Result<(), SocketError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(SocketError::System {
                act: "look at the file",
                path: path.to_owned(),
                source,
            });
        }
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match tokio::time::timeout(PROBE_LIMIT, UnixStream::connect(path)).await {
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(()),
        Ok(Err(source)) => Err(SocketError::System {
            act: "see who answers",
            path: path.to_owned(),
            source,
        }),
        Ok(Ok(_)) | Err(_) => Err(SocketError::InUse { path: path.to_owned() }),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn remove_quietly(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "a socket file cannot be removed");
        }
        _ => {}
    }
}
