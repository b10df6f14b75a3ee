//! An upgrade request within its bounds, read before the WebSocket library sees it: that one takes 64 KiB.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use fairlead_runtime::transport::websocket::Carrier;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// Bytes and header lines of a request, at most (SECURITY.md advisory 63).
const MAX_BYTES: usize = 8 * 1024;
const MAX_LINES: usize = 64;

/// A connection that gives its request once more, then what follows.
pub(super) struct Head<S> {
    seen: Bytes,
    inner: TlsStream<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Head<S> {
    /// Reads up to the empty line.
    ///
    /// # Errors
    /// `InvalidData` for a request out of bounds, `UnexpectedEof` for half of one, and the stream's own.
    pub(super) async fn read(mut inner: TlsStream<S>) -> io::Result<Self> {
        let mut seen = BytesMut::with_capacity(1024);
        loop {
            let room = MAX_BYTES.saturating_sub(seen.len());
            let limit = u64::try_from(room).unwrap_or_default();
            if (&mut inner).take(limit).read_buf(&mut seen).await? == 0 {
                return Err(if room == 0 {
                    io::Error::new(io::ErrorKind::InvalidData, "the request is longer than 8 KiB")
                } else {
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the request was not finished")
                });
            }
            let lines = seen.iter().filter(|byte| **byte == b'\n').count();
            if lines > MAX_LINES.saturating_add(2) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the request has more than 64 headers",
                ));
            }
            if seen.windows(4).any(|end| end == b"\r\n\r\n") {
                return Ok(Self {
                    seen: seen.freeze(),
                    inner,
                });
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Head<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.seen.has_remaining() {
            let take = self.seen.remaining().min(buf.remaining());
            buf.put_slice(&self.seen.split_to(take));
            if !self.seen.has_remaining() {
                // The buffer is not held through the life of the link.
                self.seen = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Head<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Carrier for Head<S> {
    fn export(&self, output: &mut [u8], label: &[u8]) -> bool {
        self.inner.export(output, label)
    }
}
