//! What goes back to the client on one channel: paced by the client's window, so that nothing piles up here.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use tokio::time::sleep;

use super::channels::Ending;

/// SSH's number for standard error (RFC 4254, section 5.2).
pub(super) const STDERR: u32 = 1;
/// How long a client may take to hear why its channel was ended.
const LAST_CALL: Duration = Duration::from_secs(1);
/// The exit status of a program that we ended.
const EXIT_ENDED: u32 = 255;

/// The connection is gone; whoever writes can stop.
#[derive(Debug)]
pub(super) struct Closed;

/// How a program ended.
#[derive(Debug)]
pub(super) enum Exit {
    /// It returned this.
    Status(u32),
    /// A signal ended it.
    Signal {
        /// Which one.
        signal: Sig,
        /// Whether it left a core file.
        dumped: bool,
    },
}

/// One channel's way out. Each call waits until the client's window has room, and for ever once the connection is gone: race
/// it against the channel's token.
pub(super) struct Outlet {
    half: ChannelWriteHalf<Msg>,
    handle: Handle,
}

impl Outlet {
    pub(super) fn new(half: ChannelWriteHalf<Msg>, handle: Handle) -> Self {
        Self { half, handle }
    }

    /// Sends output.
    pub(super) async fn data(&self, data: Bytes) -> Result<(), Closed> {
        self.half.data_bytes(data).await.map_err(|_| Closed)
    }

    /// Sends output as standard error.
    pub(super) async fn stderr(&self, data: Bytes) -> Result<(), Closed> {
        self.half.extended_data_bytes(STDERR, data).await.map_err(|_| Closed)
    }

    /// Closes the channel: with the program's exit, or with the reason why it was ended, if the client is to know one. Waits
    /// no longer than the connection lives, nor than [`LAST_CALL`] after the channel was ended.
    pub(super) async fn conclude(self, exit: Result<Exit, Option<&'static str>>, ending: &Ending) {
        let told = async {
            match exit {
                Ok(exit) => self.exit(exit).await,
                Err(reason) => {
                    if let Some(reason) = reason {
                        self.stderr(Bytes::from_static(reason.as_bytes())).await?;
                    }
                    self.exit(Exit::Status(EXIT_ENDED)).await
                }
            }
        };
        tokio::select! {
            _ = async { ending.ended().await; sleep(LAST_CALL).await } => {}
            told = told => if let Err(Closed) = told {
                tracing::debug!("the connection ended before the program's exit was told");
            }
        }
    }

    /// Ends the channel: no more output, how it ended, closed.
    async fn exit(self, exit: Exit) -> Result<(), Closed> {
        let id = self.half.id();
        self.half.eof().await.map_err(|_| Closed)?;
        match exit {
            Exit::Status(status) => self.half.exit_status(status).await.map_err(|_| Closed)?,
            Exit::Signal { signal, dumped } => {
                let message = self
                    .handle
                    .exit_signal_request(id, signal, dumped, String::new(), String::new());
                message.await.map_err(|()| Closed)?;
            }
        }
        self.half.close().await.map_err(|_| Closed)
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Status(u32::try_from(code).unwrap_or(1)),
            (None, Some(number)) => Self::Signal {
                signal: name(number),
                dumped: status.core_dumped(),
            },
            (None, None) => Self::Status(1),
        }
    }
}

/// The protocol's name for a signal number (RFC 4254, section 6.10: without `SIG`).
fn name(number: i32) -> Sig {
    match Signal::try_from(number) {
        Ok(Signal::SIGABRT) => Sig::ABRT,
        Ok(Signal::SIGALRM) => Sig::ALRM,
        Ok(Signal::SIGFPE) => Sig::FPE,
        Ok(Signal::SIGHUP) => Sig::HUP,
        Ok(Signal::SIGILL) => Sig::ILL,
        Ok(Signal::SIGINT) => Sig::INT,
        Ok(Signal::SIGKILL) => Sig::KILL,
        Ok(Signal::SIGPIPE) => Sig::PIPE,
        Ok(Signal::SIGQUIT) => Sig::QUIT,
        Ok(Signal::SIGSEGV) => Sig::SEGV,
        Ok(Signal::SIGTERM) => Sig::TERM,
        Ok(Signal::SIGUSR1) => Sig::USR1,
        Ok(other) => Sig::Custom(other.as_str().trim_start_matches("SIG").to_owned()),
        Err(_) => Sig::Custom(format!("{number}@fairlead")),
    }
}

/// The signal a client names, of those that make sense for a program it started.
pub(super) fn signal(named: &Sig) -> Option<Signal> {
    Some(match named {
        Sig::ABRT => Signal::SIGABRT,
        Sig::ALRM => Signal::SIGALRM,
        Sig::FPE => Signal::SIGFPE,
        Sig::HUP => Signal::SIGHUP,
        Sig::ILL => Signal::SIGILL,
        Sig::INT => Signal::SIGINT,
        Sig::KILL => Signal::SIGKILL,
        Sig::PIPE => Signal::SIGPIPE,
        Sig::QUIT => Signal::SIGQUIT,
        Sig::SEGV => Signal::SIGSEGV,
        Sig::TERM => Signal::SIGTERM,
        Sig::USR1 => Signal::SIGUSR1,
        Sig::Custom(name) => match name.as_str() {
            "USR2" => Signal::SIGUSR2,
            "TSTP" => Signal::SIGTSTP,
            "STOP" => Signal::SIGSTOP,
            "CONT" => Signal::SIGCONT,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_told_as_they_were() {
        let told = |raw: i32| format!("{:?}", Exit::from(ExitStatus::from_raw(raw)));
        assert_eq!(told(7 << 8), "Status(7)");
        assert_eq!(told(15), "Signal { signal: TERM, dumped: false }");
        assert_eq!(told(11 | 0x80), "Signal { signal: SEGV, dumped: true }");
        assert_eq!(told(12), "Signal { signal: Custom(\"USR2\"), dumped: false }");
    }

    #[test]
    fn unknown_signals_are_not_sent() {
        assert_eq!(signal(&Sig::INT), Some(Signal::SIGINT));
        assert_eq!(signal(&Sig::Custom("USR2".into())), Some(Signal::SIGUSR2));
        assert_eq!(signal(&Sig::Custom("9".into())), None);
    }
}
