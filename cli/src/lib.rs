//! Everything people type. One file per command; each has its arguments and a `run`.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

pub mod admin_client;
pub mod agents;
pub mod audit;
mod call;
pub mod command;
pub mod connect;
pub mod endpoints;
pub mod explain;
pub mod hosts;
pub mod known_hosts;
pub mod login;
pub mod output;
pub mod policy;
pub mod profile;
pub mod quickstart;
pub mod rdp;
pub mod revoke;
pub mod sessions;
pub mod ssh;
pub mod ssh_config;
mod ssh_files;
mod supposed;
pub mod token;
pub mod users;
pub mod workloads;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command::{CommandError, Context};
use fairlead_runtime::{metrics, telemetry};

/// Fairlead: reach devices and services through a gateway, and administer it.
#[derive(Parser, Debug)]
#[command(
    name = "fairlead",
    version,
    after_help = "Examples:
  fairlead quickstart                          # a gateway, a device and two people on this machine
  fairlead login --token-file join.txt
  fairlead ssh pi@pump-7.plant-7
  fairlead connect postgres://billing.clinic1 --listen 127.0.0.1:15432
  fairlead token create --agent pump-7.plant-7"
)]
pub struct Cli {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand, Debug)]
enum Act {
    /// Runs a gateway, an agent and two people on loopback, with throw-away state.
    Quickstart(quickstart::Quickstart),
    /// Turns a join string into certificates for this machine's login key.
    Login(login::Login),
    /// What you may reach.
    Endpoints(endpoints::Endpoints),
    /// Whether you may reach one endpoint.
    Explain(explain::Explain),
    /// One endpoint on a local port, or on standard input and output, for clients without certificates.
    Connect(connect::Connect),
    /// An .rdp file that leads to a desktop.
    Rdp(rdp::Rdp),
    /// Stock ssh to HOST.SITE through the gateway.
    Ssh(ssh::Ssh),
    /// The SSH host keys of an endpoint, as stock ssh asks for them.
    KnownHosts(known_hosts::KnownHosts),
    /// The configuration that stock ssh needs, printed or installed.
    SshConfig(ssh_config::SshConfig),
    /// Join strings (administration).
    Token(token::TokenArgs),
    /// Agents (administration).
    Agents(agents::AgentsArgs),
    /// Hosts bound to agents (administration).
    Hosts(hosts::HostsArgs),
    /// Users and their keys (administration).
    Users(users::UsersArgs),
    /// Workloads (administration).
    Workloads(workloads::WorkloadsArgs),
    /// Shutting out, at once (administration).
    Revoke(revoke::RevokeArgs),
    /// Live sessions (administration).
    Sessions(sessions::SessionsArgs),
    /// The access policy (administration).
    Policy(policy::PolicyArgs),
    /// The audit file of a gateway or an agent (administration).
    Audit(audit::AuditArgs),
}

/// Parses the process's arguments and runs the command.
pub fn main(context: Context) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 64 } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    match started(cli, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where even standard error is closed, the exit code is all there is.
            let _unsaid = context.note(&format!("fairlead: {error}"));
            ExitCode::from(error.code())
        }
    }
}

fn started(cli: Cli, context: &Context) -> Result<(), CommandError> {
    metrics::install_panic_hook();
    // People read the commands' own words; logs are for quickstart and for those who ask for them.
    if std::env::var_os("FAIRLEAD_LOG").is_some() {
        telemetry::init(telemetry::Format::Text).map_err(CommandError::failed)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CommandError::failed)?;
    let ended = runtime.block_on(run(cli, context));
    // A read of standard input that nobody waits for must not keep the process.
    runtime.shutdown_background();
    ended
}

async fn run(cli: Cli, context: &Context) -> Result<(), CommandError> {
    match cli.act {
        Act::Quickstart(quickstart) => quickstart::run(quickstart, context).await,
        Act::Login(login) => login::run(login, context).await,
        Act::Endpoints(endpoints) => endpoints::run(endpoints, context).await,
        Act::Explain(explain) => explain::run(explain, context).await,
        Act::Connect(connect) => connect::run(connect, context).await,
        Act::Rdp(rdp) => rdp::run(rdp, context).await,
        Act::KnownHosts(asked) => known_hosts::run(asked, context).await,
        Act::Ssh(ssh) => ssh::run(ssh, context).await,
        Act::SshConfig(ssh_config) => ssh_config::run(&ssh_config, context),
        Act::Token(token) => token::run(token, context).await,
        Act::Agents(agents) => agents::run(agents, context).await,
        Act::Hosts(hosts) => hosts::run(hosts, context).await,
        Act::Users(users) => users::run(users, context).await,
        Act::Workloads(workloads) => workloads::run(workloads, context).await,
        Act::Revoke(revoke) => revoke::run(revoke, context).await,
        Act::Sessions(sessions) => sessions::run(sessions, context).await,
        Act::Policy(policy) => policy::run(policy, context).await,
        Act::Audit(audit) => audit::run(audit, context).await,
    }
}
