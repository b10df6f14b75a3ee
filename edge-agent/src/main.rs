//! `fairlead-agent`: parses, builds, runs, maps to an exit code.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use fairlead_agent::command::{Arguments, Command, Enroll};
use fairlead_agent::console::Shown;
use fairlead_agent::link::Ways;
use fairlead_agent::machine::CopiedState;
use fairlead_agent::{Agent, config, doctor, enroll, first_run, joining};
use fairlead_identity::join::JoinString;
use fairlead_runtime::account::Account;
use fairlead_runtime::audit::AuditError;
use fairlead_runtime::config_file;
use fairlead_runtime::config_file::PrivateError::{ForeignOwner, NotADirectory, TooOpen};
use fairlead_runtime::stop::{self, CancellationToken, Signal};
use fairlead_runtime::{metrics, notify, process, telemetry};
use secrecy::ExposeSecret;

/// How long threads that cannot be cancelled may go on when everything else has ended.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(1);

/// Exit codes of PRODUCT: 1 failed, 69 gateway unreachable, 77 denied, 78 bad configuration.
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
        return fail(&error, 1);
    }
    if let Err(error) = process::forbid_dumps() {
        tracing::warn!(%error, "keys in memory could reach a core file");
    }
    if let Err(error) = process::raise_file_limit() {
        tracing::warn!(%error, "the limit of open files could not be raised; it bounds the sessions");
    }
    // One thread: an agent shares a small device with what the device is for.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(arguments));
            // The system's resolver may hold a thread for longer than anybody waits for its answer.
            runtime.shutdown_timeout(LEFTOVER_LIMIT);
            outcome
        }
        Err(error) => return fail(&error, 1),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code)) => ExitCode::from(code),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Console(console) => return show(&console.run(&arguments.config)),
        #[cfg(feature = "builtin-ssh")]
        Command::SftpServer => return serve_files(),
        _ => {}
    }
    let config = load(&arguments.config)?;
    match arguments.command {
        Command::Check => {
            if let Some(account) = first_run::account(&arguments.config, &config.state_dir).map_err(not_seen)? {
                return go_on_as(&account, &first_run::check_arguments(&whole(&arguments.config)), b"");
            }
            fairlead_agent::check(&config).map_err(|error| failed(&error, 78))?;
            config
                .warnings()
                .iter()
                .for_each(|warning| say(&format!("warning: {warning}")));
            say(&format!(
                "{}: good; {} endpoints",
                arguments.config.display(),
                config.endpoints.len()
            ));
            Ok(())
        }
        Command::Doctor { json } => show(&doctor::show(&doctor::examine(&config).await, json)),
        Command::Enroll(enroll) => enroll_here(&enroll, &config, &arguments.config).await,
        Command::Run => {
            let join_file = joining::join_file(&arguments.config);
            serve(config, &arguments.config, &join_file).await
        }
        // Answered above: it needs nothing of what follows.
        Command::Console(_) => Ok(()),
        #[cfg(feature = "builtin-ssh")]
        Command::SftpServer => Ok(()),
    }
}

/// With the rights of whoever runs it, on standard input and output.
#[cfg(feature = "builtin-ssh")]
fn serve_files() -> Result<(), Failure> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let home = home.filter(|home| home.is_absolute()).unwrap_or_else(|| "/".into());
    let served = fairlead_agent::sshd::serve_stdio(home, std::io::stdin().lock(), std::io::stdout().lock());
    served.map_err(|error| failed(&error.into(), 1))
}

async fn enroll_here(asked: &Enroll, config: &config::Config, file: &Path) -> Result<(), Failure> {
    let text = config_file::read_secret_or_stdin(&asked.token_file).map_err(|error| failed(&error.into(), 1))?;
    let text = text.expose_secret();
    let join = JoinString::parse(text).map_err(|error| failed(&error.into(), 77))?;
    if let Some(account) = first_run::account(file, &config.state_dir).map_err(not_seen)? {
        let arguments = first_run::enroll_arguments(&whole(file), asked.name.as_ref(), asked.no_wait);
        go_on_as(&account, &arguments, text.as_bytes())?;
    } else {
        let enrolled = if asked.no_wait {
            enroll::enroll_agent_as(&join, &config.state_dir, asked.name.as_ref(), &config.ways).await
        } else {
            joining::until_approved(&join, &config.state_dir, asked.name.as_ref(), &config.ways, say).await
        };
        let enrolled = enrolled.map_err(|error| failed(&error, enroll_code(&error)))?;
        if let Some(name) = asked.name.as_ref()
            && !enrolled.principal.ends_with(&format!("/{name}"))
        {
            say(&format!(
                "the join string names this agent, so --name {name} was not looked at"
            ));
        }
        say(&format!("enrolled as {}", enrolled.principal));
    }
    if asked.by_root {
        return Ok(());
    }
    if config.endpoints.is_empty() {
        say(&format!(
            "{} lists no endpoints yet, so nothing can be reached",
            file.display()
        ));
    }
    let unit = first_run::unit_of(file).filter(|_| !asked.no_start && nix::unistd::geteuid().is_root());
    let is_started = unit.as_deref().map_or(Ok(false), first_run::start);
    match (is_started, unit) {
        (Ok(true), Some(unit)) => say(&format!(
            "{unit} is started, at each boot too; `systemctl status {unit}` shows it"
        )),
        (Ok(_), _) => say("start it with `fairlead-agent run`"),
        (Err(why), _) => {
            say(&why);
            return Err(Failure(1));
        }
    }
    Ok(())
}

/// The rest of a command of root's, as the account that the state directory belongs to.
fn go_on_as(account: &Account, arguments: &[OsString], input: &[u8]) -> Result<(), Failure> {
    match account.run_again(arguments, input, Stdio::inherit()) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Failure(code)),
        Err(error) => {
            say(&format!("fairlead-agent: cannot go on as {}: {error}", account.name));
            Err(Failure(1))
        }
    }
}

/// The other account's process may look elsewhere for it.
fn whole(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn not_seen(error: std::io::Error) -> Failure {
    failed(
        &anyhow::Error::new(error).context("the state directory cannot be looked at"),
        1,
    )
}

async fn serve(config: config::Config, file: &Path, join_file: &Path) -> Result<(), Failure> {
    let mut signals = stop::signals().map_err(|error| failed(&error.into(), 1))?;
    if joining::is_wanted(join_file, &config.state_dir).map_err(|error| failed(&error, 78))?
        && !enrolled_by(join_file, &config.state_dir, &config.ways, &mut signals).await?
    {
        return Ok(());
    }
    let mut agent = start(config).await?;
    notify::ready();
    // On this task, so that a stuck runtime shows.
    let watchdog = async {
        notify::keep_watchdog_fed(|| true).await;
        std::future::pending().await
    };
    tokio::pin!(watchdog);
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            signal = &mut watchdog => signal,
            () = agent.ended() => {
                say("the agent ended by a fault of its own; see the log");
                return Err(Failure(1));
            }
            () = agent.renamed() => {
                // Rules, audit log and control socket speak of the name too.
                agent.stop().await;
                agent = start(load(file)?).await?;
                continue;
            }
        };
        match signal {
            Signal::Stop => break,
            Signal::Reload => reload(&agent).await,
        }
    }
    notify::stopping();
    tokio::select! {
        () = agent.stop() => {}
        // Fed to the end: a drain may last longer than the service manager waits.
        _ = &mut watchdog => {}
        // A second order to stop means now; a reload has nothing left to change.
        () = async { while signals.next().await == Signal::Reload {} } => {}
    }
    Ok(())
}

async fn start(config: config::Config) -> Result<Agent, Failure> {
    let started = Agent::start(config, &CancellationToken::new()).await;
    started.map_err(|error| {
        // A log that another process holds, or a full disk, is nothing that the file says.
        let code = if error.is::<AuditError>() { 1 } else { 78 };
        failed(&error, code)
    })
}

fn load(file: &Path) -> Result<config::Config, Failure> {
    config::load(file).map_err(|mistakes| {
        mistakes.iter().for_each(|mistake| say(&mistake.to_string()));
        Failure(78)
    })
}

async fn reload(agent: &Agent) {
    notify::reloading();
    match agent.reload().await {
        Ok(reloaded) => {
            let digest = reloaded.digest;
            tracing::info!(
                digest,
                ended = reloaded.ended,
                "the file was read again and is in force"
            );
            if !reloaded.after_restart.is_empty() {
                let keys = reloaded.after_restart.join(", ");
                tracing::warn!(keys, "these keys were changed and hold after a restart only");
            }
        }
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| say(&mistake.to_string()));
            tracing::error!("the file has mistakes: the one that was in force stays");
        }
    }
    notify::ready();
}

/// Enrols by a join file, for as long as it takes; `false` when the agent is told to stop before.
async fn enrolled_by(
    join_file: &Path,
    state_dir: &Path,
    ways: &Ways,
    signals: &mut stop::Signals,
) -> Result<bool, Failure> {
    // Approval may take days; for the service manager the agent is up.
    notify::ready();
    notify::status("waits for its enrolment");
    tokio::select! {
        enrolled = joining::by_file(join_file, state_dir, ways) => {
            let enrolled = enrolled.map_err(|error| failed(&error, 78))?;
            say(&format!("enrolled as {} by {}", enrolled.principal, join_file.display()));
            notify::status("enrolled");
            Ok(true)
        }
        // Returns at once where systemd does not watch.
        () = async { notify::keep_watchdog_fed(|| true).await; std::future::pending().await } => Ok(false),
        () = async { while signals.next().await == Signal::Reload {} } => {
            notify::stopping();
            Ok(false)
        }
    }
}

/// How an enrolment that failed ends the process.
fn enroll_code(error: &anyhow::Error) -> u8 {
    use enroll::EnrollError::{Answer, Pending, Refused, Unreachable, WrongGateway, WrongKind};
    match error.downcast_ref() {
        Some(Unreachable(_)) => 69,
        Some(Refused { .. } | WrongGateway { .. } | WrongKind(_)) => 77,
        // Not a no: only that nobody has said yes so far.
        Some(Answer(_) | Pending(_)) => 1,
        None if error.is::<CopiedState>() => 78,
        // Somebody must put the state directory right before anything else.
        None if matches!(
            error.downcast_ref(),
            Some(TooOpen { .. } | NotADirectory { .. } | ForeignOwner { .. })
        ) =>
        {
            78
        }
        None => 1,
    }
}

fn show(shown: &Shown) -> Result<(), Failure> {
    if !shown.note.is_empty() {
        say(&format!("fairlead-agent: {}", shown.note));
    }
    // A reader that went away, such as `head`, has what it wanted.
    drop(std::io::Write::write_all(&mut std::io::stdout(), shown.text.as_bytes()));
    match shown.code {
        0 => Ok(()),
        code => Err(Failure(code)),
    }
}

fn failed(error: &anyhow::Error, code: u8) -> Failure {
    say(&format!("fairlead-agent: {error:#}"));
    Failure(code)
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    say(&format!("fairlead-agent: {error}"));
    ExitCode::from(code)
}

/// To the person who runs it; logs go through tracing.
#[expect(clippy::print_stderr, reason = "this is the program's voice on the terminal")]
fn say(text: &str) {
    eprintln!("{text}");
}
