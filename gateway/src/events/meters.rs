//! Counters of the events that were told. Listed in docs/metrics.md.

use fairlead_runtime::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;

/// The counters.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    pub(super) told: Counter,
    pub(super) left_out: Counter,
}

impl Meters {
    /// Counters that appear in `metrics`.
    pub fn new(metrics: &Metrics) -> Self {
        let meters = Self::default();
        metrics.register(|registry| {
            registry.register(
                "fairlead_events_told",
                "Events handed to a broker of MQTT",
                meters.told.clone(),
            );
            registry.register(
                "fairlead_events_left_out",
                "Events left out because too many waited for a broker",
                meters.left_out.clone(),
            );
        });
        meters
    }
}
