//! A running program: its input and output carried until it has ended, or its channel has.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use fairlead_runtime::tasks::TaskGroup;
use nix::sys::signal::Signal;
use pty_process::{OwnedReadPty, OwnedWritePty};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::channels::Ending;
use super::hangup::Group;
use super::outlet::{Closed, Exit, Outlet};
use super::terminal::{Size, State, Terminal};
use fairlead_runtime::channel::Intake;

/// Output read at once: grows with what a program writes, so that an idle one costs little.
const SMALLEST_PIECE: usize = 4 * 1024;
const LARGEST_PIECE: usize = 32 * 1024;
/// How long a terminal stays open for late output after its program ended: something else may hold it for ever.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// The channel's side of a running program.
pub(super) struct Wiring {
    pub(super) intake: Arc<Intake>,
    pub(super) outlet: Outlet,
    pub(super) signals: mpsc::Receiver<Signal>,
    pub(super) size: watch::Receiver<Size>,
    pub(super) ending: Ending,
    pub(super) blocking: TaskGroup,
}

/// A started program.
pub(super) struct Program {
    pub(super) child: Child,
    pub(super) group: Group,
    pub(super) wires: Wires,
    /// Said on standard error before anything else.
    pub(super) notice: Option<String>,
}

/// What a program's input and output go through.
pub(super) enum Wires {
    Pipes {
        stdin: ChildStdin,
        stdout: ChildStdout,
        stderr: ChildStderr,
    },
    Terminal(Terminal),
}

impl Program {
    /// Carries the program's input and output until it has ended and all its output is sent, or until the channel ends.
    /// Returns when nothing of it is left.
    pub(super) async fn run(self, wiring: Wiring) {
        let Self {
            mut child,
            group,
            wires,
            notice,
        } = self;
        let Wiring {
            intake,
            outlet,
            signals,
            size,
            ending,
            blocking,
        } = wiring;
        let exit = async {
            if let Some(notice) = notice {
                outlet.stderr(notice.into()).await?;
            }
            match wires {
                Wires::Pipes { stdin, stdout, stderr } => tokio::select! {
                    exit = drain_pipes(stdout, stderr, &mut child, &outlet) => exit,
                    never = feed_pipe(stdin, &intake) => match never {},
                    never = obey(signals, &group, &blocking) => match never {},
                },
                Wires::Terminal(terminal) => {
                    run_terminal(
                        terminal,
                        &mut child,
                        (&group, &blocking),
                        &intake,
                        &outlet,
                        signals,
                        size,
                    )
                    .await
                }
            }
        };
        // The program's ends of pipes and terminal are dropped with this future: to what is left that is the hang-up.
        let exit = tokio::select! {
            biased; // a channel that has ended needs no more of its output
            reason = ending.ended() => Err(reason),
            exit = exit => exit.map_err(|Closed| None),
        };
        outlet.conclude(exit, &ending).await;
        group.hang_up(&blocking).await;
    }
}

/// Sends both outputs until both are closed and the program has ended: a pipe may be held by something it left behind, and
/// that output is still wanted (`ssh device 'make 2>&1 | tee log &'`).
async fn drain_pipes(
    stdout: ChildStdout,
    stderr: ChildStderr,
    child: &mut Child,
    outlet: &Outlet,
) -> Result<Exit, Closed> {
    let (mut out, mut err) = (Pieces::new(stdout), Pieces::new(stderr));
    while out.is_open() || err.is_open() {
        // One sender for both, so that they share the client's window fairly.
        tokio::select! {
            Some(piece) = out.next(), if out.is_open() => outlet.data(piece).await?,
            Some(piece) = err.next(), if err.is_open() => outlet.stderr(piece).await?,
            else => {}
        }
    }
    Ok(ended(child).await)
}

/// Gives the program what the client sends; closes its standard input after the client's EOF.
async fn feed_pipe(mut stdin: ChildStdin, intake: &Intake) -> Infallible {
    while let Some(piece) = intake.take().await {
        if stdin.write_all(&piece).await.is_err() {
            // The program closed its input: what still comes is dropped, as sshd does.
            intake.refuse();
        }
    }
    drop(stdin);
    pending().await
}

/// Passes on the client's signals.
async fn obey(mut signals: mpsc::Receiver<Signal>, group: &Group, blocking: &TaskGroup) -> Infallible {
    while let Some(signal) = signals.recv().await {
        group.signal(signal, None, blocking).await;
    }
    pending().await
}

async fn run_terminal(
    terminal: Terminal,
    child: &mut Child,
    group: (&Group, &TaskGroup),
    intake: &Intake,
    outlet: &Outlet,
    signals: mpsc::Receiver<Signal>,
    size: watch::Receiver<Size>,
) -> Result<Exit, Closed> {
    let Terminal { output, keys, state } = terminal;
    tokio::select! {
        exit = drain_terminal(output, child, outlet) => exit,
        never = operate(keys, &state, group, intake, signals, size) => match never {},
    }
}

/// Types what the client sends, and passes on its signals and window sizes.
async fn operate(
    mut keys: OwnedWritePty,
    state: &State,
    (group, blocking): (&Group, &TaskGroup),
    intake: &Intake,
    mut signals: mpsc::Receiver<Signal>,
    mut size: watch::Receiver<Size>,
) -> Infallible {
    let mut typing = Bytes::new();
    let mut last = b'\n';
    let mut open = true;
    loop {
        tokio::select! {
            piece = intake.take(), if open && typing.is_empty() => match piece {
                Some(piece) => {
                    last = piece.last().copied().unwrap_or(last);
                    typing = piece;
                }
                None => {
                    open = false;
                    typing = end_of_input(state, last);
                }
            },
            written = keys.write(&typing), if !typing.is_empty() => match written {
                Ok(written) => typing.advance(written),
                Err(_) => {
                    intake.refuse();
                    typing.clear();
                }
            },
            Some(signal) = signals.recv() => group.signal(signal, state.foreground(), blocking).await,
            Ok(()) = size.changed() => {
                let size = *size.borrow_and_update();
                if let Err(error) = keys.resize(size.into()) {
                    tracing::debug!(%error, "a terminal's size was not changed");
                }
            }
            else => pending().await,
        }
    }
}

/// A terminal cannot be half closed: a program that reads lines is told by the key for it, which within a line must be
/// pressed twice.
fn end_of_input(state: &State, last: u8) -> Bytes {
    let presses = if last == b'\n' { 1 } else { 2 };
    state
        .end_of_input()
        .map(|key| vec![key; presses].into())
        .unwrap_or_default()
}

/// Sends a terminal's output until the program has ended and the terminal is closed or silent.
async fn drain_terminal(output: OwnedReadPty, child: &mut Child, outlet: &Outlet) -> Result<Exit, Closed> {
    let mut pieces = Pieces::new(output);
    let mut exit = None;
    while pieces.is_open() {
        tokio::select! {
            Some(piece) = pieces.next() => outlet.data(piece).await?,
            status = ended(child), if exit.is_none() => exit = Some(status),
            () = sleep(LAST_WORDS), if exit.is_some() => break,
            else => {}
        }
    }
    match exit {
        Some(exit) => Ok(exit),
        None => Ok(ended(child).await),
    }
}

/// Cancel-safe.
async fn ended(child: &mut Child) -> Exit {
    match child.wait().await {
        Ok(status) => Exit::from(status),
        Err(error) => {
            tracing::warn!(%error, "a program's exit status was not to be had");
            Exit::Status(1)
        }
    }
}

/// Reads in pieces whose size follows what comes.
struct Pieces<R> {
    source: Option<R>,
    size: usize,
}

impl<R: AsyncRead + Unpin> Pieces<R> {
    fn new(source: R) -> Self {
        Self {
            source: Some(source),
            size: SMALLEST_PIECE,
        }
    }

    fn is_open(&self) -> bool {
        self.source.is_some()
    }

    /// The next piece; `None` at the end, or when reading fails, as a terminal does once nobody holds its other side.
    /// Cancel-safe.
    async fn next(&mut self) -> Option<Bytes> {
        let source = self.source.as_mut()?;
        let mut piece = BytesMut::with_capacity(self.size);
        match source.read_buf(&mut piece).await {
            Ok(read) if read > 0 => {
                if read >= self.size {
                    self.size = (self.size * 2).min(LARGEST_PIECE);
                } else if read < self.size / 4 {
                    self.size = (self.size / 2).max(SMALLEST_PIECE);
                }
                Some(piece.freeze())
            }
            _ => {
                self.source = None;
                None
            }
        }
    }
}
