//! `fairlead-gateway`: parses, builds, runs, maps to an exit code.

use std::io::Write as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, SystemTime};

use clap::Parser;
use fairlead_gateway::authority;
use fairlead_gateway::command::{Arguments, Command};
use fairlead_gateway::config::{self, Config};
use fairlead_gateway::{Gateway, StartError, backup, init};
use fairlead_runtime::account::Account;
use fairlead_runtime::stop::{self, CancellationToken, Signal};
use fairlead_runtime::{metrics, notify, process, telemetry};

/// Gives back what thousands of strangers needed once they have gone (docs/adr/0008-the-gateways-allocator.md).
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How often `systemctl status` gets new figures.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Exit codes of PRODUCT: 1 failed, 78 bad configuration.
struct Failure(u8);

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { 64 } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    metrics::install_panic_hook();
    if let Err(error) = telemetry::init(telemetry::Format::Text) {
        say(&format!("fairlead-gateway: {error}"));
        return ExitCode::from(64);
    }
    if let Err(error) = process::forbid_dumps() {
        tracing::warn!(%error, "keys in memory could reach a core file");
    }
    if let Err(error) = process::raise_file_limit() {
        tracing::warn!(%error, "the limit of open files could not be raised; it bounds the sessions");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("fairlead-gateway: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code)) => ExitCode::from(code),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Init { domain } => set_up(&arguments.config, domain.as_deref()),
        Command::Check => {
            let config = load(&arguments.config)?;
            if go_on_as_owner(&config)? {
                return Ok(());
            }
            fairlead_gateway::check(&config).map_err(|mistakes| {
                mistakes.iter().for_each(|mistake| say(mistake));
                Failure(78)
            })?;
            say(&format!("{}: good", arguments.config.display()));
            Ok(())
        }
        Command::Backup(backup) => {
            let config = load(&arguments.config)?;
            told(backup.run(&arguments.config, &config, SystemTime::now()))
        }
        Command::Restore(restore) => told(restore.run(&arguments.config, SystemTime::now())),
        Command::Run => serve(load(&arguments.config)?).await,
        Command::Ca(ca) => {
            let config = load(&arguments.config)?;
            if go_on_as_owner(&config)? {
                return Ok(());
            }
            let outcome = authority::run(ca, &config, SystemTime::now()).await;
            let outcome = outcome.map_err(|error| failed(&error, 1))?;
            // Whoever reads it may have gone.
            drop(writeln!(std::io::stdout(), "{}", outcome.text));
            if outcome.is_done { Ok(()) } else { Err(Failure(1)) }
        }
    }
}

fn set_up(file: &Path, domain: Option<&str>) -> Result<(), Failure> {
    let refused = |error: anyhow::Error| {
        let code = if error.is::<init::NoDomain>() { 64 } else { 78 };
        failed(&error, code)
    };
    let settings = init::settings(file, domain).map_err(refused)?;
    settings.made.iter().for_each(|made| say(&format!("made {made}")));
    let state_dir = &settings.config.state_dir;
    init::account::make_state_dir(file, state_dir).map_err(|error| failed(&error.into(), 1))?;
    if go_on_as_owner(&settings.config)? {
        return Ok(());
    }
    let mut report = init::init(file, domain, SystemTime::now()).map_err(refused)?;
    report.made.splice(0..0, settings.made);
    announce(&report);
    Ok(())
}

/// Root's command goes on as the account that the state belongs to, with the same arguments. `false` where that is this one.
fn go_on_as_owner(config: &Config) -> Result<bool, Failure> {
    let owner = Account::owning(&config.state_dir).map_err(|error| failed(&error.into(), 1))?;
    let Some(account) = owner else { return Ok(false) };
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match account.run_again(&arguments, b"", Stdio::inherit()) {
        Ok(0) => Ok(true),
        Ok(code) => Err(Failure(code)),
        Err(error) => {
            say(&format!("fairlead-gateway: cannot go on as {}: {error}", account.name));
            Err(Failure(1))
        }
    }
}

fn told(done: anyhow::Result<String>) -> Result<(), Failure> {
    match done {
        Ok(text) => {
            say(&text);
            Ok(())
        }
        Err(error) => match error.downcast_ref::<backup::Told>() {
            Some(told) => Err(Failure(told.0)),
            None => Err(failed(&error, 1)),
        },
    }
}

fn load(path: &Path) -> Result<Config, Failure> {
    config::load(path).map_err(|mistakes| {
        mistakes.iter().for_each(|mistake| say(&mistake.to_string()));
        Failure(78)
    })
}

fn announce(report: &init::Report) {
    if report.made.is_empty() {
        say("everything is there already; nothing was changed");
    }
    report.made.iter().for_each(|made| say(&format!("made {made}")));
    let Config { domain, listen, .. } = &report.config;
    say(&format!(
        "\nDNS records to make, each to this machine's address:\n  {domain}      A/AAAA   agents and callers connect here, port {port} (TCP and UDP)\n  *.{domain}    A/AAAA   for callers that name endpoints by DNS\n\nThen: {run}, and `fairlead token create --agent NAME` for the first device",
        port = listen.port(),
        run = if init::account::has_unit() {
            "systemctl enable --now fairlead-gateway.socket fairlead-gateway.service"
        } else {
            "fairlead-gateway run"
        }
    ));
}

async fn serve(config: Config) -> Result<(), Failure> {
    let drain = config.drain;
    let mut signals = stop::signals().map_err(|error| failed(&error.into(), 1))?;
    let gateway = Gateway::start(config, &CancellationToken::new())
        .await
        .map_err(|error| {
            let code = if matches!(error, StartError::Configuration(_)) {
                78
            } else {
                1
            };
            failed(&error.into(), code)
        })?;
    notify::ready();
    // On this task, so that a stuck runtime shows.
    let watchdog = async {
        notify::keep_watchdog_fed(|| true).await;
        std::future::pending().await
    };
    tokio::pin!(watchdog);
    let mut tell = tokio::time::interval(TELL_EVERY);
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            signal = &mut watchdog => signal,
            _ = tell.tick() => {
                let (agents, sessions) = (gateway.roster().online().len(), gateway.sessions().len());
                notify::status(&format!("{agents} agents linked, {sessions} sessions"));
                continue;
            }
            () = gateway.ended() => {
                say("fairlead-gateway: ended by a fault of its own; see the log");
                gateway.stop(Duration::ZERO).await;
                return Err(Failure(1));
            }
        };
        match signal {
            Signal::Stop => break,
            Signal::Reload => {
                notify::reloading();
                match gateway.reload_policy().await {
                    Ok(policy) => tracing::info!(digest = policy.digest, "access policy reloaded"),
                    Err(refused) => {
                        refused.mistakes.iter().for_each(|mistake| tracing::error!("{mistake}"));
                        tracing::error!("the access policy has mistakes; the one before stays in force");
                    }
                }
                if let Err(mistakes) = gateway.reload_certificates() {
                    mistakes.iter().for_each(|mistake| tracing::error!("{mistake}"));
                    tracing::error!("certificates for callers were not taken up; those before stay in force");
                }
                if let Err(error) = gateway.reload_authority().await {
                    tracing::error!(
                        error,
                        "the certificate authority was not taken up; the one before stays in force"
                    );
                }
                notify::ready();
            }
        }
    }
    notify::stopping();
    tokio::select! {
        () = gateway.stop(drain) => {}
        // Fed to the end: a drain may last longer than the service manager waits.
        _ = &mut watchdog => {}
        // A second order to stop means now; a reload has nothing left to change.
        () = async { while signals.next().await == Signal::Reload {} } => {}
    }
    Ok(())
}

fn failed(error: &anyhow::Error, code: u8) -> Failure {
    say(&format!("fairlead-gateway: {error:#}"));
    Failure(code)
}

/// To the person who runs it; logs go through tracing.
#[expect(clippy::print_stderr, reason = "this is the program's voice on the terminal")]
fn say(text: &str) {
    eprintln!("{text}");
}
