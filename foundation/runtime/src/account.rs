//! Root types a command, but what it writes belongs to the account that the service runs as: the command goes on as that
//! account, so that root neither writes into a directory that somebody else controls nor leaves files there that the
//! service cannot read.
//!
//! Which account that is, is said by the directory alone: whoever owns it.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User};

/// An account of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name; its number where it has none.
    pub name: String,
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// The account that `dir` belongs to, where root asks and it is somebody else's; `None` everywhere else, also where
    /// `dir` is absent.
    ///
    /// # Errors
    /// When the directory or the table of accounts cannot be read.
    pub fn owning(dir: &Path) -> io::Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        // Not followed: a link would let its owner exchange what it leads to.
        let metadata = match dir.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let uid = Uid::from_raw(metadata.uid());
        if uid.is_root() || !metadata.is_dir() {
            return Ok(None);
        }
        let user = User::from_uid(uid)?;
        let gid = user.as_ref().map_or(Gid::from_raw(metadata.gid()), |user| user.gid);
        let name = user.map_or_else(|| uid.to_string(), |user| user.name);
        Ok(Some(Self { name, uid, gid }))
    }

    /// Makes `dir` (0700) and gives it to the account `name`, where root asks, there is such an account, and the
    /// directory is absent. Elsewhere nothing happens.
    ///
    /// # Errors
    /// When it cannot be made or given away.
    pub fn make_dir(dir: &Path, name: &str) -> io::Result<()> {
        if !Uid::effective().is_root() || dir.symlink_metadata().is_ok() {
            return Ok(());
        }
        let Some(user) = User::from_name(name)? else {
            return Ok(());
        };
        DirBuilder::new().mode(0o700).create(dir)?;
        std::os::unix::fs::chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
    }

    /// Runs this very program once more, as this account, with `arguments`, with `input` as its standard input and `output`
    /// as its standard output, and waits for it. Gives its exit code; 1 where a signal ended it.
    ///
    /// # Errors
    /// When it cannot be started, or does not read its input.
    pub fn run_again<A: AsRef<OsStr>>(&self, arguments: &[A], input: &[u8], output: Stdio) -> io::Result<u8> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(output)
            .gid(self.gid.as_raw())
            // Gives up root's supplementary groups too.
            .uid(self.uid.as_raw())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input) {
                // It may know without its input that it will not do it.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        let code = child.wait()?.code();
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_or_absent_belongs_to_no_other_account() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Account::owning(dir.path()).unwrap(), None);
        assert_eq!(Account::owning(&dir.path().join("absent")).unwrap(), None);
        Account::make_dir(&dir.path().join("made"), "no-such-account").unwrap();
        assert!(!dir.path().join("made").exists());
    }

    #[test]
    fn root_makes_a_directory_for_an_account_and_finds_it_again() {
        if !Uid::effective().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        Account::make_dir(&state, "nobody").unwrap();
        let account = Account::owning(&state).unwrap().unwrap();
        assert_eq!(account.name, "nobody");
        assert_eq!(state.metadata().unwrap().mode() & 0o7777, 0o700);
        // A link to it is not it.
        std::os::unix::fs::symlink(&state, dir.path().join("link")).unwrap();
        assert_eq!(Account::owning(&dir.path().join("link")).unwrap(), None);
    }
}
