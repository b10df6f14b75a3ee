//! `fairlead ssh-config`: the configuration for stock ssh, printed or installed.

use std::path::PathBuf;

use clap::Args;

use crate::command::{CommandError, Context, Exit};
use crate::profile::Profile;
use crate::ssh_files;

/// Arguments of `fairlead ssh-config`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fairlead ssh-config --install
  ssh pump-7.plant-7.internal")]
pub struct SshConfig {
    /// Adds one Include to ~/.ssh/config; afterwards plain ssh, scp, rsync and editors find HOST.SITE.internal.
    #[arg(long)]
    install: bool,
}

/// Runs the command.
///
/// # Errors
/// 1 when nobody has logged in, or a file cannot be written.
pub fn run(ssh_config: &SshConfig, context: &Context) -> Result<(), CommandError> {
    let profile = Profile::locate().map_err(CommandError::failed)?;
    let facts = profile.facts().map_err(CommandError::failed)?;
    let config = ssh_files::write(&profile, &facts).map_err(CommandError::failed)?;
    if !ssh_config.install {
        let text = std::fs::read_to_string(&config).map_err(CommandError::failed)?;
        return context.print(&text);
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).ok_or_else(|| {
        CommandError::text(
            Exit::Failed,
            format!(
                "HOME is not set, so ~/.ssh/config is not known; include {} yourself",
                config.display()
            ),
        )
    })?;
    let ssh_dir = home.join(".ssh");
    let added = ssh_files::install(&config, &ssh_dir).map_err(CommandError::failed)?;
    context.note(&format!(
        "{} {}\nnow: ssh USER@HOST.SITE.internal",
        if added {
            "added one Include to"
        } else {
            "one Include stands already in"
        },
        ssh_dir.join("config").display()
    ))
}
