//! Frames on a byte stream: four bytes of big-endian length, then the body. What is inside belongs to the wire room.
//!
//! A length is checked against the limit before anything is reserved, and memory grows with the bytes that came, not
//! with the bytes that were promised.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How much is reserved at a time while a body arrives, in bytes.
const STEP: usize = 4 * 1024;

/// Reads one frame of at most `max` bytes and returns its body; `None` when the stream ended before a frame began.
///
/// Not cancel safe: use a [`FrameReader`] inside a `select!`.
///
/// # Errors
/// `InvalidData` for a length above `max`, `UnexpectedEof` for a stream that ends inside a frame, and the stream's own.
pub async fn read_frame<R: AsyncRead + Unpin>(reader: &mut R, max: usize) -> io::Result<Option<Bytes>> {
    Partial::default().complete(reader, max).await
}

/// Writes `body` as one frame. Nothing is flushed: QUIC streams and sockets need none, buffered writers do.
///
/// Not cancel safe.
///
/// # Errors
/// `InvalidInput` for a body above `max` or above what four bytes can say (nothing is written then), and the stream's own.
pub async fn write_frame<W: AsyncWrite + Unpin>(writer: &mut W, body: &[u8], max: usize) -> io::Result<()> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= max)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a frame of {} bytes is above the limit of {max}", body.len()),
            )
        })?;
    let mut frame = BytesMut::with_capacity(body.len().saturating_add(4));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    writer.write_all(&frame).await
}

/// Reads frame after frame, and may be dropped out of a `select!` in the middle of one.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    max: usize,
    partial: Partial,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of at most `max` bytes from `reader`. Between frames no buffer is held.
    pub fn new(reader: R, max: usize) -> Self {
        Self {
            reader,
            max,
            partial: Partial::default(),
        }
    }

    /// Returns the next frame's body; `None` when the stream ended between two frames. Cancel safe.
    ///
    /// # Errors
    /// Those of [`read_frame`]. After an error the stream is out of step and must be closed.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.partial.complete(&mut self.reader, self.max).await
    }

    /// Gives the stream back. Bytes of an unfinished frame are lost.
    pub fn into_inner(self) -> R {
        self.reader
    }
}

/// A frame in the middle of its arrival; it outlives the future that reads it.
#[derive(Debug, Default)]
struct Partial {
    prefix: [u8; 4],
    prefix_filled: usize,
    body: BytesMut,
}

impl Partial {
    async fn complete<R: AsyncRead + Unpin>(&mut self, reader: &mut R, max: usize) -> io::Result<Option<Bytes>> {
        while let Some(rest) = self
            .prefix
            .get_mut(self.prefix_filled..)
            .filter(|rest| !rest.is_empty())
        {
            match reader.read(rest).await? {
                0 if self.prefix_filled == 0 => return Ok(None),
                0 => return Err(ended_inside()),
                count => self.prefix_filled = self.prefix_filled.saturating_add(count),
            }
        }
        let length = usize::try_from(u32::from_be_bytes(self.prefix)).unwrap_or(usize::MAX);
        if length > max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the peer announced a frame of {length} bytes, above the limit of {max}"),
            ));
        }
        loop {
            let missing = length.saturating_sub(self.body.len());
            if missing == 0 {
                break;
            }
            self.body.reserve(missing.min(STEP));
            let limit = u64::try_from(missing).unwrap_or(u64::MAX);
            if (&mut *reader).take(limit).read_buf(&mut self.body).await? == 0 {
                return Err(ended_inside());
            }
        }
        self.prefix_filled = 0;
        Ok(Some(std::mem::take(&mut self.body).freeze()))
    }
}

fn ended_inside() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended inside a frame")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::duplex;

    #[tokio::test]
    async fn frames_go_through_and_a_clean_end_is_none() {
        let (mut near, mut far) = duplex(64);
        let writes = async {
            write_frame(&mut near, b"", 10).await.unwrap();
            write_frame(&mut near, b"abc", 10).await.unwrap();
            write_frame(&mut near, &[7; 9_000], 9_000).await.unwrap();
            drop(near);
        };
        let reads = async {
            assert_eq!(read_frame(&mut far, 10).await.unwrap().unwrap(), "");
            assert_eq!(read_frame(&mut far, 10).await.unwrap().unwrap(), "abc");
            assert_eq!(read_frame(&mut far, 9_000).await.unwrap().unwrap(), vec![7; 9_000]);
            assert!(read_frame(&mut far, 10).await.unwrap().is_none());
        };
        tokio::join!(writes, reads);
    }

    #[tokio::test]
    async fn a_length_above_the_limit_is_refused_before_anything_is_reserved() {
        for length in [11_u32, 1 << 31, u32::MAX] {
            let (mut near, far) = duplex(64);
            near.write_all(&length.to_be_bytes()).await.unwrap();
            let mut reader = FrameReader::new(far, 10);
            let error = reader.next().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert_eq!(reader.partial.body.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn a_promised_length_reserves_no_more_than_a_step() {
        let (mut near, far) = duplex(64);
        near.write_all(&60_000_u32.to_be_bytes()).await.unwrap();
        near.write_all(b"x").await.unwrap();
        let mut reader = FrameReader::new(far, 64 * 1024);
        tokio::time::timeout(Duration::from_millis(20), reader.next())
            .await
            .unwrap_err();
        assert!(
            reader.partial.body.capacity() <= 2 * STEP,
            "{}",
            reader.partial.body.capacity()
        );
    }

    #[tokio::test]
    async fn every_truncation_is_an_unexpected_end() {
        let whole = [0, 0, 0, 3, 1, 2, 3];
        for cut in 1..whole.len() {
            let error = read_frame(&mut &whole[..cut], 10).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_is_dropped_in_the_middle_loses_nothing() {
        let (mut near, far) = duplex(64);
        let mut reader = FrameReader::new(far, 10);
        for byte in [0, 0, 0, 3, b'a', b'b'] {
            near.write_all(&[byte]).await.unwrap();
            tokio::time::timeout(Duration::from_millis(5), reader.next())
                .await
                .unwrap_err();
        }
        near.write_all(b"c").await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), "abc");
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_not_written() {
        let mut sink = Vec::new();
        let error = write_frame(&mut sink, &[0; 11], 10).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(sink.is_empty());
    }
}
