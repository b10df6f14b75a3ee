//! Slots for peers that have not proved who they are: so many at once, so many from one address.
//!
//! Both ports take a slot before they read a byte and give it back when authentication ends either way
//! (SECURITY.md advisory 52). Above the limits, a connection waits for a slot for a while in a queue that is bounded too;
//! accepting itself never waits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// Connections that may wait for a slot; one more is refused at once.
const WAITERS: usize = 512;
/// How long each waits.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

/// Counts handshakes in flight, in all and per source address.
#[derive(Debug)]
pub struct Admission {
    in_flight_limit: usize,
    per_source_limit: usize,
    counts: Mutex<Counts>,
    waiters: Semaphore,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    in_flight: usize,
    // Entries leave when they reach zero, so the table is bounded by `in_flight_limit`.
    per_source: HashMap<IpAddr, usize>,
}

/// A slot; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    admission: Arc<Admission>,
    source: IpAddr,
}

impl Admission {
    /// `in_flight_limit` handshakes in all, `per_source_limit` from one address.
    pub fn new(in_flight_limit: usize, per_source_limit: usize) -> Arc<Self> {
        Arc::new(Self {
            in_flight_limit,
            per_source_limit,
            counts: Mutex::default(),
            waiters: Semaphore::new(WAITERS),
            freed: Notify::new(),
        })
    }

    /// Takes a slot, or `None` when the house or this source is full.
    pub fn try_enter(self: &Arc<Self>, source: IpAddr) -> Option<Slot> {
        let source = source.to_canonical();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.in_flight >= self.in_flight_limit {
            return None;
        }
        let from_source = counts.per_source.entry(source).or_default();
        if *from_source >= self.per_source_limit {
            return None;
        }
        *from_source += 1;
        counts.in_flight += 1;
        Some(Slot {
            admission: Arc::clone(self),
            source,
        })
    }

    /// Takes a slot, if need be after waiting for one; `None` when none came free within 5 s, or 512 others wait.
    pub async fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Slot> {
        if let Some(slot) = self.try_enter(source) {
            return Some(slot);
        }
        let _waiting = self.waiters.try_acquire().ok()?;
        let slot = timeout(WAIT_LIMIT, async {
            loop {
                let mut freed = pin!(self.freed.notified());
                // Before the look, so that a slot given back in between wakes this waiter.
                freed.as_mut().enable();
                if let Some(slot) = self.try_enter(source) {
                    return slot;
                }
                freed.await;
            }
        });
        slot.await.ok()
    }

    fn leave(&self, source: IpAddr) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.in_flight = counts.in_flight.saturating_sub(1);
        if let Some(from_source) = counts.per_source.get_mut(&source) {
            *from_source = from_source.saturating_sub(1);
            if *from_source == 0 {
                counts.per_source.remove(&source);
            }
        }
    }

    /// Handshakes in flight now.
    pub fn in_flight(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).in_flight
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.admission.leave(self.source);
        // All of them: which source has a free slot now is theirs to find out.
        self.admission.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_every_slot_and_slots_come_back() {
        let admission = Admission::new(3, 2);
        let greedy = "192.0.2.1".parse().unwrap();
        let first = admission.try_enter(greedy).unwrap();
        let _second = admission.try_enter(greedy).unwrap();
        assert!(admission.try_enter(greedy).is_none());
        let _other = admission.try_enter("192.0.2.2".parse().unwrap()).unwrap();
        assert!(
            admission.try_enter("192.0.2.3".parse().unwrap()).is_none(),
            "the house is full"
        );
        drop(first);
        assert!(admission.try_enter(greedy).is_some());
    }

    #[test]
    fn a_v4_mapped_address_counts_as_its_v4_self() {
        let admission = Admission::new(8, 1);
        let _slot = admission.try_enter("192.0.2.1".parse().unwrap()).unwrap();
        assert!(admission.try_enter("::ffff:192.0.2.1".parse().unwrap()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn above_a_limit_a_connection_waits_for_a_slot_and_not_for_ever() {
        let admission = Admission::new(8, 1);
        let source = "192.0.2.1".parse().unwrap();
        let held = admission.enter(source).await.unwrap();
        let (late, ()) = tokio::join!(admission.enter(source), async {
            tokio::time::sleep(WAIT_LIMIT / 2).await;
            drop(held);
        });
        let _late = late.unwrap();
        assert!(admission.enter(source).await.is_none(), "none came free in time");
        assert_eq!(
            admission.waiters.available_permits(),
            WAITERS,
            "and nobody waits any longer"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded() {
        let admission = Admission::new(8, 1);
        let source = "192.0.2.1".parse().unwrap();
        let _held = admission.enter(source).await.unwrap();
        let _queue = admission
            .waiters
            .acquire_many(u32::try_from(WAITERS).unwrap())
            .await
            .unwrap();
        let began = tokio::time::Instant::now();
        assert!(admission.enter(source).await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
