//! What `fairlead-gateway` is asked on its command line; manual pages and completions are made from it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::authority::Ca;
use crate::backup::{Backup, Restore};

/// The Fairlead gateway: agents dial it, callers connect to it, its access policy decides who reaches what.
#[derive(Parser)]
#[command(
    name = "fairlead-gateway",
    version,
    after_help = "Examples:
  fairlead-gateway init --config /etc/fairlead-gateway/gateway.yaml --domain gw.example.com
  fairlead-gateway check --config /etc/fairlead-gateway/gateway.yaml
  fairlead-gateway run --config /etc/fairlead-gateway/gateway.yaml
  fairlead-gateway ca status
  fairlead-gateway backup --out gw.backup --passphrase-file passphrase
  fairlead-gateway restore gw.backup --passphrase-file passphrase"
)]
pub struct Arguments {
    /// The gateway's file.
    #[arg(long, global = true, default_value = "/etc/fairlead-gateway/gateway.yaml")]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Makes keys, CA, state and a commented configuration; what is there stays.
    Init {
        /// The gateway's DNS name; needed the first time.
        #[arg(long)]
        domain: Option<String>,
    },
    /// Says everything that is wrong with configuration, state and access policy.
    Check,
    /// Runs in the foreground; SIGTERM drains, SIGHUP reads the access policy, the CA and `tls.certificates` again, a second SIGTERM ends.
    Run,
    /// Looks at the certificate authority, prepares the next one, puts it in force.
    Ca(Ca),
    /// Writes everything that this gateway is, but for the audit log, into one sealed file; it may run meanwhile.
    Backup(Backup),
    /// Puts a backup back on an empty machine and ends all join strings.
    Restore(Restore),
}
