//! How many sessions may be asked for at once, and how many were turned away because there were more.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use fairlead_wire::refusal::Reason;
use tokio::time::Instant;

/// Sessions a gateway may ask for in one go after a quiet time.
const BURST: f64 = 1024.0;
/// And each second from then on.
const PER_SECOND: f64 = 256.0;

/// A bucket of permissions to ask, and the count of those that asked in vain.
pub(crate) struct Crowd {
    state: Mutex<State>,
}

struct State {
    room: f64,
    since: Instant,
    turned_away: BTreeMap<Reason, u64>,
}

impl Crowd {
    pub(crate) fn new() -> Self {
        let state = State {
            room: BURST,
            since: Instant::now(),
            turned_away: BTreeMap::new(),
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Takes one permission, if there is one.
    pub(super) fn has_room(&self) -> bool {
        self.with(|state| {
            let now = Instant::now();
            let gained = now.duration_since(state.since).as_secs_f64() * PER_SECOND;
            state.room = (state.room + gained).min(BURST);
            state.since = now;
            let has_room = state.room >= 1.0;
            if has_room {
                state.room -= 1.0;
            }
            has_room
        })
    }

    /// Counts one that was turned away; true for the first since the last [`Self::take`].
    pub(super) fn count(&self, reason: Reason) -> bool {
        self.with(|state| {
            let first = state.turned_away.is_empty();
            let count = state.turned_away.entry(reason).or_default();
            *count = count.saturating_add(1);
            first
        })
    }

    /// How many were turned away for each reason; begins anew.
    pub(super) fn take(&self) -> BTreeMap<Reason, u64> {
        self.with(|state| std::mem::take(&mut state.turned_away))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_let_in_at_its_pace_and_the_rest_is_counted() {
        let crowd = Crowd::new();
        let admitted = |tries: usize| (0..tries).filter(|_| crowd.has_room()).count();
        assert_eq!(admitted(5000), 1024);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(admitted(5000), 256);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(admitted(5000), 1024);
        assert!(crowd.count(Reason::Limit));
        assert!(!crowd.count(Reason::Limit));
        assert!(!crowd.count(Reason::AgentStopping));
        assert_eq!(crowd.take().into_values().collect::<Vec<_>>(), [2, 1]);
        assert!(crowd.count(Reason::Limit));
    }
}
