//! Sources whose logins fail again and again are shut out for a while.
//!
//! One connection on which somebody tried to log in and nobody got in is one failure, however many keys it offered: stock
//! clients offer every key they have. A login that succeeds clears its source, and a penalty ends by itself and is
//! neither lengthened nor renewed by knocking, so that people behind one address with a careless neighbour get in too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::source_of;

/// Failures older than this are forgotten.
const MEMORY: Duration = Duration::from_secs(120);
/// How long a source is shut out.
const PENALTY: Duration = Duration::from_secs(30);
/// Sources remembered. Beyond, the one whose last failure is longest ago is forgotten, unless it is shut out.
const SOURCES: usize = 8_192;

/// Counts failures per source. Time is the monotonic clock.
#[derive(Debug)]
pub(crate) struct Failures {
    allowed: u32,
    sources: Mutex<HashMap<IpAddr, Record>>,
}

/// A source is shut out, for so much longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Penalty {
    pub(crate) left: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    count: u32,
    last: Instant,
    shut_until: Option<Instant>,
}

impl Record {
    fn is_shut(&self, now: Instant) -> bool {
        self.shut_until.is_some_and(|until| now < until)
    }

    fn is_stale(&self, now: Instant) -> bool {
        !self.is_shut(now) && now.saturating_duration_since(self.last) > MEMORY
    }
}

impl Failures {
    /// The failure number `allowed` brings the penalty; 0 switches penalties off.
    pub(crate) fn new(allowed: u32) -> Arc<Self> {
        Arc::new(Self {
            allowed,
            sources: Mutex::default(),
        })
    }

    /// Whether this source is shut out now.
    pub(crate) fn penalty(&self, address: IpAddr) -> Option<Penalty> {
        let now = Instant::now();
        let until = self.sources().get(&source_of(address))?.shut_until?;
        let left = until.checked_duration_since(now)?;
        (!left.is_zero()).then_some(Penalty { left })
    }

    /// Notes a failure; true when it brings the penalty.
    pub(crate) fn failed(&self, address: IpAddr) -> bool {
        if self.allowed == 0 {
            return false;
        }
        let (source, now) = (source_of(address), Instant::now());
        let mut sources = self.sources();
        if !sources.contains_key(&source) {
            make_room(&mut sources, now);
        }
        // A table full of sources that are shut out takes no more: this one is then counted anew each time.
        if sources.len() >= SOURCES && !sources.contains_key(&source) {
            return false;
        }
        let record = sources.entry(source).or_insert(Record {
            count: 0,
            last: now,
            shut_until: None,
        });
        if record.is_shut(now) {
            return false;
        }
        if record.is_stale(now) || record.shut_until.is_some() {
            (record.count, record.shut_until) = (0, None);
        }
        record.last = now;
        record.count = record.count.saturating_add(1);
        if record.count < self.allowed {
            return false;
        }
        record.shut_until = now.checked_add(PENALTY);
        true
    }

    /// Notes that somebody of this source has logged in.
    pub(crate) fn succeeded(&self, address: IpAddr) {
        self.sources().remove(&source_of(address));
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<IpAddr, Record>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(sources: &mut HashMap<IpAddr, Record>, now: Instant) {
    if sources.len() < SOURCES {
        return;
    }
    sources.retain(|_, record| !record.is_stale(now));
    if sources.len() < SOURCES {
        return;
    }
    let open = sources.iter().filter(|(_, record)| !record.is_shut(now));
    let oldest = open.min_by_key(|(_, record)| record.last).map(|(source, _)| *source);
    if let Some(oldest) = oldest {
        sources.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: u32 = 5;

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number))
    }

    async fn later(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_fifth_failure_shuts_a_source_out_for_thirty_seconds_and_no_other() {
        let failures = Failures::new(ALLOWED);
        for _ in 1..ALLOWED {
            assert!(!failures.failed(source(1)));
            assert_eq!(failures.penalty(source(1)), None);
        }
        assert!(failures.failed(source(1)));
        assert_eq!(failures.penalty(source(1)), Some(Penalty { left: PENALTY }));
        assert_eq!(failures.penalty(source(2)), None);
        later(PENALTY - Duration::from_millis(1)).await;
        assert!(!failures.failed(source(1)), "knocking does not count");
        assert!(failures.penalty(source(1)).is_some());
        later(Duration::from_millis(1)).await;
        assert_eq!(failures.penalty(source(1)), None, "nor does it lengthen the penalty");
        assert!(!failures.failed(source(1)), "and the count begins again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_and_time_clear_a_source() {
        let failures = Failures::new(ALLOWED);
        for _ in 0..20 {
            for _ in 1..ALLOWED {
                assert!(!failures.failed(source(1)));
            }
            failures.succeeded(source(1));
        }
        for _ in 0..20 {
            assert!(!failures.failed(source(1)));
            later(MEMORY + Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_addresses_of_one_ipv6_network_are_one_source() {
        let failures = Failures::new(ALLOWED);
        for host in 1..=ALLOWED {
            failures.failed(format!("2001:db8:1:2::{host}").parse().unwrap());
        }
        assert!(failures.penalty("2001:db8:1:2:ffff::1".parse().unwrap()).is_some());
        assert!(failures.penalty("2001:db8:1:3::1".parse().unwrap()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_a_full_one_keeps_who_is_shut_out() {
        let failures = Failures::new(ALLOWED);
        for _ in 0..ALLOWED {
            failures.failed(source(0));
        }
        for number in 1..=10_000 {
            failures.failed(source(number));
        }
        assert_eq!(failures.sources().len(), SOURCES);
        assert!(failures.penalty(source(0)).is_some());
    }

    #[test]
    fn nothing_is_counted_where_penalties_are_off() {
        let failures = Failures::new(0);
        for _ in 0..100 {
            assert!(!failures.failed(source(1)));
        }
        assert_eq!(failures.penalty(source(1)), None);
    }
}
