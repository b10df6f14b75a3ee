//! `fairlead known-hosts`: what stock ssh asks for a device's host keys (`KnownHostsCommand`, OpenSSH 8.5 and later).
//!
//! ssh ends the connection when this command fails, so where the gateway has no answer, none is printed: ssh then asks the
//! person, as it does for every host that nobody knows. That a *changed* key is refused must not depend on an answer: keys
//! that were given once are kept in the profile and given again when the gateway cannot be asked.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fairlead_runtime::config_file::write_private;
use fairlead_wire::call::{Body, HostKeysRequest, Question};
use tokio::time::timeout;

use crate::call::Call;
use crate::command::{CommandError, Context, Exit};
use crate::profile::Profile;

/// ssh waits for this command before it connects.
const PATIENCE: Duration = Duration::from_secs(8);
/// Lines kept for the time when the gateway cannot be asked.
const KEPT: usize = 4096;
/// The file of the profile that holds them.
const FILE: &str = "known_keys";

/// Arguments of `fairlead known-hosts`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fairlead known-hosts pump-7.plant-7.internal
  fairlead known-hosts '[pump-7.plant-7.internal]:2222'")]
pub struct KnownHosts {
    /// The profile to ask with; the usual one unless given
    #[arg(long)]
    profile: Option<PathBuf>,
    /// HOST or [HOST]:PORT as ssh looks it up (`%H`)
    host: String,
}

/// Runs the command.
///
/// # Errors
/// 64 for what is no host. Everything else is no error to ssh: it prints nothing.
pub async fn run(asked: KnownHosts, context: &Context) -> Result<(), CommandError> {
    let (host, port) = host_and_port(&asked.host)
        .ok_or_else(|| CommandError::usage("name a host as ssh does: HOST, or [HOST]:PORT"))?;
    let profile = match asked.profile {
        Some(dir) => Profile::at(dir),
        None => Profile::locate().map_err(CommandError::failed)?,
    };
    let lines = match timeout(PATIENCE, ask(&profile, host, port, context)).await {
        Ok(Ok(keys)) => {
            let lines: Vec<String> = keys.iter().map(|key| format!("{} {key}", asked.host)).collect();
            // Only a convenience for later; what was answered now stands.
            if let Err(error) = keep(&profile, &asked.host, &lines) {
                context.note(&format!("fairlead: the host keys cannot be kept: {error}"))?;
            }
            lines
        }
        // Not permitted (any longer): nothing is known, and nothing is kept.
        Ok(Err(error)) if error.exit() == Exit::Denied => {
            drop(keep(&profile, &asked.host, &[]));
            Vec::new()
        }
        Ok(Err(_)) | Err(_) => kept(&profile, &asked.host),
    };
    if lines.is_empty() {
        Ok(())
    } else {
        context.print(&lines.join("\n"))
    }
}

async fn ask(profile: &Profile, host: &str, port: u16, context: &Context) -> Result<Vec<String>, CommandError> {
    let call = Call::open(profile, context).await?;
    let question = Question::HostKeys(HostKeysRequest {
        host: host.to_owned(),
        port: port.into(),
    });
    let answers = call.ask(question).await?.into_iter();
    let keys = answers.flat_map(|answer| match answer {
        Body::HostKeys(keys) => keys.public_keys,
        _ => Vec::new(),
    });
    Ok(keys.collect())
}

/// `HOST` at port 22, or `[HOST]:PORT`.
fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once("]:")?;
            (host, port.parse().ok()?)
        }
        None => (text, 22),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    (!host.is_empty() && port != 0 && host.chars().all(is_name)).then_some((host, port))
}

/// What is kept of a host.
fn kept(profile: &Profile, host: &str) -> Vec<String> {
    let text = std::fs::read_to_string(profile.path(FILE)).unwrap_or_default();
    let lines = text.lines().filter(|line| is_of(line, host));
    lines.map(str::to_owned).collect()
}

/// Puts `lines` in the place of what is kept of a host; the oldest lines go when there are too many.
fn keep(profile: &Profile, host: &str, lines: &[String]) -> anyhow::Result<()> {
    let before = std::fs::read_to_string(profile.path(FILE)).unwrap_or_default();
    let others = before.lines().filter(|line| !is_of(line, host)).map(str::to_owned);
    let all: Vec<String> = others.chain(lines.iter().cloned()).collect();
    let after: String = all
        .iter()
        .skip(all.len().saturating_sub(KEPT))
        .map(|line| format!("{line}\n"))
        .collect();
    if after != before {
        write_private(&profile.path(FILE), after.as_bytes(), 0o600)?;
    }
    Ok(())
}

fn is_of(line: &str, host: &str) -> bool {
    line.strip_prefix(host).is_some_and(|rest| rest.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_ssh_writes_them() {
        assert_eq!(
            host_and_port("pump-7.plant-7.internal"),
            Some(("pump-7.plant-7.internal", 22))
        );
        assert_eq!(host_and_port("[pump-7.internal]:2222"), Some(("pump-7.internal", 2222)));
        for bad in ["", "[]:22", "[a]:0", "[a]:x", "[a", "a b", "a\nb", "-oProxyCommand=x y"] {
            assert_eq!(host_and_port(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_kept_is_replaced_host_by_host_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at(dir.path());
        keep(&profile, "a.b", &["a.b one".into(), "a.b two".into()]).unwrap();
        keep(&profile, "a.bc", &["a.bc three".into()]).unwrap();
        assert_eq!(kept(&profile, "a.b"), ["a.b one", "a.b two"]);
        keep(&profile, "a.b", &[]).unwrap();
        assert!(kept(&profile, "a.b").is_empty());
        assert_eq!(kept(&profile, "a.bc"), ["a.bc three"]);
        let many: Vec<String> = (0..KEPT + 10).map(|n| format!("c.d {n}")).collect();
        keep(&profile, "c.d", &many).unwrap();
        assert_eq!(kept(&profile, "c.d").len(), KEPT);
        assert!(kept(&profile, "a.bc").is_empty());
    }
}
