//! `builtin_ssh`: as whom callers of the agent's own SSH server run.

use serde::Deserialize;
use serde_yaml::Spanned;

use super::Checker;

/// Users in one file.
const MAX_USERS: usize = 64;

/// As whom callers run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuiltinSsh {
    /// Whether they may be the agent's own user where that is root, a service or nobody.
    pub allow_service_account: bool,
    /// Local users that they may become, root by that name only; at most 64. None: the agent's own user alone.
    pub users: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenBuiltinSsh {
    #[serde(default)]
    allow_service_account: bool,
    #[serde(default)]
    users: Vec<Spanned<String>>,
}

impl Checker<'_> {
    pub(super) fn builtin_ssh(&mut self, written: WrittenBuiltinSsh) -> BuiltinSsh {
        let mut users: Vec<String> = Vec::new();
        if let Some(excess) = written.users.get(MAX_USERS) {
            self.at(excess, format!("at most {MAX_USERS} users"));
        }
        for user in written.users {
            if !is_user_name(&user.value) {
                self.at(&user, format!("`{}` is no name of a local user", user.value));
            } else if users.contains(&user.value) {
                self.at(&user, format!("`{}` is listed twice", user.value));
            } else {
                users.push(user.value);
            }
        }
        BuiltinSsh {
            allow_service_account: written.allow_service_account,
            users,
        }
    }
}

/// Longest user name, in bytes, as Debian's adduser has it.
const MAX_NAME: usize = 32;

/// Nothing that a program could take for an option or a number.
fn is_user_name(name: &str) -> bool {
    let starts = name
        .bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    starts && name.len() <= MAX_NAME && name.bytes().all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check;

    #[test]
    fn names_that_programs_could_misread_are_none() {
        for name in ["pi", "_apt", "J.Doe", "www-data", "systemd_x9"] {
            assert!(is_user_name(name), "{name}");
        }
        let long = "x".repeat(MAX_NAME + 1);
        for name in [
            "", "-", "-l", "--", "+", "0", "1000", "a b", "a:b", "a/b", "a=b", "a\n", "ä", &long, "a$", ".a",
        ] {
            assert!(!is_user_name(name), "{name:?}");
        }
    }

    #[test]
    fn users_are_told_from_mistakes() {
        let users = |list: &str| check("agent.yaml", &format!("version: 1\nbuiltin_ssh: {{ users: {list} }}\n"));
        assert_eq!(users("[pi, root]").unwrap().builtin_ssh.users, ["pi", "root"]);
        for (list, says) in [
            ("[pi, \"-l\"]", "`-l` is no name of a local user"),
            ("[pi, pi]", "`pi` is listed twice"),
        ] {
            let mistakes = users(list).unwrap_err();
            assert_eq!((mistakes.len(), mistakes[0].message.as_str()), (1, says));
        }
        let many: Vec<String> = (0..=MAX_USERS).map(|at| format!("u{at}")).collect();
        assert_eq!(users(&format!("[{}]", many.join(", "))).unwrap_err().len(), 1);
    }
}
