//! Becoming another local user: who may be asked for, and the programs of the system that do it.
//!
//! The change itself is `su`'s, run by root: PAM says whether the account may be used (expired ones may not) and opens its
//! session, and `su` waits beside the program to close that session. `su` is told to start `env`, which goes to the
//! user's home as the user and becomes the program; so no shell reads anything but the one command that it is given.
//! Nothing a caller writes becomes an option: the name is one that the customer's file lists.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::{Account, Login, Settings};

/// Where `su` of util-linux is; the second where /bin is a directory of its own.
const SU: [&str; 2] = ["/usr/bin/su", "/bin/su"];
const ENV: &str = "/usr/bin/env";
/// The agent's subcommand that serves sftp on its standard input and output.
const SFTP: &str = "sftp-server";
/// What becoming somebody else, giving away a terminal and ending somebody else's programs take: CHOWN, KILL, SETGID, SETUID.
const CAPABILITIES: u64 = 1 | 1 << 5 | 1 << 6 | 1 << 7;

/// The users that callers may become.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// Their names, as the customer's file lists them; root only by its own name. None: everybody is the agent's own user.
    pub listed: Vec<String>,
    /// The agent's own program, which serves files when it is run as one of these.
    pub program: PathBuf,
}

/// As whom a connection's programs run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunAs {
    pub(super) account: Account,
    /// Through `su`; else they are started as what the agent is.
    pub(super) switched: bool,
}

/// Why a caller does not become the user that it asks for. The reason's name comes first: it stays the same when words change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No user is listed: the agent's own account is the only one.
    NotEnabled { own: String, caller: String },
    /// Another user than those listed.
    NotListed { listed: Vec<String> },
    /// Root, whatever its name, without being listed as `root`.
    RootNotEnabled,
    /// Listed, and not in the user database.
    Unknown(String),
    /// Its shell says that nobody logs in.
    NoLogin(String),
    /// The agent is not root, or without the capabilities.
    Unprivileged(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEnabled { own, caller } => write!(
                f,
                "switching-not-enabled: this device logs everybody in as '{own}': connect as {own}@ or {caller}@ instead"
            ),
            Self::NotListed { listed } => write!(
                f,
                "user-not-listed: this device logs callers in as {}@ only",
                listed.join("@, ")
            ),
            Self::RootNotEnabled => f.write_str("root-not-enabled: the owner of this device lets nobody become root"),
            Self::Unknown(name) => write!(f, "user-unknown: this device has no user '{name}'"),
            Self::NoLogin(name) => write!(f, "user-without-login: the user '{name}' has no shell to log in to"),
            Self::Unprivileged(name) => write!(
                f,
                "switching-unprivileged: the agent runs without the privilege to become '{name}'; its owner can give it \
                 (user-switching.conf)"
            ),
        }
    }
}

/// As whom a proven caller runs that logs in as `user`. Reads the user database: may block where that is on a network.
pub(super) fn choose(settings: &Settings, login: &Login, user: &str) -> Result<RunAs, Refusal> {
    let own = &settings.account;
    let listed = &settings.users.listed;
    let is_listed = |name: &str| listed.iter().any(|one| one == name);
    let as_own = || RunAs {
        account: own.clone(),
        switched: false,
    };
    if settings.own_login && (user == own.name || (user == login.caller && !is_listed(user))) {
        return Ok(as_own());
    }
    let name = match listed.as_slice() {
        _ if is_listed(user) => user,
        [] => {
            return Err(Refusal::NotEnabled {
                own: own.name.clone(),
                caller: login.caller.clone(),
            });
        }
        _ if user == "root" => return Err(Refusal::RootNotEnabled),
        // A caller's own name means whoever callers usually are.
        [only] if user == login.caller => only.as_str(),
        _ => {
            let own = settings.own_login.then(|| own.name.clone());
            let listed = own.into_iter().chain(listed.iter().cloned()).collect();
            return Err(Refusal::NotListed { listed });
        }
    };
    let account = find(name)?;
    if account.uid == 0 && !is_listed("root") {
        return Err(Refusal::RootNotEnabled);
    }
    if account.refuses_logins() || !is_plain(&account.login_shell()) {
        return Err(Refusal::NoLogin(name.to_owned()));
    }
    if !is_privileged() {
        return Err(Refusal::Unprivileged(name.to_owned()));
    }
    Ok(RunAs {
        account,
        switched: true,
    })
}

fn find(name: &str) -> Result<Account, Refusal> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(Account {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir,
            shell: user.shell,
        }),
        Ok(None) => Err(Refusal::Unknown(name.to_owned())),
        Err(error) => {
            tracing::warn!(%error, name, "the user database could not be read");
            Err(Refusal::Unknown(name.to_owned()))
        }
    }
}

/// What `env` takes for a program, and not for a variable.
fn is_plain(program: &Path) -> bool {
    program.is_absolute() && !program.as_os_str().as_bytes().contains(&b'=')
}

fn is_privileged() -> bool {
    let held = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    Uid::current().is_root()
        && Uid::effective().is_root()
        && held().is_some_and(|held| held & CAPABILITIES == CAPABILITIES)
}

/// What is started as another user.
#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    Shell,
    Command(&'a str),
    Files,
}

/// The program to start for it and its arguments; `directory` must be absolute.
pub(super) fn command_line(
    account: &Account,
    directory: &Path,
    what: What<'_>,
    users: &Users,
) -> (PathBuf, Vec<OsString>) {
    let [usual, elsewhere] = SU;
    let su = if Path::new(usual).exists() { usual } else { elsewhere };
    let mut go_to = OsString::from("--chdir=");
    go_to.push(directory);
    let mut arguments: Vec<OsString> = vec![
        // The environment is ours already, made for this user; what PAM adds to it is the customer's.
        "--preserve-environment".into(),
        format!("--shell={ENV}").into(),
        "--".into(),
        account.name.clone().into(),
        go_to,
    ];
    match what {
        What::Shell => arguments.extend([account.login_shell().into(), "-l".into()]),
        What::Command(line) => arguments.extend([account.login_shell().into(), "-c".into(), line.into()]),
        What::Files => arguments.extend([users.program.clone().into(), SFTP.into()]),
    }
    (su.into(), arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_writes_is_one_argument_behind_the_shells_option() {
        let account = Account {
            name: "deckhand".into(),
            uid: 1200,
            gid: 1200,
            home: "/home/deckhand".into(),
            shell: "/bin/bash".into(),
        };
        let users = Users {
            listed: vec!["deckhand".into()],
            program: "/usr/bin/fairlead-agent".into(),
        };
        let of = |what| command_line(&account, &account.home, what, &users).1;
        let begin = [
            "--preserve-environment",
            "--shell=/usr/bin/env",
            "--",
            "deckhand",
            "--chdir=/home/deckhand",
        ];
        assert_eq!(
            of(What::Command("--help; id")),
            [&begin[..], &["/bin/bash", "-c", "--help; id"]].concat()
        );
        assert_eq!(of(What::Shell), [&begin[..], &["/bin/bash", "-l"]].concat());
        assert_eq!(
            of(What::Files),
            [&begin[..], &["/usr/bin/fairlead-agent", "sftp-server"]].concat()
        );
    }

    #[test]
    fn who_is_not_listed_is_refused_before_anything_is_looked_up() {
        let settings = |own_login, listed: &[&str]| Settings {
            host_key: crate::sshd::tests::key(),
            host_certificate: None,
            user_cas: Vec::new(),
            account: Account {
                name: "agent".into(),
                uid: 999,
                gid: 999,
                home: "/".into(),
                shell: "/bin/sh".into(),
            },
            own_login,
            users: Users {
                listed: listed.iter().map(|name| (*name).to_owned()).collect(),
                program: PathBuf::new(),
            },
        };
        let login = Login {
            caller: "alice".into(),
            registered_keys: Vec::new(),
            acts: std::collections::BTreeSet::new(),
            client_ip: std::net::IpAddr::from([192, 0, 2, 7]),
            session: "s".into(),
        };
        let asked = |settings: &Settings, user: &str| {
            choose(settings, &login, user).map_or_else(
                |refusal| refusal.to_string().split(':').next().unwrap_or_default().to_owned(),
                |run_as| run_as.account.name,
            )
        };
        let alone = settings(true, &[]);
        assert_eq!(asked(&alone, "agent"), "agent");
        assert_eq!(asked(&alone, "alice"), "agent");
        assert_eq!(asked(&alone, "root"), "switching-not-enabled");
        let beside = settings(true, &["no-such-user"]);
        assert_eq!(asked(&beside, "alice"), "agent");
        assert_eq!(asked(&beside, "no-such-user"), "user-unknown");
        assert_eq!(asked(&beside, "root"), "root-not-enabled");
        assert_eq!(asked(&beside, "daemon"), "user-not-listed");
        let instead = settings(false, &["no-such-user"]);
        assert_eq!(asked(&instead, "alice"), "user-unknown");
        assert_eq!(asked(&instead, "agent"), "user-not-listed");
        let own_name = settings(true, &["alice"]);
        assert_eq!(
            asked(&own_name, "alice"),
            "user-unknown",
            "a listed user goes before the caller's name"
        );
        assert_eq!(asked(&settings(false, &["a", "b"]), "alice"), "user-not-listed");
    }
}
