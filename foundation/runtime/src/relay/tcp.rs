//! TCP as an end of a relay: waits without a buffer, reads into one as large as the traffic asks for, writes many
//! chunks with one call.

use std::future::poll_fn;
use std::io::Result;
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{Batch, Sink, Source};

/// Read size where nobody says better, in bytes.
const CHUNK: usize = 16 * 1024;
/// Silence after which the kernel asks whether the other end lives, and how often it asks again.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 4;

/// Makes a connection fit for a relay: small writes go out at once, and a peer that vanished is noticed within two
/// minutes.
///
/// # Errors
/// The operating system's; the connection is useless then.
pub fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

impl Source for OwnedReadHalf {
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        read(self, CHUNK).await
    }

    async fn fill(&mut self, batch: &mut Batch) -> Result<bool> {
        let Some(bytes) = read(self, batch.room()).await? else {
            return Ok(false);
        };
        batch.push(bytes);
        Ok(true)
    }
}

impl Sink for OwnedWriteHalf {
    async fn send(&mut self, bytes: Bytes) -> Result<()> {
        self.write_all(&bytes).await
    }

    async fn send_batch(&mut self, batch: &mut Batch) -> Result<()> {
        self.write_all_buf(batch).await
    }

    async fn finish(&mut self) -> Result<()> {
        self.shutdown().await
    }

    fn abort(self, _code: u32) {
        // Closing then sends a reset. A failure means that the connection is gone already.
        drop(self.as_ref().set_zero_linger());
        // A plain drop would say first that all is well: it shuts the direction down.
        self.forget();
    }
}

async fn read(half: &mut OwnedReadHalf, room: usize) -> Result<Option<Bytes>> {
    poll_fn(|context| {
        // First wait, then allocate: an idle session holds no buffer.
        ready!(half.as_ref().poll_read_ready(context))?;
        let mut buffer = BytesMut::with_capacity(room);
        // Pending here (a wrong alarm, or the task's turn is over) drops the buffer and has asked to be woken.
        let count = ready!(pin!(half.read_buf(&mut buffer)).poll(context))?;
        Poll::Ready(Ok((count > 0).then(|| keep(buffer))))
    })
    .await
}

/// A chunk that fills less than a quarter of its buffer is copied, so that bytes waiting in a sink do not hold four
/// times their size.
fn keep(buffer: BytesMut) -> Bytes {
    if buffer.len() < buffer.capacity() / 4 {
        Bytes::copy_from_slice(&buffer)
    } else {
        buffer.freeze()
    }
}
