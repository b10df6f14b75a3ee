//! QUIC streams as an end of a relay: chunks are passed on as they arrived, without a copy.

use std::array::from_fn;
use std::future::poll_fn;
use std::io::Result;
use std::pin::pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use quinn::{RecvStream, SendStream, VarInt};

use super::{Batch, MAX_CHUNK, Sink, Source};

/// Chunks taken at once: each is one packet's payload, and one socket write takes as many.
const MAX_CHUNKS: usize = 64;

impl Source for RecvStream {
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        Ok(self.read_chunk(MAX_CHUNK, true).await?.map(|chunk| chunk.bytes))
    }

    async fn fill(&mut self, batch: &mut Batch) -> Result<bool> {
        // The array lives inside one poll and not in the future, which would carry it through every idle hour.
        poll_fn(|context| {
            let mut chunks: [Bytes; MAX_CHUNKS] = from_fn(|_| Bytes::new());
            let read = ready!(pin!(self.read_chunks(&mut chunks)).poll(context))?;
            for chunk in chunks.into_iter().take(read.unwrap_or_default()) {
                batch.push(chunk);
            }
            Poll::Ready(Ok(read.is_some()))
        })
        .await
    }
}

impl Sink for SendStream {
    async fn send(&mut self, bytes: Bytes) -> Result<()> {
        Ok(self.write_chunk(bytes).await?)
    }

    async fn send_batch(&mut self, batch: &mut Batch) -> Result<()> {
        let sent = self.write_all_chunks(batch.chunks_mut()).await;
        batch.clear();
        Ok(sent?)
    }

    async fn finish(&mut self) -> Result<()> {
        // Finishing twice is no failure; a peer that stopped reading has what it wanted.
        drop(SendStream::finish(self));
        Ok(())
    }

    fn abort(mut self, code: u32) {
        // A stream that is closed already needs no reset.
        drop(self.reset(VarInt::from_u32(code)));
    }
}
