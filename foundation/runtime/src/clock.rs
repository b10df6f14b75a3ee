//! Wall-clock time as an argument: whoever needs "now" is handed a [`Clock`], so that tests decide what time it is.
//!
//! Deadlines and limits do not belong here; they use tokio's monotonic clock, which a clock jump does not move.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Tells the wall-clock time.
pub trait Clock: Send + Sync {
    /// Returns the present moment. It may go backwards between two calls when the machine's clock is set.
    fn now(&self) -> SystemTime;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> SystemTime {
        (**self).now()
    }
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that never shows a moment before its floor: devices without a battery boot in 1970, and a certificate
/// must not become valid again because of it.
///
/// The floor starts at the build time or the last signed time on disk, and is raised by what the link learns.
#[derive(Debug)]
pub struct FlooredClock<C> {
    inner: C,
    floor: Mutex<SystemTime>,
}

impl<C: Clock> FlooredClock<C> {
    /// Puts a floor under `inner`.
    pub fn new(inner: C, floor: SystemTime) -> Self {
        Self {
            inner,
            floor: Mutex::new(floor),
        }
    }

    /// Raises the floor to `to`; an earlier moment changes nothing.
    pub fn raise(&self, to: SystemTime) {
        let mut floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        *floor = (*floor).max(to);
    }
}

impl<C: Clock> Clock for FlooredClock<C> {
    fn now(&self) -> SystemTime {
        let floor = *self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.now().max(floor)
    }
}

/// A clock that stands still until it is moved; for tests. Clones show the same time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<SystemTime>>);

impl ManualClock {
    /// Starts at `at`.
    pub fn new(at: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    /// Jumps to `at`, forwards or backwards.
    pub fn set(&self, at: SystemTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Moves forward by `by`; a sum past the end of time changes nothing.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.checked_add(by).unwrap_or(*now);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_is_shared_by_its_clones() {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
        let same = clock.clone();
        clock.advance(Duration::from_secs(5));
        assert_eq!(same.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
        clock.set(SystemTime::UNIX_EPOCH);
        assert_eq!(same.now(), SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn a_device_that_boots_in_1970_sees_the_floor() {
        let machine = ManualClock::new(SystemTime::UNIX_EPOCH);
        let built = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let clock = FlooredClock::new(machine.clone(), built);
        assert_eq!(clock.now(), built);
        clock.raise(built + Duration::from_secs(10));
        clock.raise(built);
        assert_eq!(clock.now(), built + Duration::from_secs(10));
        machine.set(built + Duration::from_secs(99));
        assert_eq!(clock.now(), built + Duration::from_secs(99));
    }
}
