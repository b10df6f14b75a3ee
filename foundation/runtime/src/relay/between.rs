//! Somebody between caller and upstream who reads what passes, in both directions with one mind, changes it, and answers
//! the caller himself.
//!
//! The relay stays as it is: [`between`] wraps the caller's two ends, and [`Woken`] the upstream's source, which gives
//! nothing when an answer waits, so that the caller's sink is asked to write.

use std::future::pending;
use std::io::Result;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Batch, Sink, Source};

/// Answers that wait for the caller to take them; beyond it the caller is not read.
const ANSWERS: usize = 256;
/// How far ahead of its rate a caller may be.
const BURST: Duration = Duration::from_secs(1);

/// Reads both directions.
pub trait Between: Send {
    /// Takes what it can out of `bytes`, which the caller has sent; what is left is shown again with what follows. `None`
    /// says that the session is over: nothing more is carried, and whoever says it lets the permission lapse.
    fn hear_caller(&mut self, bytes: &mut BytesMut, said: &mut Said) -> Option<()>;
    /// Takes what the upstream has sent. `None` as above.
    fn hear_upstream(&mut self, bytes: Bytes, said: &mut Said) -> Option<()>;
    /// Whether the caller may be read on.
    fn takes_more(&self) -> bool;
    /// What the caller has begun was not finished in time; the session is over.
    fn unfinished(&mut self);
}

/// What is to be sent.
#[derive(Debug, Default)]
pub struct Said {
    /// To the upstream, in this order.
    pub to_upstream: Vec<Bytes>,
    /// To the caller, in this order.
    pub to_caller: Vec<Bytes>,
    /// Whether the caller has said all they have to say.
    pub leaves: bool,
    /// Units that count towards the caller's rate.
    pub units: u32,
}

/// What one caller may take up.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long the rest of what was begun may take.
    pub unfinished: Duration,
    /// Units in a second; who sends more is read more slowly. 0 for no bound.
    pub rate: u32,
}

struct Shared<B> {
    state: Mutex<State<B>>,
    wake: Wake,
    room: Notify,
}

struct State<B> {
    mind: B,
    answers: Vec<Bytes>,
    /// The caller has said all they have to say, and may have gone: what they do not hear is no failure.
    left: bool,
}

impl<B> Shared<B> {
    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that an answer waits.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

/// Puts `mind` behind the caller's ends. `ahead` is what was read of the caller already.
pub fn between<S, K, B: Between>(
    caller: (S, K),
    ahead: BytesMut,
    mind: B,
    bounds: Bounds,
) -> (FromCaller<S, B>, ToCaller<K, B>, Wake) {
    let wake = Wake::default();
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            mind,
            answers: Vec::new(),
            left: false,
        }),
        wake: wake.clone(),
        room: Notify::new(),
    });
    let source = FromCaller {
        inner: caller.0,
        shared: Arc::clone(&shared),
        held: ahead,
        bounds,
        leaves: false,
        deadline: None,
        ahead_until: Instant::now(),
    };
    let sink = ToCaller {
        inner: caller.1,
        shared,
        writing: false,
    };
    (source, sink, wake)
}

/// The caller's bytes, as far as they are to go on.
pub struct FromCaller<S, B> {
    inner: S,
    shared: Arc<Shared<B>>,
    held: BytesMut,
    bounds: Bounds,
    leaves: bool,
    /// When what was begun must be whole.
    deadline: Option<Instant>,
    /// Until when the units that came would last at the rate.
    ahead_until: Instant,
}

impl<S: Source, B: Between> FromCaller<S, B> {
    /// Shows what is held; `None` when the session is over, false while the caller is not to be read.
    fn show(&mut self, batch: &mut Batch) -> Option<bool> {
        let mut state = self.shared.state();
        if !state.mind.takes_more() || state.answers.len() >= ANSWERS {
            return Some(false);
        }
        let (mut said, before) = (Said::default(), self.held.len());
        let goes_on = state.mind.hear_caller(&mut self.held, &mut said);
        let answers = !said.to_caller.is_empty();
        state.answers.append(&mut said.to_caller);
        state.left |= said.leaves;
        drop(state);
        if answers {
            self.shared.wake.0.notify_one();
        }
        goes_on?;
        said.to_upstream.into_iter().for_each(|bytes| batch.push(bytes));
        self.leaves |= said.leaves;
        let now = Instant::now();
        if let Some(each) = Duration::from_secs(1).checked_div(self.bounds.rate) {
            self.ahead_until = self.ahead_until.max(now) + each.saturating_mul(said.units);
        }
        if self.held.is_empty() {
            // Nothing is held while nothing comes.
            self.held = BytesMut::new();
            self.deadline = None;
        } else if self.deadline.is_none() || self.held.len() < before {
            self.deadline = Some(now + self.bounds.unfinished);
        }
        Some(true)
    }

    async fn next(&mut self, batch: &mut Batch) -> Result<bool> {
        loop {
            match self.show(batch) {
                // Whoever said so has let the permission lapse, which ends the relay.
                None => return pending().await,
                Some(false) => {
                    self.shared.room.notified().await;
                    continue;
                }
                Some(true) if !batch.is_empty() => return Ok(true),
                Some(true) if self.leaves => return Ok(false),
                Some(true) => {}
            }
            if let Some(wait) = self.ahead_until.checked_sub(BURST) {
                sleep_until(wait).await;
            }
            let read = match self.deadline {
                None => self.inner.chunk().await,
                Some(deadline) => match timeout_at(deadline, self.inner.chunk()).await {
                    Ok(read) => read,
                    Err(_) => {
                        self.shared.state().mind.unfinished();
                        return pending().await;
                    }
                },
            };
            match read? {
                Some(bytes) => self.held.extend_from_slice(&bytes),
                None => return Ok(false),
            }
        }
    }
}

impl<S: Source, B: Between> Source for FromCaller<S, B> {
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let mut batch = Batch::new();
        if !self.fill(&mut batch).await? {
            return Ok(None);
        }
        let mut whole = BytesMut::with_capacity(batch.len());
        while let Some(bytes) = batch.pop() {
            whole.extend_from_slice(&bytes);
        }
        Ok(Some(whole.freeze()))
    }

    async fn fill(&mut self, batch: &mut Batch) -> Result<bool> {
        self.next(batch).await
    }
}

/// What the caller gets: the upstream's bytes as far as they are to go on, and answers in between.
pub struct ToCaller<K, B> {
    inner: K,
    shared: Arc<Shared<B>>,
    /// A write was begun and has not ended: what the caller has of it is not known.
    writing: bool,
}

impl<K: Sink, B: Between> ToCaller<K, B> {
    /// The sink itself, and the last bytes that `farewell` makes, after answers that still wait; nothing where the caller
    /// has a part of something.
    pub fn part(self, farewell: impl FnOnce(&mut B) -> Option<Vec<u8>>) -> (K, Option<Bytes>) {
        let Self { inner, shared, writing } = self;
        if writing {
            return (inner, None);
        }
        let mut state = shared.state();
        let mut last: Vec<u8> = state.answers.drain(..).flatten().collect();
        last.extend(farewell(&mut state.mind).unwrap_or_default());
        (inner, (!last.is_empty()).then(|| last.into()))
    }

    fn pass(&self, mut next: impl FnMut() -> Option<Bytes>) -> (Batch, bool) {
        let mut out = Batch::new();
        let mut state = self.shared.state();
        // What was answered before these bytes were read stands before them.
        state.answers.drain(..).for_each(|bytes| out.push(bytes));
        let mut goes_on = true;
        while goes_on && let Some(bytes) = next() {
            let mut said = Said::default();
            goes_on = state.mind.hear_upstream(bytes, &mut said).is_some();
            said.to_caller.into_iter().for_each(|bytes| out.push(bytes));
        }
        (out, goes_on)
    }

    fn unless_left(&self, done: Result<()>) -> Result<()> {
        if self.shared.state().left { Ok(()) } else { done }
    }

    async fn write(&mut self, (mut out, goes_on): (Batch, bool)) -> Result<()> {
        self.shared.room.notify_one();
        if !out.is_empty() {
            self.writing = true;
            let sent = self.inner.send_batch(&mut out).await;
            self.unless_left(sent)?;
            self.writing = false;
        }
        if goes_on { Ok(()) } else { pending().await }
    }
}

impl<K: Sink, B: Between> Sink for ToCaller<K, B> {
    async fn send(&mut self, bytes: Bytes) -> Result<()> {
        let mut bytes = Some(bytes);
        let passed = self.pass(|| bytes.take());
        self.write(passed).await
    }

    async fn send_batch(&mut self, batch: &mut Batch) -> Result<()> {
        let passed = self.pass(|| batch.pop());
        self.write(passed).await
    }

    async fn finish(&mut self) -> Result<()> {
        let done = self.inner.finish().await;
        self.unless_left(done)
    }
}

/// A source that also gives nothing, where its reader has something else to do.
pub struct Woken<S> {
    inner: S,
    wake: Option<Wake>,
}

impl<S: Source> Woken<S> {
    /// Wakes the reader of `inner` when an answer waits.
    pub fn new(inner: S, wake: Option<Wake>) -> Self {
        Self { inner, wake }
    }
}

impl<S: Source> Source for Woken<S> {
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        match &self.wake {
            None => self.inner.chunk().await,
            Some(wake) => tokio::select! {
                read = self.inner.chunk() => read,
                () = wake.0.notified() => Ok(Some(Bytes::new())),
            },
        }
    }

    async fn fill(&mut self, batch: &mut Batch) -> Result<bool> {
        match &self.wake {
            None => self.inner.fill(batch).await,
            Some(wake) => tokio::select! {
                filled = self.inner.fill(batch) => filled,
                () = wake.0.notified() => Ok(true),
            },
        }
    }
}
