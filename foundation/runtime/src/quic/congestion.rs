//! How much may be under way: CUBIC (RFC 9438, quinn's), which is not told of losses that no congestion explains.
//!
//! A link is one connection for all of its sessions. On a radio path that loses one packet in a hundred for reasons of its
//! own, CUBIC takes each loss for a full queue, and the whole link goes as slowly as one TCP flow. A queue that fills shows in
//! the round trip before it overflows: a loss while the round trip is near its shortest is the path's own, unless so much is
//! lost that something with a short queue must be throwing away. A mark by ECN, a lost round trip and all else is CUBIC's.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

/// A queue is there when the round trip is longer than the shortest of late by a third of that, and by this at least. CUBIC
/// gives up three tenths at a congestion: a queue that never empties still moves the round trip by three sevenths.
const QUEUE_AT_LEAST: Duration = Duration::from_millis(2);
/// What the shortest round trip of late is taken over, up to twice this. Paths change under a connection that lives for
/// weeks; CUBIC comes back to where it was within that on any but the longest of them.
const OF_LATE: Duration = Duration::from_secs(30);
/// More than one byte of so many lost is congestion, whatever the round trip says.
const LOST_ONE_OF: u64 = 10;
/// What the share of losses is taken over, in bytes: where one packet in twenty is lost, a tenth of so many is a rare mishap
/// (once in 500 samples; of half as many it would be once in 50).
const SAMPLE: u64 = 512 * 1024;
/// Less than this says nothing about the share.
const SAMPLE_AT_LEAST: u64 = 32 * 1024;

/// Makes [`Patient`] controllers.
#[derive(Debug, Default)]
pub(super) struct PatientFactory {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for PatientFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Patient {
            cubic: Cubic::new(Arc::clone(&self.cubic), now, current_mtu),
            losses: Losses::default(),
            shortest: Shortest::default(),
            queued: false,
        })
    }
}

/// CUBIC behind a judgement of losses.
#[derive(Clone, Debug)]
struct Patient {
    cubic: Cubic,
    losses: Losses,
    shortest: Shortest,
    /// Whether the last acknowledgement found a queue.
    queued: bool,
}

impl Controller for Patient {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.losses.delivered(bytes);
        // Smoothed: one packet that took a shorter way, or overtook others, is not the path.
        let round_trip = rtt.get();
        self.queued = shows_queue(round_trip, self.shortest.note(now, round_trip));
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.losses.lost(lost_bytes);
        if lost_bytes == 0 || is_persistent || self.queued || self.losses.are_many() {
            self.cubic.on_congestion_event(now, sent, is_persistent, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

fn shows_queue(now: Duration, shortest: Duration) -> bool {
    now.saturating_sub(shortest) > (shortest / 3).max(QUEUE_AT_LEAST)
}

/// The shortest smoothed round trip of late: of this span of [`OF_LATE`] and of the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Shortest {
    since: Option<Instant>,
    this: Option<Duration>,
    before: Option<Duration>,
}

impl Shortest {
    /// Counts one in and says which is the shortest.
    fn note(&mut self, now: Instant, round_trip: Duration) -> Duration {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= OF_LATE {
            self.since = Some(now);
            self.before = self.this.take();
        }
        let this = self.this.map_or(round_trip, |this| this.min(round_trip));
        self.this = Some(this);
        self.before.map_or(this, |before| before.min(this))
    }
}

/// The share of bytes lost of late.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    delivered: u64,
    lost: u64,
}

impl Losses {
    fn delivered(&mut self, bytes: u64) {
        self.delivered = self.delivered.saturating_add(bytes);
        self.age();
    }

    fn lost(&mut self, bytes: u64) {
        self.lost = self.lost.saturating_add(bytes);
        self.age();
    }

    fn total(&self) -> u64 {
        self.delivered.saturating_add(self.lost)
    }

    /// What was longer ago counts less and less.
    fn age(&mut self) {
        if self.total() > SAMPLE {
            self.delivered /= 2;
            self.lost /= 2;
        }
    }

    fn are_many(&self) -> bool {
        self.total() >= SAMPLE_AT_LEAST && self.lost > self.total() / LOST_ONE_OF
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patient() -> Patient {
        Patient {
            cubic: Cubic::new(Arc::default(), Instant::now(), 1200),
            losses: Losses::default(),
            shortest: Shortest::default(),
            queued: false,
        }
    }

    /// Loses one packet in `of` of a megabyte; whether the window has shrunk.
    fn shrinks(patient: &mut Patient, of: u64) -> bool {
        let before = patient.window();
        for packet in 1..=1000 {
            patient.losses.delivered(1200);
            if packet % of == 0 {
                // Each after its own round trip: within one, losses count once.
                let now = Instant::now() + Duration::from_secs(packet);
                patient.on_congestion_event(now, now, false, 1200);
            }
        }
        patient.window() < before
    }

    #[test]
    fn losses_without_a_queue_do_not_slow_a_link_until_they_are_a_tenth() {
        assert!(!shrinks(&mut patient(), 100));
        assert!(!shrinks(&mut patient(), 20));
        assert!(shrinks(&mut patient(), 5));
    }

    #[test]
    fn a_loss_with_a_queue_a_mark_and_a_lost_round_trip_do() {
        let queued = Patient {
            queued: true,
            ..patient()
        };
        assert!(shrinks(&mut queued.clone(), 100));
        for (persistent, lost_bytes) in [(false, 0), (true, 1200)] {
            let mut patient = patient();
            let before = patient.window();
            let now = Instant::now();
            patient.on_congestion_event(now, now, persistent, lost_bytes);
            assert!(patient.window() < before);
        }
    }

    #[test]
    fn a_queue_shows_in_the_round_trip() {
        let ms = Duration::from_millis;
        assert!(!shows_queue(ms(53), ms(40)));
        assert!(shows_queue(ms(54), ms(40)));
        assert!(!shows_queue(Duration::from_micros(900), Duration::from_micros(100)));
    }

    #[test]
    fn the_shortest_round_trip_is_of_late() {
        let (ms, begin) = (Duration::from_millis, Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut shortest = Shortest::default();
        assert_eq!(shortest.note(at(0), ms(20)), ms(20));
        assert_eq!(shortest.note(at(29), ms(60)), ms(20));
        // The path has become longer for good: believed after two spans at the latest, and a shorter one at once.
        assert_eq!(shortest.note(at(31), ms(60)), ms(20));
        assert_eq!(shortest.note(at(62), ms(60)), ms(60));
        assert_eq!(shortest.note(at(63), ms(30)), ms(30));
    }

    #[test]
    fn a_queue_that_never_empties_is_seen_whatever_the_shortest_was() {
        // A bottleneck whose queue CUBIC fills and, by its cut, empties in part: what is under way only moves between the two.
        let (full, begin) = (Duration::from_millis(400), Instant::now());
        let (mut shortest, mut round_trip) = (Shortest::default(), full);
        for step in 0..600 {
            let now = begin + Duration::from_millis(500 * step);
            let queued = shows_queue(round_trip, shortest.note(now, round_trip));
            if round_trip < full {
                round_trip = (round_trip + Duration::from_millis(10)).min(full);
                continue;
            }
            assert!(queued || step == 0, "no queue is seen after {step} steps");
            round_trip = full * 7 / 10;
        }
    }
}
