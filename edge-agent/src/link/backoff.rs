//! How long to wait before dialling again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The first retry comes within this.
const FIRST: Duration = Duration::from_millis(200);
/// No wait is longer (SECURITY.md R2).
const CAP: Duration = Duration::from_secs(8);

/// The first wait of a machine whose identity another one has is at most this, each further one at most twice as long.
const APART_FIRST: Duration = Duration::from_secs(10);
/// No wait of such a machine is longer: it stays visible to the operator while it tries.
const APART_CAP: Duration = Duration::from_secs(120);

/// Decorrelated jitter ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015): each wait is drawn between 200 ms
/// and three times the one before, at most 8 s, so that a fleet spreads out after its gateway restarts.
#[derive(Debug)]
pub struct Backoff {
    random: StdRng,
    last: Duration,
    /// Ceiling of the next wait of a machine in conflict; zero while it is in none.
    apart: Duration,
}

impl Backoff {
    /// Seeded, so that a test sees the same waits each time.
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            last: Duration::ZERO,
            apart: Duration::ZERO,
        }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let first = self.last.is_zero();
        let ceiling = if first {
            FIRST
        } else {
            self.last.saturating_mul(3).clamp(FIRST, CAP)
        };
        let floor = if first { Duration::ZERO } else { FIRST };
        let wait = floor + ceiling.saturating_sub(floor).mul_f64(self.random.random::<f64>());
        self.last = wait.max(FIRST);
        wait
    }

    /// The next wait of a machine that was turned away because another one with its identity serves: between half of 10 s
    /// and 10 s, then twice that, and so on up to two minutes.
    pub(super) fn next_apart(&mut self) -> Duration {
        let ceiling = self.apart.clamp(APART_FIRST, APART_CAP);
        self.apart = ceiling.saturating_mul(2);
        ceiling.mul_f64(0.5 + self.random.random::<f64>() / 2.0)
    }

    /// Begins anew after a link has proved good.
    pub fn reset(&mut self) {
        self.last = Duration::ZERO;
        self.apart = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_retry_is_quick_and_no_wait_is_above_the_cap() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            assert!(backoff.wait() <= FIRST);
            let waits: Vec<_> = (0..50).map(|_| backoff.wait()).collect();
            assert!(waits.iter().all(|wait| (FIRST..=CAP).contains(wait)), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait > Duration::from_secs(3)), "waits grow");
            backoff.reset();
            assert!(backoff.wait() <= FIRST);
        }
    }

    #[test]
    fn a_machine_in_conflict_tries_ever_more_rarely_and_does_not_give_up() {
        let mut backoff = Backoff::new(7);
        let waits: Vec<_> = (0..100).map(|_| backoff.next_apart()).collect();
        assert!(waits[0] >= APART_FIRST / 2 && waits[0] <= APART_FIRST, "{waits:?}");
        assert!(waits[1] >= APART_FIRST && waits[1] <= APART_FIRST * 2, "{waits:?}");
        let late = &waits[10..];
        assert!(
            late.iter().all(|wait| (APART_CAP / 2..=APART_CAP).contains(wait)),
            "{late:?}"
        );
        backoff.reset();
        assert!(backoff.next_apart() <= APART_FIRST);
    }
}
