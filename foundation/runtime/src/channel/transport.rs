//! The stream under the protocol: reads slowed down while a channel is behind, a way to cut it for good, and an end that
//! does not depend on the client: russh, once it has said goodbye, would wait for ever for the client to close.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::intake::Flow;

/// Gathers small reads: russh asks for a packet's length and body apart.
const READ_AHEAD: usize = 64 * 1024;
/// How long a client may take to close after we did; what it still sends is read and dropped, because closing at once would
/// make its system throw away the goodbye.
const LINGER: Duration = Duration::from_secs(1);

/// A byte stream that russh reads and writes.
pub struct Transport<S> {
    inner: BufReader<S>,
    flow: Arc<Flow>,
    /// Set while a read waits because some channel is behind.
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Set once our side is closed: when it is over, the client's side counts as closed too.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead> Transport<S> {
    /// Wraps `stream`; it is cut when `cut` is cancelled.
    pub fn new(stream: S, flow: Arc<Flow>, cut: CancellationToken) -> Self {
        Self {
            inner: BufReader::with_capacity(READ_AHEAD, stream),
            flow,
            pause: None,
            cut: Box::pin(cut.cancelled_owned()),
            linger: None,
        }
    }
}

impl<S: AsyncRead + Unpin> Transport<S> {
    /// Both directions ask here first. One task reads and writes, so the latest waker is the right one.
    fn check_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut off")),
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when the client may be read from: at once, or after a pause while some channel is behind.
    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.pause.is_none() && self.flow.is_behind() {
            let flow = Arc::clone(&self.flow);
            self.pause = Some(Box::pin(async move {
                // Either way the read goes on; the limit keeps refills and signals of other channels flowing.
                let _elapsed = tokio::time::timeout(flow.pace(), flow.caught_up()).await;
            }));
        }
        if let Some(pause) = self.pause.as_mut() {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        if let Some(linger) = self.linger.as_mut()
            && linger.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        if self.inner.buffer().is_empty() {
            ready!(self.poll_pause(context));
        }
        let available = ready!(Pin::new(&mut self.inner).poll_fill_buf(context))?;
        let piece = available
            .get(..available.len().min(buffer.remaining()))
            .unwrap_or_default();
        buffer.put_slice(piece);
        let taken = piece.len();
        Pin::new(&mut self.inner).consume(taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.check_cut(context)?;
        Pin::new(self.inner.get_mut()).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        Pin::new(self.inner.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        if self.linger.is_none() {
            self.linger = Some(Box::pin(sleep(LINGER)));
        }
        Pin::new(self.inner.get_mut()).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::super::intake::Intake;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_cut_wakes_a_waiting_read_and_fails_every_write() {
        let (_peer, stream) = tokio::io::duplex(64);
        let cut = CancellationToken::new();
        let mut transport = Transport::new(stream, Arc::new(Flow::default()), cut.clone());
        let read = async { transport.read_u8().await };
        let (result, ()) = tokio::join!(read, async { cut.cancel() });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(transport.write_all(b"x").await.is_err());
    }

    #[tokio::test]
    async fn a_read_goes_on_as_soon_as_the_channel_has_caught_up() {
        let (mut peer, stream) = tokio::io::duplex(64);
        let flow = Arc::new(Flow::default());
        let intake = Intake::new(Arc::clone(&flow));
        intake.put(&vec![0; 512 * 1024]).unwrap();
        let mut transport = Transport::new(stream, flow, CancellationToken::new());
        peer.write_all(b"x").await.unwrap();
        let (byte, ()) = tokio::join!(transport.read_u8(), async { intake.refuse() });
        assert_eq!(byte.unwrap(), b'x');
    }
}
