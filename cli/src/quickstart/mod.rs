//! `fairlead quickstart`: a gateway, an agent and two people on loopback, with throw-away state, through the same steps
//! that an operator would take. Needs no root and no installed server.

mod check;
mod stage;

use std::path::Path;

use clap::Args;
use fairlead_runtime::stop;

use crate::command::{CommandError, Context, Exit};
use crate::ssh::NO_SSH;
use stage::Stage;

/// Arguments of `fairlead quickstart`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fairlead quickstart            # leaves everything running until Ctrl-C, and prints commands to paste
  fairlead quickstart --check    # runs those commands itself, and ends with 0 when all went well")]
pub struct Quickstart {
    /// Runs the printed commands, checks what they say, cleans up; exits 0 or 1.
    #[arg(long)]
    check: bool,
}

/// Runs the command. Whatever way it ends, nothing stays behind.
///
/// # Errors
/// 1 when a step or a check fails.
pub async fn run(quickstart: Quickstart, context: &Context) -> Result<(), CommandError> {
    let ssh = find_program("ssh");
    if ssh.is_none() && quickstart.check {
        return Err(CommandError::text(Exit::Failed, NO_SSH));
    }
    let mut signals = stop::signals().map_err(CommandError::failed)?;
    let staged = tokio::select! {
        staged = Stage::set(context) => staged.map_err(CommandError::failed)?,
        _ = signals.next() => return Err(CommandError::text(Exit::Failed, "interrupted; nothing was left behind")),
    };
    let outcome = if quickstart.check {
        tokio::select! {
            outcome = check::run(&staged, context) => outcome.map_err(CommandError::failed),
            _ = signals.next() => Err(CommandError::text(Exit::Failed, "interrupted; nothing was left behind")),
        }
    } else {
        context.print(&invitation(&staged, ssh.is_some()))?;
        // A closed terminal (SIGHUP) ends it too.
        let _any = signals.next().await;
        Ok(())
    };
    // Whoever listened may have gone with the terminal; the stage is struck all the same.
    let _unheard = context.note("stopping");
    staged.strike().await;
    outcome
}

fn invitation(stage: &Stage, has_ssh: bool) -> String {
    let (alice, mallory) = (stage.ssh_config("alice"), stage.ssh_config("mallory"));
    let (user, host) = (stage.account(), stage::DEVICE);
    let missing = if has_ssh {
        String::new()
    } else {
        format!("\n{NO_SSH}\n")
    };
    format!(
        "
Everything runs. In another terminal:
{missing}
  ssh -F {alice} {user}@{host}                    # a shell on the device, through the gateway
  ssh -F {alice} {user}@{host} uname -a           # a command
  scp -F {alice} /etc/hostname {user}@{host}:/tmp/fairlead-hello
  ssh -F {mallory} {user}@{host}                  # somebody without a rule is told no

What happened, one line each:
  tail -f {gateway_audit}
  tail -f {agent_audit}
Administration:
  export FAIRLEAD_ADMIN_SOCKET={socket}
  fairlead agents list ; fairlead sessions list

Ctrl-C ends it and removes {dir}.",
        alice = alice.display(),
        mallory = mallory.display(),
        gateway_audit = stage.path("gateway/state/audit.jsonl").display(),
        agent_audit = stage.path("agent/state/audit.jsonl").display(),
        socket = stage.path("run/admin.sock").display(),
        dir = stage.path("").display(),
    )
}

/// The first executable file of that name on PATH.
fn find_program(name: &str) -> Option<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| executable(path))
}
