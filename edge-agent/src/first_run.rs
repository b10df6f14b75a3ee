//! The first run on a machine that has the package: root types `enroll`, the account of the service does it, and systemd
//! starts the service.
//!
//! Without the package, without systemd, or as another user than root nothing of this happens.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;

use fairlead_identity::name::Label;
use fairlead_runtime::account::Account;

/// The account that the units name.
const ACCOUNT: &str = "fairlead-agent";
/// Where the units look for the agent's files.
const CONFIGURATION: &str = "/etc/fairlead-agent";
/// Where units lie, by whom they were put there.
const UNITS: &[&str] = &["/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"];

/// The unit that runs the agent of this file: `agent.yaml` is `fairlead-agent.service`'s, `NAME.yaml` beside it
/// `fairlead-agent@NAME.service`'s. `None` for a file that lies elsewhere.
pub fn unit_of(config: &Path) -> Option<String> {
    let name = config.file_stem()?.to_str()?;
    if config.parent() != Some(Path::new(CONFIGURATION)) || config.extension()? != "yaml" {
        return None;
    }
    match name {
        "agent" => Some("fairlead-agent.service".into()),
        // What a unit may be called without being quoted, which is also how such files are named.
        name if name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) => {
            Some(format!("fairlead-agent@{name}.service"))
        }
        _ => None,
    }
}

/// The account that an enrolment of root's goes on as; the state directory is made for it where the units want it.
///
/// # Errors
/// When the directory cannot be made or looked at.
pub fn account(config: &Path, state_dir: &Path) -> io::Result<Option<Account>> {
    if unit_of(config).is_some() {
        Account::make_dir(state_dir, ACCOUNT)?;
    }
    Account::owning(state_dir)
}

/// The arguments of a `check`.
pub fn check_arguments(config: &Path) -> Vec<OsString> {
    vec!["--config".into(), config.into(), "check".into()]
}

/// The arguments of an enrolment that reads its join string from standard input.
pub fn enroll_arguments(config: &Path, name: Option<&Label>, no_wait: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--config".into(), config.into(), "enroll".into()];
    arguments.extend(["--token-file", "-", "--by-root"].map(OsString::from));
    if let Some(name) = name {
        arguments.extend(["--name".into(), name.as_str().into()]);
    }
    if no_wait {
        arguments.push("--no-wait".into());
    }
    arguments
}

/// Has systemd start the unit, at each boot too. `false` where there is no systemd or no such unit.
///
/// # Errors
/// In words, when systemd does not start it.
pub fn start(unit: &str) -> Result<bool, String> {
    let file = match unit.split_once('@') {
        Some((template, _)) => format!("{template}@.service"),
        None => unit.to_owned(),
    };
    let is_there = UNITS.iter().any(|folder| Path::new(folder).join(&file).exists());
    // sd_booted(3).
    if !is_there || !Path::new("/run/systemd/system").is_dir() {
        return Ok(false);
    }
    let ended = Command::new("systemctl")
        .args(["enable", "--now", "--quiet", unit])
        .status();
    match ended {
        Ok(status) if status.success() => Ok(true),
        Ok(_) => Err(format!(
            "{unit} was not started; `systemctl status {unit}` says why, then run: systemctl enable --now {unit}"
        )),
        Err(error) => Err(format!(
            "systemctl cannot be run ({error}); run: systemctl enable --now {unit}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_units_have_their_units() {
        let unit = |path: &str| unit_of(Path::new(path));
        assert_eq!(
            unit("/etc/fairlead-agent/agent.yaml").unwrap(),
            "fairlead-agent.service"
        );
        assert_eq!(
            unit("/etc/fairlead-agent/hall-2.yaml").unwrap(),
            "fairlead-agent@hall-2.service"
        );
        for other in [
            "/etc/fairlead-agent/a b.yaml",
            "/etc/fairlead-agent/join",
            "/home/me/agent.yaml",
            "agent.yaml",
        ] {
            assert_eq!(unit(other), None, "{other}");
        }
    }
}
