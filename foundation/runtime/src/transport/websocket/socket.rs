//! One WebSocket that carries one stream, shared by the stream's two halves.
//!
//! No task belongs to it: whoever polls a half moves it on, and between two polls nothing is held but the library's small
//! buffers. Bytes that nobody reads stay in the kernel, which holds back the peer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tokio::sync::Notify;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::framing::{Framing, Seen};
use super::order::Order;
use super::orders::Orders;
use super::state::Whole;
use super::{KeepAlive, MAX_PAYLOAD, Raw};
use crate::relay::Batch;
use crate::transport::closed::StreamError;
use crate::transport::{Closed, Stopped};

/// Both halves of a stream.
pub(in crate::transport) type Halves = (WriteHalf, ReadHalf);

/// Messages taken at once for a relay: about what one socket write takes.
const MESSAGES_AT_ONCE: usize = 4;
/// Messages looked through for a close frame after a write has failed.
const LOOK_THROUGH: usize = 256;

/// One WebSocket. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Socket(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    whole: Arc<Whole>,
    changed: Notify,
    place: Place,
}

/// What a socket is to its connection.
#[derive(Debug)]
enum Place {
    /// The first of a link, or the only one of the accepting side: its end is the end of all.
    First(Option<Arc<Orders>>),
    /// The first of a caller's conversation: the others live on.
    Asking,
    /// A further one, with its number; at the gateway with the way to tell the agent of a cut.
    Further(u64, Option<Weak<Shared>>),
}

#[derive(Debug)]
struct Inner {
    framing: Option<Framing>,
    /// What is left of a message that was read in part.
    rest: Bytes,
    read: Direction,
    write: Direction,
    /// The half is dropped, or reads no further, with this number.
    reader_gone: Option<u32>,
    writer_gone: bool,
    /// Bytes that a write has handed over and that have not left yet.
    leaving: usize,
}

#[derive(Clone, Debug)]
enum Direction {
    Open,
    Finished,
    Broken(StreamError),
}

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

impl Socket {
    pub(super) fn first(
        raw: Raw,
        whole: &Arc<Whole>,
        keep_alive: Option<KeepAlive>,
        orders: Option<Arc<Orders>>,
    ) -> Self {
        Self::new(raw, whole, keep_alive, Place::First(orders))
    }

    pub(super) fn asking(raw: Raw, whole: &Arc<Whole>) -> Self {
        Self::new(raw, whole, None, Place::Asking)
    }

    pub(super) fn further(raw: Raw, whole: &Arc<Whole>, number: u64, first: Option<&Self>) -> Self {
        let first = first.map(|first| Arc::downgrade(&first.0));
        Self::new(raw, whole, None, Place::Further(number, first))
    }

    fn new(raw: Raw, whole: &Arc<Whole>, keep_alive: Option<KeepAlive>, place: Place) -> Self {
        Self(Arc::new(Shared {
            inner: Mutex::new(Inner {
                framing: Some(Framing::new(raw, keep_alive)),
                rest: Bytes::new(),
                read: Direction::Open,
                write: Direction::Open,
                reader_gone: None,
                writer_gone: false,
                leaving: 0,
            }),
            whole: Arc::clone(whole),
            changed: Notify::new(),
            place,
        }))
    }

    pub(super) fn split(&self) -> Halves {
        let over = || Box::pin(self.0.whole.token().clone().cancelled_owned());
        let writer = WriteHalf {
            socket: self.clone(),
            over: over(),
        };
        let reader = ReadHalf {
            socket: self.clone(),
            over: over(),
        };
        (writer, reader)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn downgrade(&self) -> WeakSocket {
        WeakSocket(Arc::downgrade(&self.0))
    }

    /// Sends an order; one that cannot leave at once goes with whatever is sent next.
    pub(super) fn order(&self, order: Order) {
        if let Some(framing) = &mut self.lock().framing {
            framing.text(&order.to_string());
        }
    }

    /// Tells the peer that the whole connection ends.
    pub(super) fn close(&self, code: u32, text: &str) {
        let mut inner = self.lock();
        if let Some(mut framing) = inner.framing.take() {
            framing.close_all(code, text);
        }
        inner.break_off(&StreamError::Lost(self.0.whole.reason()));
        drop(inner);
        self.0.changed.notify_waiters();
    }

    /// Breaks off a stream whose close frame may be stuck behind bytes that nobody reads.
    pub(super) fn cut(&self, code: u32) {
        let mut inner = self.lock();
        inner.break_off(&StreamError::Abandoned(u64::from(code)));
        inner.framing = None;
        drop(inner);
        self.0.changed.notify_waiters();
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.lock().framing.as_ref().and_then(Framing::rtt)
    }

    pub(super) fn export(&self, output: &mut [u8], label: &[u8]) -> bool {
        let inner = self.lock();
        inner
            .framing
            .as_ref()
            .is_some_and(|framing| framing.export(output, label))
    }

    /// Whether it stands and the peer has sent nothing yet.
    pub(super) fn is_fresh(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let mut inner = self.lock();
        self.poll_message(&mut inner, &mut context).is_pending()
    }

    /// Ready when the peer's first bytes have come, which are kept: true; or when the socket has ended.
    pub(super) fn poll_first_bytes(&self, context: &mut Context<'_>) -> Poll<bool> {
        let mut inner = self.lock();
        if inner.rest.has_remaining() {
            return Poll::Ready(true);
        }
        match ready!(self.poll_message(&mut inner, context)) {
            Ok(Some(bytes)) => {
                inner.rest = bytes;
                Poll::Ready(true)
            }
            Ok(None) | Err(_) => Poll::Ready(false),
        }
    }

    /// Reads on where no half does, so that the end is seen; what still comes is dropped.
    pub(super) fn poll_for_end(&self, context: &mut Context<'_>) -> Poll<Closed> {
        let mut inner = self.lock();
        if inner.reader_gone.is_none() && matches!(self.0.place, Place::First(_)) {
            return Poll::Pending;
        }
        loop {
            if let Direction::Finished = inner.read {
                // The direction has ended; a close frame may still come.
                match inner.framing.as_mut().map(|framing| framing.poll_next(context)) {
                    Some(Poll::Pending) => return Poll::Pending,
                    Some(Poll::Ready(Seen::Data(_) | Seen::Text(_))) => continue,
                    Some(Poll::Ready(seen)) => return Poll::Ready(self.end_of(&mut inner, seen)),
                    None => return Poll::Ready(self.0.whole.reason()),
                }
            }
            match ready!(self.poll_message(&mut inner, context)) {
                Ok(_) => {}
                Err(StreamError::Lost(closed)) => return Poll::Ready(closed),
                Err(error @ StreamError::Abandoned(_)) => return Poll::Ready(Closed::Lost(error.to_string())),
            }
        }
    }

    fn end_of(&self, inner: &mut Inner, seen: Seen) -> Closed {
        match self.take_end(inner, seen) {
            StreamError::Lost(closed) => closed,
            error @ StreamError::Abandoned(_) => Closed::Lost(error.to_string()),
        }
    }

    /// The next bytes; `None` at the clean end.
    fn poll_message(&self, inner: &mut Inner, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        loop {
            match &inner.read {
                Direction::Open => {}
                Direction::Finished => return Poll::Ready(Ok(None)),
                Direction::Broken(error) => return Poll::Ready(Err(error.clone())),
            }
            let Some(framing) = &mut inner.framing else {
                return Poll::Ready(Err(StreamError::Lost(self.0.whole.reason())));
            };
            match ready!(framing.poll_next(context)) {
                Seen::Data(bytes) if bytes.is_empty() => {
                    inner.read = Direction::Finished;
                    self.settle(inner);
                    return Poll::Ready(Ok(None));
                }
                Seen::Data(bytes) => return Poll::Ready(Ok(Some(bytes))),
                Seen::Text(text) => match &self.0.place {
                    Place::First(Some(orders)) => orders.take(&text),
                    _ => {
                        framing.breach();
                        let error = StreamError::Lost(Closed::Lost("the peer sent an order where none belongs".into()));
                        self.fail(inner, &error);
                        return Poll::Ready(Err(error));
                    }
                },
                seen => return Poll::Ready(Err(self.take_end(inner, seen))),
            }
        }
    }

    /// The socket has ended, as `seen` says.
    fn take_end(&self, inner: &mut Inner, seen: Seen) -> StreamError {
        let error = match seen {
            Seen::Abandoned(code) => StreamError::Abandoned(u64::from(code)),
            Seen::Closed(code, text) => StreamError::Lost(Closed::ByPeer {
                code: u64::from(code),
                text,
            }),
            Seen::Lost(text) => StreamError::Lost(Closed::Lost(text)),
            Seen::Data(_) | Seen::Text(_) => StreamError::Lost(Closed::Lost("out of step".into())),
        };
        self.fail(inner, &error);
        error
    }

    /// Ends both directions, and where this socket stands for the whole connection, that.
    fn fail(&self, inner: &mut Inner, error: &StreamError) {
        inner.break_off(error);
        inner.framing = None;
        match (&self.0.place, error) {
            (Place::First(_), StreamError::Lost(closed)) => self.0.whole.end(closed.clone()),
            (Place::First(_), StreamError::Abandoned(code)) => {
                self.0
                    .whole
                    .end(Closed::Lost(format!("the control stream was broken off (code {code})")));
            }
            (_, StreamError::Lost(closed @ Closed::ByPeer { .. })) => self.0.whole.note(closed.clone()),
            _ => {}
        }
        self.0.changed.notify_waiters();
    }

    /// Gives the connection back once neither half needs it.
    fn settle(&self, inner: &mut Inner) {
        if matches!(self.0.place, Place::First(_) | Place::Asking) {
            // It stands as long as its connection.
            return;
        }
        let written = inner.writer_gone || !matches!(inner.write, Direction::Open);
        let read_clean = matches!(inner.read, Direction::Finished);
        match inner.reader_gone {
            _ if !written => {}
            _ if read_clean => inner.framing = None,
            Some(code) => {
                if let Some(mut framing) = inner.framing.take() {
                    framing.abandon(code);
                }
            }
            None => {}
        }
    }

    /// Breaks it off from this side.
    fn abort(&self, code: u32) {
        let mut inner = self.lock();
        let ended = matches!(inner.write, Direction::Finished) && matches!(inner.read, Direction::Finished);
        if !ended && let Some(framing) = &mut inner.framing {
            framing.abandon(code);
        }
        if !matches!(inner.write, Direction::Finished) {
            inner.write = Direction::Broken(StreamError::Lost(Closed::Lost("broken off".into())));
        }
        if matches!(inner.read, Direction::Open) {
            inner.read = Direction::Broken(StreamError::Lost(Closed::Lost("broken off".into())));
        }
        inner.framing = None;
        drop(inner);
        if !ended
            && let Place::Further(stream, Some(first)) = &self.0.place
            && let Some(first) = first.upgrade()
        {
            Socket(first).order(Order::Cut { stream: *stream, code });
        }
        self.0.changed.notify_waiters();
    }

    /// A write failed: the peer's close frame may be among what it sent before.
    fn write_failed(&self, inner: &mut Inner, text: String) -> StreamError {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..LOOK_THROUGH {
            let Some(framing) = &mut inner.framing else { break };
            match framing.poll_next(&mut context) {
                Poll::Ready(Seen::Data(_) | Seen::Text(_)) => {}
                Poll::Ready(Seen::Lost(_)) | Poll::Pending => break,
                Poll::Ready(seen) => return self.take_end(inner, seen),
            }
        }
        let error = StreamError::Lost(Closed::Lost(text));
        self.fail(inner, &error);
        error
    }
}

/// A socket by which nobody is kept.
#[derive(Clone, Debug)]
pub(super) struct WeakSocket(Weak<Shared>);

impl WeakSocket {
    pub(super) fn upgrade(&self) -> Option<Socket> {
        self.0.upgrade().map(Socket)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl Inner {
    /// What has ended cleanly stays so.
    fn break_off(&mut self, error: &StreamError) {
        for direction in [&mut self.read, &mut self.write] {
            if matches!(direction, Direction::Open) {
                *direction = Direction::Broken(error.clone());
            }
        }
    }
}

impl ReadHalf {
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
