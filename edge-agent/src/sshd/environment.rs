//! The variables a program starts with: a few that the client may choose, the rest set here; nothing of the agent's own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::{Account, Login};

/// How many variables a client may set on a channel; more are refused.
const MAX_VARIABLES: usize = 32;
/// Longest value, in bytes.
const MAX_VALUE: usize = 1024;

const PATH_OF_ROOT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PATH_OF_PEOPLE: &str = "/usr/local/bin:/usr/bin:/bin";

/// What the client asked for on one channel and may have.
#[derive(Debug, Default)]
pub(super) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Takes a variable if it is one that only changes how output looks: anything else could change what runs.
    pub(super) fn ask(&mut self, name: &str, value: &str) -> bool {
        let granted = is_allowed(name)
            && value.len() <= MAX_VALUE
            && !value.chars().any(char::is_control)
            && (self.0.len() < MAX_VARIABLES || self.0.contains_key(name));
        if granted {
            self.0.insert(name.to_owned(), value.to_owned());
        }
        granted
    }

    /// Everything a program starts with. `terminal` is the terminal's type and device, where it has one.
    pub(super) fn complete(
        self,
        account: &Account,
        login: &Login,
        terminal: Option<(&str, &Path)>,
    ) -> BTreeMap<OsString, OsString> {
        let path = if account.uid == 0 { PATH_OF_ROOT } else { PATH_OF_PEOPLE };
        let mut all: BTreeMap<OsString, OsString> = self
            .0
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let mut set = |name: &str, value: OsString| all.insert(name.into(), value);
        set("HOME", account.home.clone().into());
        set("USER", account.name.clone().into());
        set("LOGNAME", account.name.clone().into());
        set("SHELL", account.login_shell().into());
        set("PATH", path.into());
        // Same shape as OpenSSH's. The ports are not known at this end of the link; the programs that look want the address.
        set("SSH_CLIENT", format!("{} 0 22", login.client_ip).into());
        set("SSH_CONNECTION", format!("{} 0 127.0.0.1 22", login.client_ip).into());
        if let Some((kind, device)) = terminal {
            set("TERM", kind.into());
            set("SSH_TTY", device.into());
        }
        all
    }
}

fn is_allowed(name: &str) -> bool {
    let category =
        |rest: &str| !rest.is_empty() && rest.len() <= 32 && rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    matches!(name, "TERM" | "LANG" | "COLORTERM") || name.strip_prefix("LC_").is_some_and(category)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn only_variables_about_appearance_are_taken() {
        let mut environment = Environment::default();
        for name in ["TERM", "LANG", "LC_ALL", "LC_TIME", "COLORTERM"] {
            assert!(environment.ask(name, "x"), "{name}");
        }
        for name in [
            "PATH",
            "LD_PRELOAD",
            "HOME",
            "BASH_ENV",
            "LC_",
            "LC_all",
            "LC_X=Y",
            "lang",
            "SSH_TTY",
            "",
        ] {
            assert!(!environment.ask(name, "x"), "{name}");
        }
        assert!(!environment.ask("LANG", &"x".repeat(MAX_VALUE + 1)));
        assert!(!environment.ask("LANG", "a\nb"));
        assert!(!environment.ask("LANG", "a\0b"));
    }

    #[test]
    fn the_number_of_variables_is_bounded() {
        let mut environment = Environment::default();
        for letter in 0..MAX_VARIABLES {
            assert!(environment.ask(
                &format!("LC_{}", "A".repeat(letter + 1).chars().take(32).collect::<String>()),
                "x"
            ));
        }
        assert!(!environment.ask("LANG", "x"));
        assert!(environment.ask("LC_A", "again"));
    }

    #[test]
    fn what_is_set_here_wins() {
        let account = Account {
            name: "pi".into(),
            uid: 1000,
            gid: 1000,
            home: "/home/pi".into(),
            shell: "/bin/bash".into(),
        };
        let login = Login {
            caller: "alice".into(),
            registered_keys: Vec::new(),
            acts: std::collections::BTreeSet::new(),
            client_ip: IpAddr::from([192, 0, 2, 7]),
            session: "s".into(),
        };
        let mut environment = Environment::default();
        assert!(environment.ask("TERM", "dumb"));
        let all = environment.complete(&account, &login, Some(("xterm", Path::new("/dev/pts/3"))));
        let get = |name: &str| all[&OsString::from(name)].to_str().unwrap();
        assert_eq!(get("TERM"), "xterm");
        assert_eq!(get("SSH_TTY"), "/dev/pts/3");
        assert_eq!(get("SSH_CLIENT"), "192.0.2.7 0 22");
        assert_eq!(get("PATH"), PATH_OF_PEOPLE);
        assert_eq!(get("SHELL"), "/bin/bash");
    }
}
