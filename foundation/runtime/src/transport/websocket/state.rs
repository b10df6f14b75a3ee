//! A connection over WebSocket: its first socket, how further streams come to be, and its end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::dialled::Dialled;
use super::link::LinkClient;
use super::pool::Pool;
use super::socket::{Halves, Socket};
use super::{Dial, KeepAlive, Raw};
use crate::transport::Closed;

/// A connection that one or several WebSockets make up. Clones are the same connection.
#[derive(Clone, Debug)]
pub struct WebSocket(Arc<Core>);

#[derive(Debug)]
struct Core {
    whole: Arc<Whole>,
    first: Socket,
    remote: SocketAddr,
    streams: Streams,
}

#[derive(Debug)]
enum Streams {
    /// The accepting side of an enrolment or a caller's conversation: the one stream of this socket.
    One(Given),
    /// The gateway's side of a link.
    Pool(Pool),
    /// The dialling side of an enrolment or a caller's conversation.
    Dialled(Dialled),
    /// The agent's side of a link.
    Link(LinkClient),
}

/// Halves that are given away once.
#[derive(Debug)]
pub(super) struct Given(Mutex<Option<Halves>>);

impl Given {
    pub(super) fn new(socket: &Socket) -> Self {
        Self(Mutex::new(Some(socket.split())))
    }

    pub(super) fn take(&self) -> Option<Halves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The end of a connection, as all its sockets see it.
#[derive(Debug, Default)]
pub(super) struct Whole {
    ended: CancellationToken,
    reason: OnceLock<Closed>,
}

impl Whole {
    /// Ends everything; the first reason stands.
    pub(super) fn end(&self, reason: Closed) {
        self.note(reason);
        self.ended.cancel();
    }

    /// Remembers what the peer said last, without an end.
    pub(super) fn note(&self, reason: Closed) {
        // The first word stands.
        drop(self.reason.set(reason));
    }

    pub(super) fn noted(&self) -> Option<Closed> {
        self.reason.get().cloned()
    }

    /// Why it has ended, once it has.
    pub(super) fn over(&self) -> Option<Closed> {
        self.ended.is_cancelled().then(|| self.reason())
    }

    pub(super) fn reason(&self) -> Closed {
        self.noted().unwrap_or_else(|| Closed::Lost("closed".into()))
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.ended
    }
}

impl WebSocket {
    /// The accepting side of a connection with one stream.
    pub fn one(raw: Raw, remote: SocketAddr) -> Self {
        let whole = Arc::new(Whole::default());
        let first = Socket::first(raw, &whole, None, None);
        let streams = Streams::One(Given::new(&first));
        Self::of(whole, first, remote, streams)
    }

    /// The accepting side of a link; the first stream is its control stream, and [`park`](Self::park) gives it more.
    pub fn serving(raw: Raw, remote: SocketAddr, keep_alive: KeepAlive) -> Self {
        let whole = Arc::new(Whole::default());
        let first = Socket::first(raw, &whole, Some(keep_alive), None);
        let streams = Streams::Pool(Pool::new(&first));
        Self::of(whole, first, remote, streams)
    }

    /// The dialling side of a conversation: each stream is a connection of its own, the first one that of `raw`.
    pub fn asking(raw: Raw, dial: Arc<dyn Dial>) -> Self {
        let whole = Arc::new(Whole::default());
        let first = Socket::asking(raw, &whole);
        let remote = dial.remote_address();
        let streams = Streams::Dialled(Dialled::new(&first, dial));
        Self::of(whole, first, remote, streams)
    }

    /// The dialling side of a link.
    pub fn linked(raw: Raw, dial: Arc<dyn Dial>, keep_alive: KeepAlive) -> Self {
        let whole = Arc::new(Whole::default());
        let orders = Arc::default();
        let first = Socket::first(raw, &whole, Some(keep_alive), Some(Arc::clone(&orders)));
        let remote = dial.remote_address();
        let streams = Streams::Link(LinkClient::new(&first, dial, orders));
        Self::of(whole, first, remote, streams)
    }

    fn of(whole: Arc<Whole>, first: Socket, remote: SocketAddr, streams: Streams) -> Self {
        Self(Arc::new(Core {
            whole,
            first,
            remote,
            streams,
        }))
    }

    /// Gives the accepting side of a link a further connection of its peer, for a session to come. `number` is the peer's
    /// number for it. One too many, or for a link that has ended, is closed.
    pub fn park(&self, raw: Raw, number: u64) {
        if let Streams::Pool(pool) = &self.0.streams
            && self.0.whole.over().is_none()
        {
            pool.park(Socket::further(raw, &self.0.whole, number, Some(&self.0.first)));
        }
    }

    pub(in crate::transport) async fn open(&self) -> Result<Halves, Closed> {
        let core = &*self.0;
        match &core.streams {
            Streams::Pool(pool) => pool.open(&core.whole, &core.first).await,
            Streams::Dialled(dialled) => dialled.open(&core.whole).await,
            // The agent opens its control stream and no other.
            Streams::Link(link) => link
                .control()
                .ok_or_else(|| Closed::Lost("streams are opened by the other side".into())),
            Streams::One(_) => Err(Closed::Lost("streams are opened by the other side".into())),
        }
    }

    pub(in crate::transport) async fn accept(&self) -> Result<Halves, Closed> {
        let core = &*self.0;
        let given = match &core.streams {
            Streams::One(given) => given.take(),
            Streams::Pool(pool) => pool.control(),
            Streams::Dialled(_) => None,
            Streams::Link(link) => return link.accept(&core.whole).await,
        };
        match given {
            Some(halves) => Ok(halves),
            None => Err(self.closed().await),
        }
    }

    pub(in crate::transport) fn permit_streams(&self, count: u32) {
        if let Streams::Link(link) = &self.0.streams {
            link.permit(count);
        }
    }

    pub(in crate::transport) fn close(&self, code: u32, text: &str) {
        let core = &*self.0;
        core.whole.note(Closed::Lost("closed".into()));
        core.first.close(code, text);
        core.whole.end(Closed::Lost("closed".into()));
    }

    /// Resolves when it has ended. Reads the first socket itself where nobody else does.
    pub(in crate::transport) async fn closed(&self) -> Closed {
        let core = &*self.0;
        let read = std::future::poll_fn(|context| match core.whole.noted() {
            Some(noted) => Poll::Ready(noted),
            None => core.first.poll_for_end(context),
        });
        tokio::select! {
            () = core.whole.token().cancelled() => core.whole.reason(),
            noted = read => noted,
        }
    }

    pub(in crate::transport) fn close_reason(&self) -> Option<Closed> {
        self.0.whole.noted()
    }

    pub(in crate::transport) fn remote_address(&self) -> SocketAddr {
        self.0.remote
    }

    pub(in crate::transport) fn rtt(&self) -> Option<Duration> {
        self.0.first.rtt()
    }

    pub(in crate::transport) fn export(&self, output: &mut [u8], label: &[u8]) -> bool {
        self.0.first.export(output, label)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.whole.over().is_none() {
            self.first.close(0, "");
            self.whole.end(Closed::Lost("closed".into()));
        }
    }
}
