//! The shipped programs as child processes: found beside the test, started with bounded waits, their log kept in a file,
//! ended by id when dropped.
//!
//! The lab has the same parts in one process; this is for what only a process has: exit codes, signals, being killed,
//! being many. Stock clients are run by [`crate::clients`].

mod net;
mod scene;
mod setting;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::clients::{self, Finished};

pub use net::{free_port, http_get, udp_port_taken};
pub use scene::{DEVICE, Scene};
pub use setting::{ACCESS, AgentHome, DOMAIN, GatewayHome, UserHome, account, throw_away};

/// For states that come within milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a state is looked at that nobody announces.
const LOOK: Duration = Duration::from_millis(20);

/// The path of a shipped program of this build.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    // target/PROFILE/deps/TEST, and the programs in target/PROFILE.
    let mut folder = own.parent().expect("a test lies in a folder").to_path_buf();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    let release = if folder.ends_with("release") { " --release" } else { "" };
    assert!(
        path.is_file(),
        "{} is not there: these tests run the real programs; build them first with `cargo build --workspace --bins{release}`",
        path.display()
    );
    path
}

/// A command of a shipped program, without what the environment of whoever runs the tests says to Fairlead.
pub fn command<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let path = program(name);
    let mut command = clients::stock(path.to_str().expect("a path that is text"));
    for variable in [
        "FAIRLEAD_ADMIN_SOCKET",
        "FAIRLEAD_HOME",
        "FAIRLEAD_LOG",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
    ] {
        command.env_remove(variable);
    }
    command.args(arguments);
    command
}

/// Runs a shipped program to its end.
pub async fn run<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Finished {
    clients::run(command(name, arguments)).await
}

/// Fails the test unless the program ended with this code and its standard error has each of these texts.
#[track_caller]
pub fn ended_with(finished: &Finished, code: i32, texts: &[&str]) {
    let said = format!("{}: {}{}", finished.status, finished.text(), finished.stderr);
    assert_eq!(finished.code(), Some(code), "{said}");
    for text in texts {
        assert!(finished.stderr.contains(text), "no {text:?} in {said}");
    }
}

/// Waits until `probe` gives something, looking every 20 ms; fails the test after `limit`.
pub async fn until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// A shipped program that runs until it is told to end. Killed when dropped; its log is shown when the test fails.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; what it says is appended to `log`.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let name = format!("{:?}", command.as_std());
        let open = || -> File {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .expect("a log file")
        };
        command
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .kill_on_drop(true);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
        Self {
            name,
            child,
            log: log.to_owned(),
        }
    }

    /// What it has said so far, earlier runs with the same log file included.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).expect("the log is read")).into_owned()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("the child's state").is_none()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or_else(|| panic!("{} has ended", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("the signal is sent");
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.start_kill().expect("the child is killed");
        self.ended(PATIENCE).await;
    }

    /// Waits for its end: the exit code, `None` when a signal ended it. Fails the test after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> Option<i32> {
        let ended = timeout(limit, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("{} did not end within {limit:?}: {}", self.name, self.log()));
        status.expect("the child's end").code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(4000);
            let tail = log.get(log.ceil_char_boundary(from)..).unwrap_or_default();
            // Into the captured output of the test that fails.
            #[expect(clippy::print_stderr, reason = "the reader of a failed test wants the log")]
            {
                eprintln!("---- {}\n{tail}", self.name);
            }
        }
    }
}
