//! `fairlead ssh`: stock ssh underneath, with the profile's configuration.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::SystemTime;

use clap::Args;
use fairlead_identity::name;

use crate::command::{CommandError, Context, Exit};
use crate::login;
use crate::profile::Profile;
use crate::ssh_files;

/// Letters of OpenSSH options that take an argument (ssh(1) of OpenSSH 9).
const WITH_ARGUMENT: &str = "BbcDEeFIiJLlmOoPpQRSWw";

/// What to do where there is no ssh.
pub(crate) const NO_SSH: &str = "no ssh client is installed; on Debian: apt-get install openssh-client";

/// Arguments of `fairlead ssh`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fairlead ssh pi@pump-7.plant-7
  fairlead ssh pump-7.plant-7 uptime
  fairlead ssh -N -L 8080:hmi.plant-7.internal:80 gw.example.com")]
pub struct Ssh {
    /// [SSH OPTIONS] [USER@]HOST.SITE [COMMAND]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<String>,
}

/// Runs ssh in place of this process, so that its exit code is ours.
///
/// # Errors
/// Only when ssh cannot be started: not logged in, no ssh installed, or no host named.
pub async fn run(ssh: Ssh, context: &Context) -> Result<(), CommandError> {
    let profile = Profile::locate().map_err(CommandError::failed)?;
    let facts = profile.facts().map_err(CommandError::failed)?;
    if let Err(error) = profile.good_until(SystemTime::now()) {
        context.note(&format!("your certificate is no good now ({error}); logging in again"))?;
        login::again(&profile).await?;
    }
    let config = ssh_files::write(&profile, &facts).map_err(CommandError::failed)?;
    let arguments = with_full_name(ssh.arguments, &facts.domain)?;
    let error = Command::new("ssh").arg("-F").arg(config).args(arguments).exec();
    Err(match error.kind() {
        std::io::ErrorKind::NotFound => CommandError::text(Exit::Failed, NO_SSH),
        _ => CommandError::failed(error),
    })
}

/// Writes the host out as HOST.SITE.internal, which the configuration knows the way to.
fn with_full_name(mut arguments: Vec<String>, domain: &str) -> Result<Vec<String>, CommandError> {
    let at = destination(&arguments).ok_or_else(|| CommandError::usage("name a host: fairlead ssh USER@HOST.SITE"))?;
    if let Some(destination) = arguments.get_mut(at) {
        let (user, host) = destination
            .rsplit_once('@')
            .map_or((None, destination.as_str()), |(user, host)| (Some(user), host));
        if let Ok((host, site)) = name::parse_host(host, domain) {
            let full = format!("{host}.{site}.internal");
            *destination = user.map_or_else(|| full.clone(), |user| format!("{user}@{full}"));
        }
    }
    Ok(arguments)
}

/// Where the destination stands among ssh's arguments: the first one that is neither an option nor an option's argument.
fn destination(arguments: &[String]) -> Option<usize> {
    let mut skip = false;
    for (at, argument) in arguments.iter().enumerate() {
        if std::mem::take(&mut skip) {
            continue;
        }
        match argument.strip_prefix('-') {
            None => return Some(at),
            Some("-") => return Some(at.saturating_add(1)).filter(|next| *next < arguments.len()),
            // `-tL 1:2:3` takes the next argument, `-L1:2:3` carries its own.
            Some(letters) => {
                skip = letters.chars().position(|letter| WITH_ARGUMENT.contains(letter)) == letters.len().checked_sub(1)
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(line: &str) -> String {
        let arguments = line.split_whitespace().map(str::to_owned).collect();
        with_full_name(arguments, "gw.example.com").unwrap().join(" ")
    }

    #[test]
    fn the_destination_is_found_among_ssh_options() {
        assert_eq!(full("pump-7"), "pump-7.default.internal");
        assert_eq!(full("-t pi@pump-7.plant-7 top"), "-t pi@pump-7.plant-7.internal top");
        assert_eq!(
            full("-o BatchMode=yes -p 22 pump-7.plant-7 ls -l"),
            "-o BatchMode=yes -p 22 pump-7.plant-7.internal ls -l"
        );
        assert_eq!(
            full("-oBatchMode=yes -NL 1:a:2 gw.example.com"),
            "-oBatchMode=yes -NL 1:a:2 gw.example.com"
        );
        assert_eq!(full("-- pump-7"), "-- pump-7.default.internal");
    }

    #[test]
    fn no_destination_is_a_usage_error() {
        assert!(with_full_name(vec!["-t".into()], "gw.example.com").is_err());
    }
}
