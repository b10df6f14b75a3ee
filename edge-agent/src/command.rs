//! What `fairlead-agent` is asked on its command line; manual pages and completions are made from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use fairlead_identity::name::Label;

use crate::console::Console;

/// The Fairlead agent: dials out to a gateway and reaches the local services that its file lists.
#[derive(Parser)]
#[command(
    name = "fairlead-agent",
    version,
    after_help = "Examples:
  fairlead-agent enroll --token-file -                # paste the join string, then Ctrl-D
  fairlead-agent enroll --token-file fleet.txt --name pump-7
  fairlead-agent check
  fairlead-agent scope
  fairlead-agent explain ssh://pump-7.plant-7.internal --as alice --group field
  fairlead-agent pause
  fairlead-agent doctor
  fairlead-agent run --config /etc/fairlead-agent/agent.yaml"
)]
pub struct Arguments {
    /// The agent's file.
    #[arg(long, global = true, default_value = "/etc/fairlead-agent/agent.yaml")]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Turns a join string into this agent's own key and certificate.
    Enroll(Enroll),
    /// Runs in the foreground until SIGTERM. An agent that is not enrolled and finds a join file (/etc/fairlead-agent/join) enrols
    /// itself by it first.
    Run,
    /// Says everything that is wrong with the file and the identity.
    Check,
    /// Tries everything that a link needs (identity, clock, DNS, UDP, TLS, MTU, TCP, proxy), and says what blocks it and what to
    /// do. Exit code 0: a link is possible; 69: no gateway is reached; 77: one is, and refuses; 78: file or identity.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Serves files to the agent's own SSH server, which runs this as the user that a caller became.
    #[cfg(feature = "builtin-ssh")]
    #[command(hide = true)]
    SftpServer,
    /// What the customer asks and orders.
    #[command(flatten)]
    Console(Console),
}

/// How an agent comes by its identity.
#[derive(Args)]
pub struct Enroll {
    /// File with the join string; `-` reads standard input.
    #[arg(long)]
    pub token_file: PathBuf,
    /// The name to propose where the join string is for a fleet; the host name unless given.
    #[arg(long)]
    pub name: Option<Label>,
    /// Ends instead of waiting when the name must be approved first; run it again later.
    #[arg(long)]
    pub no_wait: bool,
    /// Leaves the service as it is. Else, run by root where the package is installed, systemd starts it.
    #[arg(long)]
    pub no_start: bool,
    /// Root has begun this and goes on after it.
    #[arg(long, hide = true)]
    pub by_root: bool,
}
