//! How things are told to end: a plain token where no reason is needed, a [`Lapse`] where somebody will ask why, and
//! the process's signals.
//!
//! The order in which a program stops belongs to its composition root, not here.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::SetOnce;
pub use tokio_util::sync::CancellationToken;

/// The end of a permission, with the reason. The first reason wins; clones are the same lapse.
#[derive(Debug)]
pub struct Lapse<R> {
    reason: Arc<SetOnce<R>>,
}

impl<R> Clone for Lapse<R> {
    fn clone(&self) -> Self {
        Self {
            reason: Arc::clone(&self.reason),
        }
    }
}

impl<R> Default for Lapse<R> {
    fn default() -> Self {
        Self {
            reason: Arc::new(SetOnce::new()),
        }
    }
}

impl<R> Lapse<R> {
    /// Starts without a reason.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends it for `reason`. Returns false where an earlier reason stands.
    pub fn cancel(&self, reason: R) -> bool {
        self.reason.set(reason).is_ok()
    }

    /// Whether a reason was given.
    pub fn is_cancelled(&self) -> bool {
        self.reason.initialized()
    }
}

impl<R: Clone> Lapse<R> {
    /// Waits for the reason. Cancel safe.
    pub async fn cancelled(&self) -> R {
        self.reason.wait().await.clone()
    }

    /// Returns the reason, if there is one by now.
    pub fn reason(&self) -> Option<R> {
        self.reason.get().cloned()
    }
}

/// What the operating system asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: drain and end. The second one means: end now.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The stream of [`Signal`]s, made by [`signals`].
#[derive(Debug)]
pub struct Signals {
    terminate: UnixSignal,
    interrupt: UnixSignal,
    hangup: UnixSignal,
}

/// Takes over SIGTERM, SIGINT and SIGHUP for the rest of the process's life. Call it inside a runtime.
///
/// # Errors
/// The operating system's refusal to install a handler.
pub fn signals() -> io::Result<Signals> {
    Ok(Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup: signal(SignalKind::hangup())?,
    })
}

impl Signals {
    /// Waits for the next signal. Cancel safe; signals of one kind that arrive together count once.
    pub async fn next(&mut self) -> Signal {
        // Biased: an order to stop is not kept waiting behind reloads.
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_wins_and_reaches_every_waiter() {
        let lapse = Lapse::new();
        let other = lapse.clone();
        assert!(!lapse.is_cancelled());
        assert_eq!(lapse.reason(), None);
        let waits = async { other.cancelled().await };
        let ends = async {
            assert!(lapse.cancel("revoked"));
            assert!(!lapse.cancel("idle"));
        };
        let (seen, ()) = tokio::join!(waits, ends);
        assert_eq!(seen, "revoked");
        assert_eq!(other.reason(), Some("revoked"));
    }

    #[tokio::test]
    async fn signals_of_the_process_arrive_in_order_of_weight() {
        use nix::sys::signal::{Signal as Raw, raise};
        let mut signals = signals().unwrap();
        raise(Raw::SIGHUP).unwrap();
        assert_eq!(signals.next().await, Signal::Reload);
        raise(Raw::SIGTERM).unwrap();
        assert_eq!(signals.next().await, Signal::Stop);
    }
}
