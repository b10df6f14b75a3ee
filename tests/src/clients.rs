//! Stock programs with bounded time: run to their end, or held while a test looks at them. Whatever a test leaves is
//! killed with everything it started.

mod terminal;

use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

pub use terminal::Terminal;

/// Longer than any single run takes on a machine that is busy with other things.
pub const RUN_LIMIT: Duration = Duration::from_secs(100);
/// The same where 1 GiB travels (FAIRLEAD_TESTS_ALL=1).
const LONG_RUN_LIMIT: Duration = Duration::from_secs(900);

/// Whether the slow tier is asked for: FAIRLEAD_TESTS_ALL=1, as `tests/run --all` sets it.
pub fn asks_for_all() -> bool {
    std::env::var_os("FAIRLEAD_TESTS_ALL").is_some_and(|value| value == "1")
}

/// A stock program with a clean environment, in a process group of its own.
pub fn stock(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("SSH_AUTH_SOCK")
        .env_remove("DISPLAY")
        .env("LC_ALL", "C")
        .process_group(0);
    command
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran since the test began to wait for its end.
    pub took: Duration,
}

impl Finished {
    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails the test unless the program succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.status.success(), "{}: {}{}", self.status, self.text(), self.stderr);
        self
    }

    /// Fails the test unless the program failed with this word of Fairlead's; the session's id in it.
    #[track_caller]
    pub fn refused_as(&self, reason: &str) -> String {
        let (word, session) = self
            .last_word()
            .unwrap_or_else(|| panic!("no reason in {}: {}", self.status, self.stderr));
        assert_eq!(word, reason, "{}", self.stderr);
        assert_eq!(self.code(), Some(255), "{}", self.stderr);
        session
    }

    /// The reason and the session in `fairlead: REASON (session UUID)`.
    pub fn last_word(&self) -> Option<(String, String)> {
        let said = self
            .stderr
            .rsplit("fairlead: ")
            .next()
            .filter(|_| self.stderr.contains("fairlead: "))?;
        let (reason, rest) = said.split_once(" (session ")?;
        let (session, _) = rest.split_once(')')?;
        (session.len() == 36).then(|| (reason.to_owned(), session.to_owned()))
    }

    /// Standard error with the session's id taken out, for comparing what different people are told.
    pub fn stderr_without_session(&self) -> String {
        let session = self.last_word().map(|(_, session)| session).unwrap_or_default();
        if session.is_empty() {
            self.stderr.clone()
        } else {
            self.stderr.replace(&session, "SESSION")
        }
    }
}

/// Runs a program to its end without input.
pub async fn run(mut command: Command) -> Finished {
    command.stdin(Stdio::null());
    Running::start(command).finish().await
}

/// Runs a program to its end; `input` is all it can read.
pub async fn run_with(mut command: Command, input: &[u8]) -> Finished {
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.stdin.take().expect("a piped standard input");
    let feed = async move {
        // A program that does not read to the end says why in its output.
        drop(stdin.write_all(input).await);
        drop(stdin.shutdown().await);
    };
    let (finished, ()) = tokio::join!(running.finish(), feed);
    finished
}

/// A program that runs.
pub struct Running {
    shown: String,
    child: Child,
    /// Its standard input, where the command asked for a pipe.
    pub stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    group: Option<Pid>,
}

impl Running {
    /// Starts a program. Its standard input is what the command says.
    pub fn start(mut command: Command) -> Self {
        let shown = format!("{:?}", command.as_std());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a piped standard output"));
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self {
            shown,
            child,
            stdin,
            stdout,
            group,
        }
    }

    /// The next line of its standard output, without the break; fails the test where none comes.
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(RUN_LIMIT, self.stdout.read_line(&mut line)).await;
        let read = read
            .unwrap_or_else(|_| panic!("{} says nothing", self.shown))
            .expect("standard output is read");
        if read == 0 {
            panic!("{} ended: {}", self.shown, text(self.child.stderr.take()).await);
        }
        line.trim_end().to_owned()
    }

    /// What Ctrl-C does to it.
    pub fn interrupt(&self) {
        let group = self.group.expect("a program that was not waited for");
        killpg(group, Signal::SIGINT).expect("a program that runs");
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("the child's state").is_none()
    }

    /// Waits for its end, at most [`RUN_LIMIT`], in the slow tier 900 s; its standard input stays as it is.
    pub async fn finish(mut self) -> Finished {
        let began = Instant::now();
        let mut stdout = Vec::new();
        let stderr = self.child.stderr.take();
        let everything = async { tokio::join!(self.stdout.read_to_end(&mut stdout), text(stderr), self.child.wait()) };
        let limit = if asks_for_all() { LONG_RUN_LIMIT } else { RUN_LIMIT };
        let Ok((read, stderr, status)) = timeout(limit, everything).await else {
            panic!("{} did not end within {} s", self.shown, limit.as_secs());
        };
        read.expect("standard output is read");
        self.group = None;
        let status = status.expect("the child's end");
        Finished {
            status,
            stdout,
            stderr,
            took: began.elapsed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // ssh starts another ssh for the jump, scp and rsync start ssh: they go together.
        if let Some(group) = self.group.take() {
            let _gone = killpg(group, Signal::SIGKILL);
        }
    }
}

async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes).await.expect("standard error is read");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
