//! Both halves of a session's stream as one byte stream, for a protocol that the agent itself serves.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::transport::{Receiver, Sender};
use fairlead_wire::refusal::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Ends as any stream does when it is dropped, except when this side cuts the session or stops: then it is broken off with
/// that reason, or the gateway would take the cut for the caller's and the service's own end.
pub(crate) struct CallerStream {
    from_caller: Receiver,
    to_caller: Sender,
    cut: Cut,
}

/// Why this side ends a session, once it does.
#[derive(Clone)]
pub(crate) struct Cut {
    /// Set when the session's reason has lapsed.
    pub(crate) reason: Arc<OnceLock<Reason>>,
    /// Cancelled when the agent stops.
    pub(crate) stopping: CancellationToken,
}

impl Cut {
    fn reason(&self) -> Option<Reason> {
        let stopping = self.stopping.is_cancelled().then_some(Reason::AgentStopping);
        self.reason.get().copied().or(stopping)
    }
}

impl CallerStream {
    pub(crate) fn new(from_caller: Receiver, to_caller: Sender, cut: Cut) -> Self {
        Self {
            from_caller,
            to_caller,
            cut,
        }
    }
}

impl AsyncRead for CallerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.from_caller).poll_read(cx, buf)
    }
}

impl AsyncWrite for CallerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.to_caller).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to_caller).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.cut.reason().is_some() {
            // An end would reach `ssh -J` ahead of our goodbye: its outer half takes the end for both, and the inner one is
            // cut off in the middle of what it reads.
            return Pin::new(&mut self.to_caller).poll_flush(cx);
        }
        Pin::new(&mut self.to_caller).poll_shutdown(cx)
    }
}

impl Drop for CallerStream {
    fn drop(&mut self) {
        if let Some(reason) = self.cut.reason() {
            let code = reason.code();
            // Either half may be closed already. What the caller has taken by now stays taken.
            self.from_caller.stop(code);
            self.to_caller.reset(code);
        }
    }
}
