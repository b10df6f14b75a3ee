//! Peers that have not proved who they are: how many at once, for how long they may wait, and what becomes of sources
//! that fail again and again.
//!
//! Both ports take a [`Slot`] before they do any work for a peer and give it back when authentication ends either way
//! (SECURITY.md advisory 52). Above the limits a connection waits in a queue that is bounded too; accepting itself never
//! waits. When all slots are taken, the source that holds most of them loses its oldest to one that holds fewer, so that
//! a few hostile addresses cannot shut out everybody else.

mod failures;
mod notes;
mod queue;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairlead_runtime::lane::{Lane, Pass};
use fairlead_runtime::stop::CancellationToken;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub(crate) use failures::{Failures, Penalty};
pub(crate) use notes::Notes;
use queue::{Queue, Waiter};

/// How long a connection waits for a slot.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Where a peer comes from, as it counts here: an IPv4 address, or the /64 of an IPv6 address, which is what one
/// machine commonly has for itself.
pub(crate) fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = v6.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 => v4,
    }
}

/// Counts handshakes in flight, in all and per source.
#[derive(Debug)]
pub struct Admission {
    in_flight_limit: usize,
    per_source_limit: usize,
    lane: Arc<Lane>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// Holders of slots in the order in which they came. Bounded by `in_flight_limit`.
    held: BTreeMap<u64, Holder>,
    /// Entries leave when they reach zero.
    per_source: HashMap<IpAddr, usize>,
    waiting: Queue,
}

#[derive(Debug)]
struct Holder {
    source: IpAddr,
    evicted: CancellationToken,
}

/// A slot; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    admission: Arc<Admission>,
    id: u64,
    evicted: CancellationToken,
    pass: Pass,
}

impl Slot {
    /// For the futures that make a handshake's keys and signatures: until the slot is given back, those of all strangers
    /// take turns, on half of the processors. Nobody who is known waits behind them.
    pub fn pass(&self) -> Pass {
        self.pass.clone()
    }

    /// Cancelled when somebody else needs the slot more: whoever holds it lets go of the peer. Never cancelled once the
    /// slot was given back.
    pub fn evicted(&self) -> CancellationToken {
        self.evicted.clone()
    }
}

impl Admission {
    /// `in_flight_limit` handshakes in all, `per_source_limit` from one source.
    pub fn new(in_flight_limit: usize, per_source_limit: usize) -> Arc<Self> {
        Arc::new(Self {
            in_flight_limit,
            per_source_limit,
            lane: Lane::new(cores() / 2),
            state: Mutex::default(),
        })
    }

    /// Takes a slot, or `None` when the house or this source is full.
    pub fn try_enter(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let source = source_of(address);
        let mut state = self.state();
        self.has_room(&state, source).then(|| self.take(&mut state, source))
    }

    /// Takes a slot, if need be after waiting for one; `None` when none came free within 5 s, or the queue is full.
    pub async fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let receiver = match self.begin(source_of(address))? {
            Begun::In(slot) => return Some(slot),
            Begun::Waits(receiver) => receiver,
        };
        // Dropped with the receiver: whoever hands out slots passes over waiters that have gone.
        timeout(WAIT_LIMIT, receiver).await.ok()?.ok()
    }

    fn begin(self: &Arc<Self>, source: IpAddr) -> Option<Begun> {
        let mut state = self.state();
        if self.has_room(&state, source) {
            return Some(Begun::In(self.take(&mut state, source)));
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push(Waiter { source, sender })?;
        if state.held.len() >= self.in_flight_limit {
            state.evict_for(source);
        }
        Some(Begun::Waits(receiver))
    }

    fn has_room(&self, state: &State, source: IpAddr) -> bool {
        state.held.len() < self.in_flight_limit && state.held_by(source) < self.per_source_limit
    }

    fn take(self: &Arc<Self>, state: &mut State, source: IpAddr) -> Slot {
        let (id, evicted) = (state.next_id, CancellationToken::new());
        state.next_id = state.next_id.wrapping_add(1);
        *state.per_source.entry(source).or_default() += 1;
        let holder = Holder {
            source,
            evicted: evicted.clone(),
        };
        state.held.insert(id, holder);
        Slot {
            admission: Arc::clone(self),
            id,
            evicted,
            pass: self.lane.pass(),
        }
    }

    /// Gives freed slots to whoever waits, the source with the fewest first, and among equals the first that came.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            if state.held.len() >= self.in_flight_limit {
                return;
            }
            let State {
                waiting, per_source, ..
            } = &mut *state;
            let Some(waiter) = waiting.pop(per_source, self.per_source_limit) else {
                return;
            };
            let slot = self.take(&mut state, waiter.source);
            drop(state);
            // A waiter that has just gone drops the slot, which leads here once more; not while the state is locked.
            drop(waiter.sender.send(slot));
        }
    }

    fn leave(&self, id: u64) {
        let mut state = self.state();
        let Some(holder) = state.held.remove(&id) else { return };
        let State { per_source, .. } = &mut *state;
        if let Some(count) = per_source.get_mut(&holder.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                per_source.remove(&holder.source);
            }
        }
    }

    /// Handshakes in flight now.
    pub fn in_flight(&self) -> usize {
        self.state().held.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Begun {
    In(Slot),
    Waits(oneshot::Receiver<Slot>),
}

impl State {
    fn held_by(&self, source: IpAddr) -> usize {
        self.per_source.get(&source).copied().unwrap_or_default()
    }

    /// Tells the oldest peer of the source with most slots to go, if `source` would still have fewer than that one.
    fn evict_for(&mut self, source: IpAddr) {
        let Some((&greediest, &most)) = self.per_source.iter().max_by_key(|(_, count)| **count) else {
            return;
        };
        if most <= self.held_by(source).saturating_add(1) {
            return;
        }
        let oldest = self
            .held
            .values()
            .find(|holder| holder.source == greediest && !holder.evicted.is_cancelled());
        if let Some(holder) = oldest {
            holder.evicted.cancel();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pass.release();
        self.admission.leave(self.id);
        self.admission.hand_out();
    }
}

#[cfg(test)]
mod tests;
