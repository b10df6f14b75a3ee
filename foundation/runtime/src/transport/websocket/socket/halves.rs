//! The two halves of a stream over WebSocket, each of which moves the socket on when it is polled.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{Direction, Inner, Socket};
use crate::relay::Batch;
use crate::transport::Stopped;
use crate::transport::closed::StreamError;
use crate::transport::websocket::MAX_PAYLOAD;

/// Messages taken at once for a relay: about what one socket write takes.
const MESSAGES_AT_ONCE: usize = 4;

/// The half that is written.
#[derive(Debug)]
pub struct WriteHalf {
    socket: Socket,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The half that is read.
#[derive(Debug)]
pub struct ReadHalf {
    socket: Socket,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl ReadHalf {
    pub(super) fn of(socket: &Socket) -> Self {
        Self {
            socket: socket.clone(),
            over: Box::pin(socket.0.whole.token().clone().cancelled_owned()),
        }
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let mut inner = self.socket.lock();
        if inner.rest.has_remaining() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut inner.rest))));
        }
        if let Poll::Ready(read) = self.socket.poll_message(&mut inner, context) {
            return Poll::Ready(read.map_err(io::Error::from));
        }
        // Polled last: what came before the end of all is still given.
        ready!(self.over.as_mut().poll(context));
        let error = StreamError::Lost(self.socket.0.whole.reason());
        self.socket.fail(&mut inner, &error);
        Poll::Ready(Err(error.into()))
    }

    pub(in crate::transport) async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|context| self.poll_bytes(context)).await
    }

    pub(in crate::transport) async fn fill(&mut self, batch: &mut Batch) -> io::Result<bool> {
        poll_fn(|context| {
            let Some(first) = ready!(self.poll_bytes(context))? else {
                return Poll::Ready(Ok(false));
            };
            batch.push(first);
            for _ in 1..MESSAGES_AT_ONCE {
                match self.poll_bytes(context) {
                    Poll::Ready(Ok(Some(bytes))) => batch.push(bytes),
                    // An end or an error shows again at the next call.
                    _ => break,
                }
            }
            Poll::Ready(Ok(true))
        })
        .await
    }

    pub(in crate::transport) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(mut bytes) = ready!(self.poll_bytes(context))? else {
            return Poll::Ready(Ok(()));
        };
        buffer.put_slice(&bytes.split_to(bytes.len().min(buffer.remaining())));
        self.socket.lock().rest = bytes;
        Poll::Ready(Ok(()))
    }

    pub(in crate::transport) fn stop(&mut self, code: u32) {
        let mut inner = self.socket.lock();
        if inner.reader_gone.is_none() {
            inner.reader_gone = Some(code);
            inner.rest = Bytes::new();
            self.socket.settle(&mut inner);
        }
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        self.stop(0);
    }
}

impl WriteHalf {
    pub(super) fn of(socket: &Socket) -> Self {
        Self {
            socket: socket.clone(),
            over: Box::pin(socket.0.whole.token().clone().cancelled_owned()),
        }
    }

    /// The framing while the half may be written; the error otherwise.
    fn check(&mut self, inner: &mut Inner, context: &mut Context<'_>) -> io::Result<()> {
        if let Direction::Open = inner.write
            && self.over.as_mut().poll(context).is_ready()
        {
            let error = StreamError::Lost(self.socket.0.whole.reason());
            self.socket.fail(inner, &error);
        }
        match &inner.write {
            Direction::Open => Ok(()),
            Direction::Finished => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the stream was finished")),
            Direction::Broken(error) => Err(error.clone().into()),
        }
    }

    /// Ready when everything has left.
    fn poll_left(&self, inner: &mut Inner, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(framing) = &mut inner.framing else {
            return Poll::Ready(Ok(()));
        };
        match ready!(framing.poll_flush(context)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(text) => Poll::Ready(Err(self.socket.write_failed(inner, text).into())),
        }
    }

    /// Hands over one message, once there is room.
    fn poll_hand_over(&self, inner: &mut Inner, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        ready!(self.poll_left(inner, context))?;
        let Some(framing) = &mut inner.framing else {
            return Poll::Ready(Err(StreamError::Lost(self.socket.0.whole.reason()).into()));
        };
        let message = bytes.split_to(bytes.len().min(MAX_PAYLOAD));
        match framing.binary(message) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(text) => Poll::Ready(Err(self.socket.write_failed(inner, text).into())),
        }
    }

    pub(in crate::transport) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = self.socket.clone();
        let mut inner = socket.lock();
        self.check(&mut inner, context)?;
        if inner.leaving == 0 {
            let count = bytes.len().min(MAX_PAYLOAD);
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            let mut message = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
            ready!(self.poll_hand_over(&mut inner, context, &mut message))?;
            inner.leaving = count;
        }
        // Not done before they have left: nobody else would send them on their way.
        ready!(self.poll_left(&mut inner, context))?;
        let count = std::mem::take(&mut inner.leaving).min(bytes.len());
        Poll::Ready(Ok(count))
    }

    pub(in crate::transport) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.clone();
        let mut inner = socket.lock();
        self.poll_left(&mut inner, context)
    }

    pub(in crate::transport) async fn send(&mut self, mut bytes: Bytes) -> io::Result<()> {
        poll_fn(|context| {
            let socket = self.socket.clone();
            let mut inner = socket.lock();
            self.check(&mut inner, context)?;
            while bytes.has_remaining() {
                ready!(self.poll_hand_over(&mut inner, context, &mut bytes))?;
            }
            self.poll_left(&mut inner, context)
        })
        .await
    }

    pub(in crate::transport) fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.clone();
        let mut inner = socket.lock();
        match inner.write {
            Direction::Finished => {}
            Direction::Open => {
                ready!(self.poll_hand_over(&mut inner, context, &mut Bytes::new()))?;
                inner.write = Direction::Finished;
            }
            // A peer that stopped reading has what it wanted.
            Direction::Broken(_) => return Poll::Ready(Ok(())),
        }
        ready!(self.poll_left(&mut inner, context))?;
        self.socket.settle(&mut inner);
        self.socket.0.changed.notify_waiters();
        Poll::Ready(Ok(()))
    }

    pub(in crate::transport) fn reset(&mut self, code: u32) {
        let finished = matches!(self.socket.lock().write, Direction::Finished);
        if !finished {
            self.socket.abort(code);
        }
    }

    pub(in crate::transport) fn stopped(&self) -> impl Future<Output = Stopped> + Send + use<> {
        let socket = self.socket.clone();
        async move {
            loop {
                let changed = socket.0.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                match &socket.lock().write {
                    Direction::Finished => return Stopped::Delivered,
                    Direction::Broken(StreamError::Abandoned(code)) => return Stopped::ByPeer(*code),
                    Direction::Broken(StreamError::Lost(_)) => return Stopped::Lost,
                    Direction::Open => {}
                }
                tokio::select! {
                    () = changed => {}
                    () = socket.0.whole.token().cancelled() => return Stopped::Lost,
                }
            }
        }
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        // What does not leave now does not leave: a clean end is for those who wait for it.
        let _left = self.poll_finish(&mut context);
        let mut inner = self.socket.lock();
        inner.writer_gone = true;
        self.socket.settle(&mut inner);
    }
}
