//! Carries bytes both ways between two ends until both have said that they are done, one fails, nothing moves for too
//! long, or the permission lapses.
//!
//! No buffer is held while nothing moves: an idle session costs its future and no more. What the bytes mean is not
//! known here, so nothing is inspected; a face that must say last words keeps its ends and uses [`relay_between`].

mod batch;
mod between;
mod io;
mod quic;
mod tcp;

use std::future::Future;
use std::io::{Error, Result};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub use batch::Batch;
pub use between::{Between, Bounds, FromCaller, Said, ToCaller, Wake, Woken, between};
pub use io::{Reader, Writer, split};
pub use tcp::prepare;

/// Bytes asked for at once from a busy source, at most.
pub const MAX_CHUNK: usize = 64 * 1024;
/// How long the other direction may go on after a write failed: an end that closed may have sent its answer before.
const AFTERMATH: Duration = Duration::from_secs(5);
/// The code an abandoned QUIC stream carries when nobody gave a better one.
const NO_REASON: u32 = 0;

/// One end as something to read from.
pub trait Source: Send {
    /// Waits for bytes; `None` is the clean end. Must be cancel safe: when it did not complete, no byte was taken.
    ///
    /// # Errors
    /// The stream's own; the relay ends with [`Ended::Failed`].
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send;

    /// Waits for bytes and puts into `batch` (which is empty) what can be had without waiting again. Returns false at
    /// the clean end. Cancel safe. Sources that can give several chunks at once override it.
    ///
    /// # Errors
    /// The stream's own.
    fn fill(&mut self, batch: &mut Batch) -> impl Future<Output = Result<bool>> + Send {
        async {
            match self.chunk().await? {
                Some(bytes) => batch.push(bytes),
                None => return Ok(false),
            }
            Ok(true)
        }
    }
}

/// One end as something to write to.
pub trait Sink: Send {
    /// Writes all of `bytes`, waiting while the other side is slow. Not cancel safe.
    ///
    /// # Errors
    /// The stream's own.
    fn send(&mut self, bytes: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Writes all of `batch` and leaves it empty. Not cancel safe. Sinks that can write several chunks at once
    /// override it.
    ///
    /// # Errors
    /// The stream's own.
    fn send_batch(&mut self, batch: &mut Batch) -> impl Future<Output = Result<()>> + Send {
        async {
            while let Some(bytes) = batch.pop() {
                self.send(bytes).await?;
            }
            Ok(())
        }
    }

    /// Says that no more bytes follow; the other direction stays open.
    ///
    /// # Errors
    /// The stream's own.
    fn finish(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Breaks the stream off so that the other end cannot take it for a clean end: a TCP reset (once the reading half
    /// is dropped too), a QUIC stream reset with `code`. Where the transport has no such thing, and for a borrowed sink,
    /// this is a drop.
    fn abort(self, code: u32)
    where
        Self: Sized,
    {
        let _unused = code;
    }
}

impl<S: Source> Source for &mut S {
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        (**self).chunk().await
    }

    async fn fill(&mut self, batch: &mut Batch) -> Result<bool> {
        (**self).fill(batch).await
    }
}

impl<S: Sink> Sink for &mut S {
    async fn send(&mut self, bytes: Bytes) -> Result<()> {
        (**self).send(bytes).await
    }

    async fn send_batch(&mut self, batch: &mut Batch) -> Result<()> {
        (**self).send_batch(batch).await
    }

    async fn finish(&mut self) -> Result<()> {
        (**self).finish().await
    }
}

/// Bytes carried, by direction. Bytes count when the receiving side's transport took them.
#[derive(Debug, Default)]
pub struct Counters {
    /// From the caller to the upstream.
    pub to_upstream: AtomicU64,
    /// From the upstream to the caller.
    pub to_caller: AtomicU64,
}

impl Counters {
    /// Starts at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes carried from the caller to the upstream.
    pub fn to_upstream(&self) -> u64 {
        self.to_upstream.load(Ordering::Relaxed)
    }

    /// Bytes carried from the upstream to the caller.
    pub fn to_caller(&self) -> u64 {
        self.to_caller.load(Ordering::Relaxed)
    }
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that asked for the session.
    Caller,
    /// The end that serves it.
    Upstream,
}

/// How a relay ended.
#[derive(Debug)]
pub enum Ended {
    /// Both ends said that they are done, and everything they sent was delivered.
    Finished,
    /// Nothing moved for the idle limit.
    Idle,
    /// The permission lapsed; who holds it knows why.
    Lapsed,
    /// Reading from or writing to this end failed.
    Failed(Side, Error),
}

/// Carries bytes until an end, and owns both ends: unless both finished they are broken off, so that neither takes a
/// cut for a clean end. The same happens when the returned future is dropped.
///
/// `idle` is the longest time without a byte in either direction (none: no limit). When `lapse` completes, no further
/// byte is carried in either direction. Memory per direction is one batch (64 KiB read from a socket; what one poll
/// finds on a QUIC stream), and a side that does not read holds back the side that sends.
pub async fn relay<CallerSource, CallerSink, UpstreamSource, UpstreamSink>(
    caller: (CallerSource, CallerSink),
    upstream: (UpstreamSource, UpstreamSink),
    idle: Option<Duration>,
    counters: &Counters,
    lapse: impl Future,
) -> Ended
where
    CallerSource: Source,
    CallerSink: Sink,
    UpstreamSource: Source,
    UpstreamSink: Sink,
{
    let (mut from_caller, to_caller) = caller;
    let (mut from_upstream, to_upstream) = upstream;
    let mut to_caller = Guarded(Some(to_caller));
    let mut to_upstream = Guarded(Some(to_upstream));
    let (Some(caller_sink), Some(upstream_sink)) = (&mut to_caller.0, &mut to_upstream.0) else {
        return Ended::Finished;
    };
    let caller = (&mut from_caller, caller_sink);
    let upstream = (&mut from_upstream, upstream_sink);
    let ended = relay_between(caller, upstream, idle, counters, pin!(lapse)).await;
    if matches!(ended, Ended::Finished) {
        to_caller.0 = None;
        to_upstream.0 = None;
    }
    ended
}

/// As [`relay`], but leaves the ends to their owner, who may still say something to the caller and then finishes or
/// aborts them. After anything but [`Ended::Finished`] a sink may hold the beginning of what was last read for it.
/// `lapse` is pinned by its owner: a future that is moved into another one takes its place twice, in every idle session.
pub async fn relay_between<CallerSource, CallerSink, UpstreamSource, UpstreamSink>(
    caller: (&mut CallerSource, &mut CallerSink),
    upstream: (&mut UpstreamSource, &mut UpstreamSink),
    idle: Option<Duration>,
    counters: &Counters,
    lapse: Pin<&mut impl Future>,
) -> Ended
where
    CallerSource: Source,
    CallerSink: Sink,
    UpstreamSource: Source,
    UpstreamSink: Sink,
{
    let activity = Activity::new(idle);
    // Pinned where they are made, for the same reason as `lapse`.
    let up = pin!(pump(
        Side::Caller,
        caller.0,
        upstream.1,
        &counters.to_upstream,
        &activity
    ));
    let down = pin!(pump(
        Side::Upstream,
        upstream.0,
        caller.1,
        &counters.to_caller,
        &activity
    ));
    // Biased: after a lapse not one more byte is carried, however much is ready.
    tokio::select! {
        biased;
        _ = lapse => Ended::Lapsed,
        ended = both(up, down) => ended,
        () = activity.too_quiet() => Ended::Idle,
    }
}

/// Runs both directions to their ends. A failed read ends both at once; a failed write leaves the other direction the
/// time to deliver what is on its way.
async fn both<A, B>(mut up: Pin<&mut A>, mut down: Pin<&mut B>) -> Ended
where
    A: Future<Output = Carried> + Send,
    B: Future<Output = Carried> + Send,
{
    let (first, other): (Carried, Pin<&mut (dyn Future<Output = Carried> + Send)>) = tokio::select! {
        first = &mut up => (first, down),
        first = &mut down => (first, up),
    };
    match first {
        Ok(()) => match other.await {
            Ok(()) => Ended::Finished,
            Err(broken) => Ended::Failed(broken.side, broken.error),
        },
        Err(broken) => {
            if broken.while_writing {
                // Only the first failure is the cause; how the rest ends does not change it.
                drop(tokio::time::timeout(AFTERMATH, other).await);
            }
            Ended::Failed(broken.side, broken.error)
        }
    }
}

/// How one direction ended.
type Carried = std::result::Result<(), Broken>;

struct Broken {
    side: Side,
    while_writing: bool,
    error: Error,
}

/// Carries one direction to its end, the clean end included.
async fn pump<In: Source, Out: Sink>(
    from: Side,
    source: &mut In,
    sink: &mut Out,
    carried: &AtomicU64,
    activity: &Activity,
) -> Carried {
    let to = match from {
        Side::Caller => Side::Upstream,
        Side::Upstream => Side::Caller,
    };
    let reading = |error| Broken {
        side: from,
        while_writing: false,
        error,
    };
    let writing = |error| Broken {
        side: to,
        while_writing: true,
        error,
    };
    let mut batch = Batch::new();
    while source.fill(&mut batch).await.map_err(reading)? {
        let bytes = batch.len();
        sink.send_batch(&mut batch).await.map_err(writing)?;
        batch.settle(bytes);
        carried.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        activity.note();
        // QUIC streams do not take part in tokio's fairness by themselves.
        tokio::task::coop::consume_budget().await;
    }
    activity.note();
    sink.finish().await.map_err(writing)
}

/// When a byte last moved, in milliseconds since the start; shared by both directions.
struct Activity {
    limit: Option<Duration>,
    start: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            start: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }

    fn note(&self) {
        if self.limit.is_some() {
            let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last_ms.store(ms, Ordering::Relaxed);
        }
    }

    async fn too_quiet(&self) {
        let Some(limit) = self.limit else {
            return std::future::pending().await;
        };
        loop {
            let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let quiet = self.start.elapsed().saturating_sub(last);
            // A limit beyond what the timer can hold is no limit.
            match limit.checked_sub(quiet) {
                None | Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }
}

/// A sink that is broken off when dropped, unless it was taken out.
struct Guarded<S: Sink>(Option<S>);

impl<S: Sink> Drop for Guarded<S> {
    fn drop(&mut self) {
        if let Some(sink) = self.0.take() {
            sink.abort(NO_REASON);
        }
    }
}

#[cfg(test)]
mod tests;
