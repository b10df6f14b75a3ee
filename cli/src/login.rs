//! `fairlead login`: a join string for an X.509 and an SSH certificate of this machine's login key.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use fairlead_agent::enroll::{self, EnrollError};
use fairlead_identity::join::{JoinKind, JoinString};
use fairlead_identity::verify::Roots;
use fairlead_runtime::clock::SystemClock;
use fairlead_runtime::config_file::read_secret_or_stdin;
use secrecy::ExposeSecret;

use crate::command::{CommandError, Context, Exit};
use crate::profile::{Facts, Profile};
use crate::ssh_files;

/// Arguments of `fairlead login`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fairlead login --token-file join.txt
  fairlead login                                  # later: a new certificate for another 8 hours
  fairlead token create --user alice | fairlead login --token-file -")]
pub struct Login {
    /// File with the join string that an administrator gave you; `-` reads standard input. Needed the first time; afterwards
    /// this machine's login key earns new certificates for 90 days.
    #[arg(long)]
    token_file: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// 69 when the gateway cannot be reached, 77 when it refuses, 1 otherwise.
pub async fn run(login: Login, context: &Context) -> Result<(), CommandError> {
    let profile = Profile::locate().map_err(CommandError::failed)?;
    let facts = match &login.token_file {
        Some(file) => {
            let text = read_secret_or_stdin(file).map_err(CommandError::failed)?;
            let join = JoinString::parse(text.expose_secret()).map_err(CommandError::denied)?;
            with_join(&join, &profile).await?
        }
        None => again(&profile).await?,
    };
    context.note(&format!(
        "logged in as {} at {}\n  fairlead ssh HOST.SITE          stock ssh through the gateway\n  fairlead ssh-config --install   so that plain ssh, scp and rsync find HOST.SITE.internal",
        facts.name, facts.domain
    ))
}

/// Logs in with a join string that was read already.
///
/// # Errors
/// As [`run`].
pub async fn with_join(join: &JoinString, profile: &Profile) -> Result<Facts, CommandError> {
    if join.kind == JoinKind::Agent {
        let text = "this join string is for an agent, not for a user or workload; it was not spent";
        return Err(CommandError::text(Exit::Denied, text));
    }
    let key = profile.login_key().map_err(CommandError::failed)?;
    let csr = key.csr_der().map_err(CommandError::failed)?;
    let enrolled = enroll::exchange(join, csr, enroll::reported())
        .await
        .map_err(of_gateway)?;
    let roots = Roots::from_der(&enroll::roots_of(&enrolled)).map_err(CommandError::failed)?;
    kept(profile.save(&key, &enrolled, &roots, &join.addresses), profile)
}

/// Renews the certificates of a machine that has logged in before, by proof of its login key.
///
/// # Errors
/// As [`run`].
pub async fn again(profile: &Profile) -> Result<Facts, CommandError> {
    let facts = profile.facts().map_err(CommandError::failed)?;
    let key = profile.login_key().map_err(CommandError::failed)?;
    let roots = profile.roots().map_err(CommandError::failed)?;
    let renewed = enroll::renew_by_proof(&facts.gateways, &facts.domain, &roots, &key, Arc::new(SystemClock))
        .await
        .map_err(of_gateway)?;
    let known = roots.succeeded_by(&enroll::roots_of(&renewed));
    let known = known.map_err(CommandError::failed)?;
    kept(profile.save(&key, &renewed, &known, &facts.gateways), profile)
}

fn kept(saved: anyhow::Result<Facts>, profile: &Profile) -> Result<Facts, CommandError> {
    let facts = saved.map_err(CommandError::failed)?;
    ssh_files::write(profile, &facts).map_err(CommandError::failed)?;
    Ok(facts)
}

fn of_gateway(error: EnrollError) -> CommandError {
    match error {
        EnrollError::Unreachable(_) => CommandError::new(Exit::Unreachable, error),
        EnrollError::Refused { .. } | EnrollError::WrongGateway { .. } | EnrollError::WrongKind(_) => {
            CommandError::denied(error)
        }
        EnrollError::Answer(_) | EnrollError::Pending(_) => CommandError::failed(error),
    }
}
