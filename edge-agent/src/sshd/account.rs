//! Local users: the one who runs the agent, as whom everything runs unless the customer lists others ([`super::switching`]).

use std::path::PathBuf;

use nix::unistd::{Uid, User};

/// Ordinary people's user ids, as Debian's adduser gives them out; outside are root, services and `nobody`.
const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=60000;

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory; where shells and commands start and what relative sftp paths start from.
    pub home: PathBuf,
    /// Login shell as the user database has it; may be one that refuses logins.
    pub shell: PathBuf,
}

/// Why the current account could not be found.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The user database could not be read.
    #[error("cannot look up user id {uid} in the user database: {source}")]
    Lookup {
        /// The effective user id.
        uid: u32,
        /// What the lookup said.
        source: nix::Error,
    },
    /// The id has no entry.
    #[error(
        "user id {uid} has no entry in the user database: builtin:ssh needs a name, home and shell to log in to; add the user or run the agent as one that exists"
    )]
    Unknown {
        /// The effective user id.
        uid: u32,
    },
}

impl Account {
    /// The account this process runs as.
    ///
    /// # Errors
    /// When the effective user id is not in the user database, or that cannot be read.
    pub fn current() -> Result<Self, AccountError> {
        let uid = Uid::effective();
        match User::from_uid(uid) {
            Ok(Some(user)) => Ok(Self {
                name: user.name,
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                home: user.dir,
                shell: user.shell,
            }),
            Ok(None) => Err(AccountError::Unknown { uid: uid.as_raw() }),
            Err(source) => Err(AccountError::Lookup {
                uid: uid.as_raw(),
                source,
            }),
        }
    }

    /// Whether this is no person's account: root, a service's user, `nobody`, or one whose shell refuses logins.
    ///
    /// [`super::serve`] does not ask: whether a service account may be logged in to is the customer's decision.
    #[must_use]
    pub fn is_service_account(&self) -> bool {
        !PEOPLE.contains(&self.uid) || self.refuses_logins()
    }

    /// The shell to start: the account's own, or `/bin/sh` where that is missing or would only refuse.
    #[must_use]
    pub(super) fn login_shell(&self) -> PathBuf {
        if self.shell.as_os_str().is_empty() || self.refuses_logins() {
            PathBuf::from("/bin/sh")
        } else {
            self.shell.clone()
        }
    }

    pub(super) fn refuses_logins(&self) -> bool {
        self.shell
            .file_name()
            .is_some_and(|name| name == "nologin" || name == "false")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: u32, shell: &str) -> Account {
        Account {
            name: "pi".into(),
            uid,
            gid: uid,
            home: "/home/pi".into(),
            shell: shell.into(),
        }
    }

    #[test]
    fn people_are_told_from_services() {
        assert!(!account(1000, "/bin/bash").is_service_account());
        assert!(!account(60000, "").is_service_account());
        for (uid, shell) in [
            (0, "/bin/bash"),
            (999, "/bin/sh"),
            (60001, "/bin/sh"),
            (65534, "/bin/sh"),
            (1000, "/usr/sbin/nologin"),
            (1000, "/bin/false"),
        ] {
            assert!(account(uid, shell).is_service_account(), "{uid} {shell}");
        }
    }

    #[test]
    fn a_shell_that_refuses_logins_is_replaced() {
        assert_eq!(account(1000, "/bin/bash").login_shell(), PathBuf::from("/bin/bash"));
        for shell in ["", "/usr/sbin/nologin", "/bin/false"] {
            assert_eq!(account(999, shell).login_shell(), PathBuf::from("/bin/sh"), "{shell}");
        }
    }

    #[test]
    fn the_current_account_is_found() {
        assert_eq!(Account::current().unwrap().uid, Uid::effective().as_raw());
    }
}
