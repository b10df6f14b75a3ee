//! One WebSocket that carries one stream, shared by the stream's two halves.
//!
//! No task belongs to it: whoever polls a half moves it on, and between two polls nothing is held but the library's small
//! buffers. Bytes that nobody reads stay in the kernel, which holds back the peer.

mod halves;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::Notify;

use super::framing::{Framing, Seen};
use super::order::Order;
use super::orders::Orders;
use super::state::Whole;
use super::{KeepAlive, Raw};
use crate::transport::Closed;
use crate::transport::closed::StreamError;

pub use halves::{ReadHalf, WriteHalf};

/// Both halves of a stream.
pub(in crate::transport) type Halves = (WriteHalf, ReadHalf);

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
        (WriteHalf::of(self), ReadHalf::of(self))
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
