//! A gateway that will stop: agents are told, and none is taken any more.

use std::time::Duration;

use fairlead_wire::control::{Body, Control, Drain};

use super::Roster;

/// Agents that come back in a second. A handshake with a client certificate takes a gateway's core a quarter of a
/// millisecond, a registration several times that.
const BACK_PER_SECOND: u32 = 400;
/// Agents are spread over at most this: longer would be an outage of its own.
const SPREAD_CAP: Duration = Duration::from_secs(10);
/// A frame says at most a day.
const WITHIN_CAP: Duration = Duration::from_secs(86_400);

impl Roster {
    /// Tells every agent that its link ends within `within`, and when to come back after that, each its own moment so that
    /// they do not come as one. From now on no link is taken: an agent that came to a gateway that stops would be lost
    /// again.
    pub fn drain(&self, within: Duration) {
        // Only the first order counts, and only as "there was one".
        self.draining.store(true, std::sync::atomic::Ordering::Release);
        let links: Vec<_> = self.seats().links.all().cloned().collect();
        let count = u32::try_from(links.len()).unwrap_or(u32::MAX);
        let spread = (Duration::from_secs(1) * count / BACK_PER_SECOND).min(SPREAD_CAP);
        for link in links {
            let drain = Drain {
                reconnect_in_ms: millis(spread.mul_f64(rand::random::<f64>())),
                within_ms: millis(within.min(WITHIN_CAP)),
            };
            // One that does not read its control stream is told by the end of the link.
            drop(link.outbox.try_send(Control {
                body: Some(Body::Drain(drain)),
            }));
        }
    }

    /// Whether the gateway will stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(std::sync::atomic::Ordering::Acquire)
    }
}

/// Whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
