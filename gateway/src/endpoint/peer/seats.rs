//! How many conversations there may be: in all, and of one caller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::access::CallerId;

/// Conversations in all.
const TOTAL: usize = 4096;
/// Conversations of one caller.
const PER_CALLER: usize = 32;

/// The conversations under way.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Arc<Mutex<BTreeMap<CallerId, usize>>>,
}

/// One of them; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    taken: Arc<Mutex<BTreeMap<CallerId, usize>>>,
    caller: CallerId,
}

impl Seats {
    /// A seat, or `None` when the house or this caller has as many as there may be.
    pub(super) fn take(&self, caller: &CallerId) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= TOTAL || taken.get(caller).is_some_and(|count| *count >= PER_CALLER) {
            return None;
        }
        *taken.entry(caller.clone()).or_default() += 1;
        Some(Seat {
            taken: Arc::clone(&self.taken),
            caller: caller.clone(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::CallerKind;

    #[test]
    fn one_caller_cannot_take_every_seat_and_seats_come_back() {
        let seats = Seats::default();
        let caller = |name: &str| CallerId {
            kind: CallerKind::User,
            name: name.parse().unwrap(),
        };
        let mut held: Vec<Seat> = (0..PER_CALLER).map(|_| seats.take(&caller("alice")).unwrap()).collect();
        assert!(seats.take(&caller("alice")).is_none());
        let _other = seats.take(&caller("bob")).unwrap();
        held.pop();
        assert!(seats.take(&caller("alice")).is_some());
        held.clear();
        assert_eq!(seats.taken.lock().unwrap().len(), 1, "nothing is kept of who has left");
    }
}
