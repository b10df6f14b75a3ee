//! Connections that wait for a slot.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use tokio::sync::oneshot;

use super::Slot;

/// Connections that may wait at once; one more is refused.
pub(super) const WAITERS: usize = 1024;
/// Of those, from one source: a whole fleet behind one address comes back through here.
pub(super) const WAITERS_PER_SOURCE: usize = 768;

/// One that waits. It has gone when its receiver is dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) source: IpAddr,
    pub(super) sender: oneshot::Sender<Slot>,
}

/// Bounded, in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: VecDeque<Waiter>,
}

impl Queue {
    /// Puts one at the end; `None` at a limit. When the queue is full, the source that waits most often gives up its last
    /// place to one that waits less often.
    pub(super) fn push(&mut self, waiter: Waiter) -> Option<()> {
        if self.waiters.len() >= WAITERS_PER_SOURCE {
            // Those who have gone take no place. Looked for only when it matters: it costs a walk.
            self.waiters.retain(|waiting| !waiting.sender.is_closed());
            let same = self.waiters.iter().filter(|waiting| waiting.source == waiter.source);
            let same = same.count();
            if same >= WAITERS_PER_SOURCE {
                return None;
            }
            if self.waiters.len() >= WAITERS {
                let last = self.last_of_the_greediest(same.saturating_add(1))?;
                // Dropped, and with it the sender: whoever waited there is told.
                drop(self.waiters.remove(last));
            }
        }
        self.waiters.push_back(waiter);
        Some(())
    }

    /// The last place of the source that has most of them, if it has more than so many.
    fn last_of_the_greediest(&self, than: usize) -> Option<usize> {
        let mut places: HashMap<IpAddr, (usize, usize)> = HashMap::new();
        for (at, waiter) in self.waiters.iter().enumerate() {
            let (count, last) = places.entry(waiter.source).or_default();
            *count = count.saturating_add(1);
            *last = at;
        }
        let (most, last) = places.into_values().max()?;
        (most > than).then_some(last)
    }

    /// Takes the next one whose source holds fewer than `per_source_limit` slots: that of the source with the fewest,
    /// and among equals the first that came.
    pub(super) fn pop(&mut self, held: &HashMap<IpAddr, usize>, per_source_limit: usize) -> Option<Waiter> {
        let mut best: Option<(usize, usize)> = None;
        for (at, waiter) in self.waiters.iter().enumerate() {
            let count = held.get(&waiter.source).copied().unwrap_or_default();
            if count >= per_source_limit || waiter.sender.is_closed() {
                continue;
            }
            if best.is_none_or(|(_, fewest)| count < fewest) {
                best = Some((at, count));
            }
            if count == 0 {
                break;
            }
        }
        let next = best.and_then(|(at, _)| self.waiters.remove(at));
        if next.is_none() {
            self.waiters.retain(|waiting| !waiting.sender.is_closed());
        }
        next
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiters.iter().filter(|waiter| !waiter.sender.is_closed()).count()
    }
}
