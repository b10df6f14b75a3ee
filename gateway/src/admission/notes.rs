//! How much strangers may make the gateway write.
//!
//! Refusals of peers that proved nothing are worth an audit line each, but a flood of them must not fill the disk: lines
//! are let through at a steady rate, what is left out is counted, and the count goes into the next line.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::source_of;

/// Lines about strangers in all: so many at once, and one more for each second that passes.
const BURST: u32 = 256;
/// Lines about one source: so many a minute.
const PER_SOURCE: u32 = 32;
const MINUTE: Duration = Duration::from_secs(60);
/// Sources told apart within a minute; later ones share one count.
const SOURCES: usize = 1_024;

/// Decides which refusals are written. Time is the monotonic clock.
#[derive(Debug)]
pub(crate) struct Notes {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    credit: u32,
    credited: Instant,
    minute: Instant,
    sources: HashMap<IpAddr, u32>,
    left_out: u64,
}

impl Notes {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let state = State {
            credit: BURST,
            credited: now,
            minute: now,
            sources: HashMap::new(),
            left_out: 0,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Whether a refusal of this source is written; if so, how many were not since the last that was.
    pub(crate) fn take(&self, address: IpAddr) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        state.refill(now);
        if state.credit == 0 || !state.source_has_room(source_of(address)) {
            state.left_out = state.left_out.saturating_add(1);
            return None;
        }
        state.credit = state.credit.saturating_sub(1);
        Some(std::mem::take(&mut state.left_out))
    }
}

impl State {
    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.credited).as_secs();
        if seconds > 0 {
            let credit = u32::try_from(seconds).unwrap_or(u32::MAX);
            self.credit = self.credit.saturating_add(credit).min(BURST);
            // Whole seconds only: the rest of this one counts for the next line.
            self.credited += Duration::from_secs(seconds);
        }
        if now.saturating_duration_since(self.minute) >= MINUTE {
            self.minute = now;
            self.sources.clear();
        }
    }

    fn source_has_room(&mut self, source: IpAddr) -> bool {
        let known = self.sources.contains_key(&source) || self.sources.len() < SOURCES;
        let key = if known {
            source
        } else {
            IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
        };
        let count = self.sources.entry(key).or_default();
        *count = count.saturating_add(1);
        *count <= PER_SOURCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number))
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_writes_a_bounded_number_of_lines_and_counts_the_rest() {
        let notes = Notes::new();
        let mut written = 0;
        for second in 0..600 {
            for number in 0..100 {
                written += u32::from(notes.take(source(second * 100 + number)).is_some());
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(written <= BURST + 600, "{written}");
        let left_out = notes.take(source(1)).unwrap();
        assert!(left_out > 0, "what was left out is told");
    }

    #[tokio::test(start_paused = true)]
    async fn one_source_does_not_take_the_lines_of_others() {
        let notes = Notes::new();
        let noisy = (0..1_000).filter(|_| notes.take(source(1)).is_some()).count();
        assert_eq!(noisy, usize::try_from(PER_SOURCE).unwrap());
        assert_eq!(notes.take(source(2)), Some(1_000 - u64::from(PER_SOURCE)));
        assert_eq!(notes.take(source(2)), Some(0), "told once");
        tokio::time::advance(MINUTE).await;
        assert!(notes.take(source(1)).is_some(), "and a minute later it is heard again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let notes = Notes::new();
        for number in 0..10_000 {
            notes.take(source(number));
        }
        assert!(notes.state.lock().unwrap().sources.len() <= SOURCES + 1);
    }
}
