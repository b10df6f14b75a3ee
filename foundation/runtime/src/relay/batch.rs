//! The bytes on their way from one source to one sink, and how much to ask for next.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::MAX_CHUNK;

/// What a quiet source is asked for, in bytes.
const MIN_CHUNK: usize = 4 * 1024;
/// Chunks whose list is kept while nothing moves; a longer one is given back.
const KEPT: usize = 4;

/// Chunks in order, with the number of bytes a source should ask for at once: it follows what came before, from
/// 4 KiB when quiet to 64 KiB when busy.
#[derive(Debug)]
pub struct Batch {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    room: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// Makes an empty batch, which holds no memory.
    pub fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            bytes: 0,
            room: MIN_CHUNK,
        }
    }

    /// Adds a chunk; an empty one is dropped.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes = self.bytes.saturating_add(chunk.len());
            self.chunks.push_back(chunk);
        }
    }

    /// Takes the oldest chunk.
    pub fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front()?;
        self.bytes = self.bytes.saturating_sub(chunk.len());
        Some(chunk)
    }

    /// The waiting chunks, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.chunks.iter()
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// How many bytes a source should ask for at once, from 4 KiB to [`MAX_CHUNK`].
    pub fn room(&self) -> usize {
        self.room
    }

    /// The waiting chunks as one slice, for sinks that write them together.
    pub(super) fn chunks_mut(&mut self) -> &mut [Bytes] {
        self.chunks.make_contiguous()
    }

    /// Forgets what [`chunks_mut`](Self::chunks_mut) let somebody take.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.bytes = 0;
    }

    /// Learns from a delivered batch of `bytes`, and holds next to nothing until the next one.
    pub(super) fn settle(&mut self, bytes: usize) {
        if bytes >= self.room {
            self.room = self.room.saturating_mul(4).min(MAX_CHUNK);
        } else if bytes < self.room / 4 {
            self.room = (self.room / 2).max(MIN_CHUNK);
        }
        if self.chunks.capacity() > KEPT {
            self.chunks = VecDeque::new();
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0_usize;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            filled = filled.saturating_add(1);
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        let mut left = count;
        self.bytes = self.bytes.saturating_sub(count);
        while let Some(first) = self.chunks.front_mut() {
            if left < first.len() {
                first.advance(left);
                return;
            }
            left = left.saturating_sub(first.len());
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_what_it_was_given_over_any_cut() {
        for cut in 0..=9 {
            let mut batch = Batch::new();
            for part in ["abc", "", "d", "efghi"] {
                batch.push(Bytes::from_static(part.as_bytes()));
            }
            assert_eq!(batch.len(), 9);
            batch.advance(cut);
            let mut rest = Vec::new();
            while let Some(chunk) = batch.pop() {
                rest.extend_from_slice(&chunk);
            }
            assert_eq!(rest, &b"abcdefghi"[cut..]);
            assert!(batch.is_empty());
        }
    }

    #[test]
    fn slices_cover_the_chunks_in_order() {
        let mut batch = Batch::new();
        batch.push(Bytes::from_static(b"ab"));
        batch.push(Bytes::from_static(b"c"));
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(batch.chunks_vectored(&mut slices), 2);
        assert_eq!((&*slices[0], &*slices[1]), (&b"ab"[..], &b"c"[..]));
    }

    #[test]
    fn the_room_grows_with_full_reads_and_shrinks_with_small_ones() {
        let mut batch = Batch::new();
        for _ in 0..5 {
            batch.settle(batch.room());
        }
        assert_eq!(batch.room(), MAX_CHUNK);
        batch.settle(MAX_CHUNK / 2);
        assert_eq!(batch.room(), MAX_CHUNK);
        for _ in 0..9 {
            batch.settle(1);
        }
        assert_eq!(batch.room(), MIN_CHUNK);
    }

    #[test]
    fn a_settled_batch_keeps_no_long_list() {
        let mut batch = Batch::new();
        for _ in 0..100 {
            batch.push(Bytes::from_static(b"x"));
        }
        batch.clear();
        batch.settle(100);
        assert!(batch.chunks.capacity() <= KEPT);
    }
}
