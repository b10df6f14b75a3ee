//! Any other byte stream (TLS, an SSH channel, a unix socket) as an end of a relay.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::Result;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};

use super::{Batch, MAX_CHUNK, Sink, Source};

thread_local! {
    /// Where a poll reads to. Such streams cannot say that bytes are there without giving them, so the buffer belongs
    /// to the thread and not to each idle session; what came is copied out at its own size.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Makes both halves of `stream` fit for a relay.
pub fn split<S: AsyncRead + AsyncWrite + Send>(stream: S) -> (Reader<ReadHalf<S>>, Writer<WriteHalf<S>>) {
    let (read, write) = tokio::io::split(stream);
    (Reader(read), Writer(write))
}

/// A [`Source`] over anything that can be read.
#[derive(Debug)]
pub struct Reader<R>(pub R);

impl<R: AsyncRead + Send + Unpin> Source for Reader<R> {
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|context| {
            // Taken out for the time of the poll: a stream that reads through another such stream finds none and
            // makes its own, instead of a fault.
            let mut scratch = SCRATCH.take();
            scratch.resize(MAX_CHUNK, 0);
            let mut buffer = ReadBuf::new(&mut scratch);
            let polled = Pin::new(&mut self.0).poll_read(context, &mut buffer);
            let filled = buffer.filled();
            let chunk = (!filled.is_empty()).then(|| Bytes::copy_from_slice(filled));
            SCRATCH.set(scratch);
            ready!(polled)?;
            Poll::Ready(Ok(chunk))
        })
        .await
    }
}

/// A [`Sink`] over anything that can be written to. It flushes after each batch: TLS and buffered streams need it.
#[derive(Debug)]
pub struct Writer<W>(pub W);

impl<W: AsyncWrite + Send + Unpin> Sink for Writer<W> {
    async fn send(&mut self, bytes: Bytes) -> Result<()> {
        self.0.write_all(&bytes).await?;
        self.0.flush().await
    }

    async fn send_batch(&mut self, batch: &mut Batch) -> Result<()> {
        self.0.write_all_buf(batch).await?;
        self.0.flush().await
    }

    async fn finish(&mut self) -> Result<()> {
        self.0.shutdown().await
    }
}
