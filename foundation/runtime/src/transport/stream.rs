//! The two halves of a stream. Each direction ends by itself: cleanly, or broken off with a number.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use quinn::VarInt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::websocket::{ReadHalf, WriteHalf};
use crate::relay::{Batch, Sink, Source};

/// The half that is written. Dropped without [`finish`](Sink::finish) or [`abort`](Sink::abort), it ends cleanly.
#[derive(Debug)]
pub enum Sender {
    /// Over QUIC.
    Quic(quinn::SendStream),
    /// Over WebSocket.
    WebSocket(WriteHalf),
}

/// The half that is read. Dropped before its end, it tells the peer that nobody reads, with the number 0.
#[derive(Debug)]
pub enum Receiver {
    /// Over QUIC.
    Quic(quinn::RecvStream),
    /// Over WebSocket.
    WebSocket(ReadHalf),
}

/// How a written half came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was finished, and the peer's transport has everything.
    Delivered,
    /// The peer reads no further, for the reason of this number.
    ByPeer(u64),
    /// The connection is gone.
    Lost,
}

impl Sender {
    /// Waits until the peer reads no further, or has everything of a finished half. Finishing alone is not delivery:
    /// closing the connection right after it may lose the end. Holds no borrow, so that writing can go on. Cancel safe.
    pub fn stopped(&self) -> impl Future<Output = Stopped> + Send + use<> {
        // Combinators, not an async block: every idle session holds this future, and a block would hold its parts twice.
        match self {
            Self::Quic(stream) => Either::Left(stream.stopped().map(|stopped| match stopped {
                Ok(Some(code)) => Stopped::ByPeer(code.into_inner()),
                Ok(None) => Stopped::Delivered,
                Err(_) => Stopped::Lost,
            })),
            Self::WebSocket(stream) => Either::Right(stream.stopped()),
        }
    }

    /// Waits until the peer's transport has everything of a finished half; false when it did not within `limit`, or the
    /// peer stopped reading, or is gone.
    pub async fn delivered(&self, limit: Duration) -> bool {
        matches!(
            tokio::time::timeout(limit, self.stopped()).await,
            Ok(Stopped::Delivered)
        )
    }

    /// Breaks it off with `code`; one that has ended stays as it ended.
    pub fn reset(&mut self, code: u32) {
        match self {
            // A stream that is closed already needs no reset.
            Self::Quic(stream) => drop(stream.reset(VarInt::from_u32(code))),
            Self::WebSocket(stream) => stream.reset(code),
        }
    }
}

impl Receiver {
    /// Reads no further, and tells the peer `code`; after the end this does nothing.
    pub fn stop(&mut self, code: u32) {
        match self {
            Self::Quic(stream) => drop(stream.stop(VarInt::from_u32(code))),
            Self::WebSocket(stream) => stream.stop(code),
        }
    }
}

impl AsyncRead for Receiver {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::WebSocket(stream) => stream.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Sender {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Quic(stream) => AsyncWrite::poll_write(Pin::new(stream), cx, buf),
            Self::WebSocket(stream) => stream.poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => Pin::new(stream).poll_flush(cx),
            Self::WebSocket(stream) => stream.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::WebSocket(stream) => stream.poll_finish(cx),
        }
    }
}

impl Source for Receiver {
    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Quic(stream) => stream.chunk().await,
            Self::WebSocket(stream) => stream.chunk().await,
        }
    }

    async fn fill(&mut self, batch: &mut Batch) -> io::Result<bool> {
        match self {
            Self::Quic(stream) => stream.fill(batch).await,
            Self::WebSocket(stream) => stream.fill(batch).await,
        }
    }
}

impl Sink for Sender {
    async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Quic(stream) => stream.send(bytes).await,
            Self::WebSocket(stream) => stream.send(bytes).await,
        }
    }

    async fn send_batch(&mut self, batch: &mut Batch) -> io::Result<()> {
        match self {
            Self::Quic(stream) => stream.send_batch(batch).await,
            Self::WebSocket(stream) => {
                while let Some(bytes) = batch.pop() {
                    stream.send(bytes).await?;
                }
                Ok(())
            }
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Quic(stream) => Sink::finish(stream).await,
            Self::WebSocket(stream) => poll_fn(|context| stream.poll_finish(context)).await,
        }
    }

    fn abort(mut self, code: u32) {
        self.reset(code);
    }
}
