//! A stream that counts what passes into a session's counters, where the relay does not carry its bytes, and the silence of such a
//! session.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fairlead_runtime::relay::Counters;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::session::Live;

/// Counts the bytes read from and written to `inner`: what is read goes to the upstream.
pub(crate) struct Counted<S> {
    inner: S,
    live: Arc<Live>,
}

impl<S> Counted<S> {
    pub(crate) fn new(inner: S, live: Arc<Live>) -> Self {
        Self { inner, live }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let count = buf.filled().len().saturating_sub(before);
        self.live
            .counters
            .to_upstream
            .fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.live
            .counters
            .to_caller
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

/// Completes when nothing has moved for as long as `limit`, seen at a tenth of it.
pub(crate) async fn silent(counters: &Counters, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let moved = || counters.to_upstream().saturating_add(counters.to_caller());
    let (mut last, mut since) = (moved(), Instant::now());
    loop {
        tokio::time::sleep((limit / 10).max(Duration::from_millis(100))).await;
        if moved() != last {
            (last, since) = (moved(), Instant::now());
        } else if since.elapsed() >= limit {
            return;
        }
    }
}
