//! Counters of what the gate decided and how sessions ended. Listed in docs/metrics.md; labels from closed sets.

use fairlead_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// The gate's counters.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    pub(super) denied: Family<ReasonLabel, Counter>,
    pub(super) refused: Family<ReasonLabel, Counter>,
    pub(super) acts_refused: Family<ActLabels, Counter>,
    pub(super) shadow: Family<EffectLabel, Counter>,
    pub(super) sessions: Family<OutcomeLabels, Counter>,
    pub(super) bytes: Family<DirectionLabel, Counter>,
    /// Links turned away because another machine with the same key serves.
    pub identity_conflicts: Counter,
    reviewed: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ActLabels {
    pub(super) act: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EffectLabel {
    pub(super) effect: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) protocol: &'static str,
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DirectionLabel {
    pub(super) direction: &'static str,
}

impl Meters {
    /// Counters that appear in `metrics`.
    pub fn new(metrics: &Metrics) -> Self {
        let meters = Self::default();
        metrics.register(|registry| {
            registry.register("fairlead_denied", "Requests the gate denied", meters.denied.clone());
            registry.register(
                "fairlead_strangers_refused",
                "Peers that did not prove who they are",
                meters.refused.clone(),
            );
            registry.register(
                "fairlead_acts_refused",
                "Acts refused inside sessions that go on",
                meters.acts_refused.clone(),
            );
            registry.register(
                "fairlead_shadow_matches",
                "Matches of rules that are not enforced",
                meters.shadow.clone(),
            );
            registry.register("fairlead_sessions", "Sessions that have ended", meters.sessions.clone());
            registry.register(
                "fairlead_session_bytes",
                "Bytes carried in ended sessions",
                meters.bytes.clone(),
            );
            registry.register(
                "fairlead_identity_conflicts",
                "Links turned away because another machine has the same agent's key",
                meters.identity_conflicts.clone(),
            );
            registry.register(
                "fairlead_session_reviews",
                "Live sessions that were decided again",
                meters.reviewed.clone(),
            );
        });
        meters
    }

    /// Counts live sessions that were decided again.
    pub fn count_reviewed(&self, sessions: usize) {
        self.reviewed.inc_by(u64::try_from(sessions).unwrap_or(u64::MAX));
    }
}
