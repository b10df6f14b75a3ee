//! Files the programs are told by and the files they keep for themselves: who may have written them, how large they
//! may be, what is wrong in them and where, and how they are replaced without ever being half there.
//!
//! What the keys of a file mean belongs to the room that reads it.

mod explain;
mod mistake;
mod parse;
mod private;
mod values;

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use secrecy::SecretString;

pub use mistake::{Mistake, nearest};
pub use parse::parse;
pub use private::{PrivateError, private_dir, write_private};
pub use values::{DurationError, HostPort, HostPortError, HumanDuration, parse_duration};

/// Largest configuration file, in bytes.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Largest file that holds one secret, in bytes.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A file's text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The path as it was given.
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
}

impl Text {
    /// The path as people write it, for [`parse`] and [`Mistake`].
    pub fn file(&self) -> String {
        self.path.display().to_string()
    }
}

/// Why a file is not read. The text names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be opened or read.
    #[error("{} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else than its owner may change it.
    #[error("{} may be changed by others than its owner (mode {mode:04o}); run: chmod go-w {}", path.display(), path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds a secret that every user of the machine may read.
    #[error("{} holds a secret and may be read by everybody (mode {mode:04o}); run: chmod o-rwx {}", path.display(), path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to neither root nor the user the program runs as.
    #[error("{} belongs to user id {owner}, who is neither root nor the user this program runs as; run: chown root {}", path.display(), path.display())]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// Everybody may replace it, whatever its own mode says.
    #[error("{} lies in a directory that everybody may write to; move it, or run: chmod o-w {}", path.display(), parent.display())]
    OpenDirectory {
        /// The file.
        path: PathBuf,
        /// Its directory.
        parent: PathBuf,
    },
    /// It is larger than the limit.
    #[error("{} is larger than {max_bytes} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        max_bytes: u64,
    },
    /// It is not UTF-8 text.
    #[error("{} is not UTF-8 text (line {line})", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The line of the first wrong byte, from 1.
        line: usize,
    },
}

/// Reads a configuration file of at most `max_bytes` (usually [`MAX_BYTES`]).
///
/// What it says decides who reaches what, so it must be a regular file that belongs to root or to the program's own
/// user, that nobody else may write to, in a directory where not everybody may replace it.
///
/// # Errors
/// [`ReadError`], in words for the operator.
pub fn read(path: &Path, max_bytes: u64) -> Result<Text, ReadError> {
    let (file, metadata) = open(path)?;
    check_writers(path, &metadata)?;
    check_directory(path)?;
    let text = read_text(path, file, max_bytes)?;
    Ok(Text {
        path: path.to_owned(),
        text,
    })
}

/// Reads a secret (a password, a join string) of at most [`MAX_SECRET_BYTES`], without the line break at its end.
///
/// On top of [`read`]'s demands, nobody but the owner and the group may read it.
///
/// # Errors
/// [`ReadError`]; it never contains the secret.
pub fn read_secret(path: &Path) -> Result<SecretString, ReadError> {
    let (file, metadata) = open(path)?;
    check_writers(path, &metadata)?;
    let mode = permissions(&metadata);
    if mode & 0o007 != 0 {
        return Err(ReadError::Readable {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = read_text(path, file, MAX_SECRET_BYTES)?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(SecretString::from(text))
}

/// As [`read_secret`]; `-` reads standard input to its end.
///
/// # Errors
/// Those of [`read_secret`].
pub fn read_secret_or_stdin(path: &Path) -> Result<SecretString, ReadError> {
    if path != Path::new("-") {
        return read_secret(path);
    }
    let mut text = String::new();
    let limit = MAX_SECRET_BYTES;
    io::stdin()
        .take(limit.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(|source| ReadError::Io {
            path: path.to_owned(),
            source,
        })?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > limit {
        return Err(ReadError::TooLarge {
            path: path.to_owned(),
            max_bytes: limit,
        });
    }
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(SecretString::from(text))
}

fn open(path: &Path) -> Result<(File, Metadata), ReadError> {
    let failed = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    // Without O_NONBLOCK the opening of a pipe would wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile { path: path.to_owned() });
    }
    Ok((file, metadata))
}

fn check_writers(path: &Path, metadata: &Metadata) -> Result<(), ReadError> {
    let mode = permissions(metadata);
    if mode & 0o022 != 0 {
        return Err(ReadError::Writable {
            path: path.to_owned(),
            mode,
        });
    }
    let owner = metadata.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(ReadError::ForeignOwner {
            path: path.to_owned(),
            owner,
        });
    }
    Ok(())
}

/// A sticky directory such as /tmp lets nobody replace another user's file.
fn check_directory(path: &Path) -> Result<(), ReadError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let metadata = parent.metadata().map_err(|source| ReadError::Io {
        path: path.to_owned(),
        source,
    })?;
    if metadata.permissions().mode() & 0o1002 == 0o0002 {
        return Err(ReadError::OpenDirectory {
            path: path.to_owned(),
            parent: parent.to_owned(),
        });
    }
    Ok(())
}

/// Reads one byte more than the limit, so that a file that grows while it is read is refused too.
fn read_text(path: &Path, file: File, max_bytes: u64) -> Result<String, ReadError> {
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| ReadError::Io {
            path: path.to_owned(),
            source,
        })?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max_bytes {
        return Err(ReadError::TooLarge {
            path: path.to_owned(),
            max_bytes,
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = valid.filter(|byte| **byte == b'\n').count().saturating_add(1);
        ReadError::NotText {
            path: path.to_owned(),
            line,
        }
    })
}

fn permissions(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

#[cfg(test)]
mod tests;
