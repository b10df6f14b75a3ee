//! A stream that counts what passes, for sessions whose bytes the relay does not carry.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use fairlead_runtime::relay::Counters;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Counts the bytes read from and written to `inner`.
pub(crate) struct Counted<S> {
    inner: S,
    carried: Arc<Carried>,
}

/// What has passed so far.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    read: AtomicU64,
    written: AtomicU64,
}

impl Carried {
    /// Adds what has passed to a session's counters: what was read went to the upstream.
    pub(crate) fn copy_to(&self, counters: &Counters) {
        counters
            .to_upstream
            .fetch_add(self.read.load(Ordering::Relaxed), Ordering::Relaxed);
        counters
            .to_caller
            .fetch_add(self.written.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl<S> Counted<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            carried: Arc::default(),
        }
    }

    pub(crate) fn carried(&self) -> Arc<Carried> {
        Arc::clone(&self.carried)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let count = buf.filled().len().saturating_sub(before);
        self.carried
            .read
            .fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.carried
            .written
            .fetch_add(u64::try_from(written).unwrap_or(u64::MAX), Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
