//! A lane for work that strangers cause: of all the futures that run in it, only so many are ready to be polled at a time;
//! the others wait in the order in which they came.
//!
//! Thousands of handshakes at once would otherwise stand in the scheduler's queue, and everybody else's next step behind
//! all of them: a relay, a greeting, an answer. In a lane they stand in each other's way only. What it bounds is the
//! share of the processor, not time spent waiting for a peer: a turn lasts one poll.
//!
//! A [`Pass`] belongs to one stranger. Once it is [released](Pass::release) its futures run as all others do.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// How many turns there are at a time, and who waits for one.
#[derive(Debug)]
pub struct Lane {
    turns: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// Turns that are taken or promised.
    taken: usize,
    /// Who waits, in the order in which they came; those that have gone are passed over. One entry for each future of
    /// the lane at most, so it is bounded by whoever bounds those.
    order: VecDeque<u64>,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    /// A turn is reserved, and the future was woken to take it.
    promised: bool,
}

/// What puts the futures of one stranger into a lane, until it is released.
#[derive(Clone)]
pub struct Pass {
    lane: Arc<Lane>,
    released: Arc<AtomicBool>,
}

impl Lane {
    /// A lane of so many turns at a time, at least one.
    pub fn new(turns: usize) -> Arc<Self> {
        Arc::new(Self {
            turns: turns.max(1),
            state: Mutex::default(),
        })
    }

    /// A pass for one stranger.
    pub fn pass(self: &Arc<Self>) -> Pass {
        Pass {
            lane: Arc::clone(self),
            released: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn for the future `id`, or a place in the queue.
    fn enter(&self, id: &mut Option<u64>, waker: &Waker) -> bool {
        let mut state = self.state();
        if let Some(waiting) = id.and_then(|id| state.waiting.get_mut(&id)) {
            if !waiting.promised {
                waiting.waker.clone_from(waker);
                return false;
            }
            state.waiting.remove(&id.take().unwrap_or_default());
            return true;
        }
        if state.taken < self.turns {
            state.taken = state.taken.saturating_add(1);
            return true;
        }
        let own = state.next_id;
        state.next_id = state.next_id.wrapping_add(1);
        state.order.push_back(own);
        let waiting = Waiting {
            waker: waker.clone(),
            promised: false,
        };
        state.waiting.insert(own, waiting);
        *id = Some(own);
        false
    }

    /// Gives a turn back, to the first that waits.
    fn leave(&self) {
        let mut state = self.state();
        while let Some(id) = state.order.pop_front() {
            if let Some(next) = state.waiting.get_mut(&id) {
                next.promised = true;
                let waker = next.waker.clone();
                drop(state);
                waker.wake();
                return;
            }
        }
        state.taken = state.taken.saturating_sub(1);
    }

    /// Forgets a future that is dropped while it waits.
    fn forget(&self, id: u64) {
        let gone = self.state().waiting.remove(&id);
        if gone.is_some_and(|gone| gone.promised) {
            self.leave();
        }
    }
}

thread_local! {
    /// The pass of the future that is being polled, for what it spawns.
    static CURRENT: RefCell<Option<Pass>> = const { RefCell::new(None) };
}

impl Pass {
    /// Runs a future in the lane until the pass is released.
    pub fn run<F: Future>(&self, future: F) -> Laned<F> {
        Laned {
            pass: self.clone(),
            id: None,
            future: Box::pin(future),
        }
    }

    /// From now on what has this pass runs like everything else. Cannot be undone.
    pub fn release(&self) {
        self.released.store(true, Ordering::Release);
        // Whoever still waits takes its next turn and stays out from then on.
    }

    /// The pass of the future that polls at this moment on this thread, so that what it starts can be put into the same
    /// lane.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("released", &self.released).finish()
    }
}

/// A future in a lane, see [`Pass::run`].
pub struct Laned<F> {
    pass: Pass,
    /// The place in the queue, while there is one.
    id: Option<u64>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Laned<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if this.id.is_none() && this.pass.is_released() {
            return this.future.as_mut().poll(context);
        }
        if !this.pass.lane.enter(&mut this.id, context.waker()) {
            return Poll::Pending;
        }
        let _turn = Turn::begin(&this.pass);
        this.future.as_mut().poll(context)
    }
}

impl<F> Drop for Laned<F> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.pass.lane.forget(id);
        }
    }
}

/// One poll; the turn is given back however it ends.
struct Turn<'a> {
    lane: &'a Lane,
    before: Option<Pass>,
}

impl<'a> Turn<'a> {
    fn begin(pass: &'a Pass) -> Self {
        Self {
            lane: &pass.lane,
            before: CURRENT.replace(Some(pass.clone())),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
        self.lane.leave();
    }
}

#[cfg(test)]
mod tests;
