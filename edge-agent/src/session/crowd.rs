//! How many sessions may be asked for at once, and how many were turned away because there were more.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use fairlead_wire::refusal::Reason;
use tokio::time::Instant;

/// What may be asked for in one go after a quiet time, and each second from then on.
#[derive(Clone, Copy)]
struct Pace {
    burst: f64,
    per_second: f64,
}

/// Sessions, and whatever else a stream begins with. What was permitted is given back as far as [`PERMITTED`] goes.
const STREAMS: Pace = Pace {
    burst: 1024.0,
    per_second: 256.0,
};
/// Sessions that the customer's file permits: an application that connects anew for each request, not whoever tries names.
/// Bounded too, since each writes two lines and dials.
const PERMITTED: Pace = Pace {
    burst: 8192.0,
    per_second: 1024.0,
};
/// Questions about the file. Enough for people; for somebody who tries names and times it is as slow as sessions are loud.
const QUESTIONS: Pace = Pace {
    burst: 32.0,
    per_second: 4.0,
};

/// Permissions to ask, and the count of those that asked in vain.
pub(crate) struct Crowd {
    state: Mutex<State>,
}

struct State {
    streams: Bucket,
    permitted: Bucket,
    questions: Bucket,
    turned_away: BTreeMap<Reason, u64>,
}

struct Bucket {
    pace: Pace,
    room: f64,
    since: Instant,
}

impl Bucket {
    fn full(pace: Pace) -> Self {
        Self {
            pace,
            room: pace.burst,
            since: Instant::now(),
        }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.since).as_secs_f64() * self.pace.per_second;
        self.room = (self.room + gained).min(self.pace.burst);
        self.since = now;
        let has_room = self.room >= 1.0;
        if has_room {
            self.room -= 1.0;
        }
        has_room
    }

    fn give_back(&mut self) {
        self.room = (self.room + 1.0).min(self.pace.burst);
    }
}

impl Crowd {
    pub(crate) fn new() -> Self {
        let state = State {
            streams: Bucket::full(STREAMS),
            permitted: Bucket::full(PERMITTED),
            questions: Bucket::full(QUESTIONS),
            turned_away: BTreeMap::new(),
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Takes one permission for a stream, if there is one.
    pub(super) fn has_room(&self) -> bool {
        self.with(|state| state.streams.take())
    }

    /// Gives the permission for a stream back whose session was permitted, unless those come too fast as well.
    pub(super) fn permitted(&self) {
        self.with(|state| {
            if state.permitted.take() {
                state.streams.give_back();
            }
        });
    }

    /// Takes one permission for a question, if there is one.
    pub(super) fn has_room_for_a_question(&self) -> bool {
        self.with(|state| state.questions.take())
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
        assert_eq!((0..100).filter(|_| crowd.has_room_for_a_question()).count(), 32);
        assert!(crowd.count(Reason::Limit));
        assert!(!crowd.count(Reason::Limit));
        assert!(!crowd.count(Reason::AgentStopping));
        assert_eq!(crowd.take().into_values().collect::<Vec<_>>(), [2, 1]);
        assert!(crowd.count(Reason::Limit));
    }
    #[tokio::test(start_paused = true)]
    async fn permitted_sessions_may_come_faster_and_have_a_bound_too() {
        let crowd = Crowd::new();
        let permitted = |tries: usize| {
            let one = |_: &usize| {
                let has_room = crowd.has_room();
                if has_room {
                    crowd.permitted();
                }
                has_room
            };
            (0..tries).filter(one).count()
        };
        assert_eq!(permitted(20_000), 8192 + 1024);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(permitted(20_000), 1024 + 256);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(permitted(100), 100);
        // What was refused in between is charged as before.
        assert_eq!((0..5000).filter(|_| crowd.has_room()).count(), 1024);
    }
}
