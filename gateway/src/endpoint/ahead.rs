//! Reading the first message of a client, and giving the rest on.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use fairlead_runtime::relay::{Batch, Source};

/// A source of which more was read than was wanted; the rest comes first.
pub(super) struct Ahead<S> {
    inner: S,
    held: BytesMut,
}

impl<S: Source> Ahead<S> {
    /// A source after `held`, which was read from it already.
    pub(super) fn new(inner: S, held: Bytes) -> Self {
        let held = held.into();
        Self { inner, held }
    }

    /// Reads one message and not a byte more, by a reader that gives it with its length, or `None` where bytes are missing. What is
    /// held is bounded by the longest message that `read` waits for and one chunk.
    pub(super) async fn message<T, E>(
        &mut self,
        read: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E> + Send,
    ) -> io::Result<Result<T, E>> {
        loop {
            match read(&self.held) {
                Ok(Some((message, length))) => {
                    self.held.advance(length.min(self.held.len()));
                    return Ok(Ok(message));
                }
                Err(error) => return Ok(Err(error)),
                Ok(None) => {}
            }
            let chunk = self.inner.chunk().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.held.extend_from_slice(&chunk);
        }
    }

    /// Puts bytes before everything that is still to come.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        let rest = std::mem::replace(&mut self.held, bytes.into());
        self.held.extend_from_slice(&rest);
    }
}

impl<S: Source> Source for Ahead<S> {
    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        if self.held.is_empty() {
            return self.inner.chunk().await;
        }
        Ok(Some(std::mem::take(&mut self.held).freeze()))
    }

    async fn fill(&mut self, batch: &mut Batch) -> io::Result<bool> {
        if self.held.is_empty() {
            return self.inner.fill(batch).await;
        }
        batch.push(std::mem::take(&mut self.held).freeze());
        Ok(true)
    }
}
