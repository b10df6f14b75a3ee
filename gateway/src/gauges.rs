//! Gauges read off the live rooms whenever somebody asks for the metrics. Listed in docs/metrics.md.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_runtime::metrics::Metrics;
use fairlead_runtime::transport::Kind;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::admission::Admission;
use crate::link::Roster;
use crate::session::Table;

/// Reads the gauges at the moment of the scrape, so that no room has to keep them right.
#[derive(Debug)]
struct LiveGauges {
    roster: Arc<Roster>,
    table: Arc<Table>,
    admission: Arc<Admission>,
}

/// Lets the gauges appear in `metrics`.
pub(crate) fn register(metrics: &Metrics, roster: &Arc<Roster>, table: &Arc<Table>, admission: &Arc<Admission>) {
    let gauges = LiveGauges {
        roster: Arc::clone(roster),
        table: Arc::clone(table),
        admission: Arc::clone(admission),
    };
    metrics.register(|registry| registry.register_collector(Box::new(gauges)));
}

impl Collector for LiveGauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let mut transports = BTreeMap::from([Kind::Quic, Kind::WebSocket].map(|kind| (kind.name(), 0_usize)));
        for agent in self.roster.online() {
            *transports.entry(agent.transport).or_default() += 1;
        }
        family(
            &mut encoder,
            "fairlead_agents_connected",
            "Linked agents",
            "transport",
            transports.into_iter(),
        )?;
        let mut protocols: BTreeMap<&'static str, usize> =
            crate::endpoint::KINDS.iter().map(|kind| (kind.name, 0)).collect();
        for row in self.table.list() {
            *protocols.entry(row.protocol.as_str()).or_default() += 1;
        }
        family(
            &mut encoder,
            "fairlead_sessions_active",
            "Live sessions",
            "protocol",
            protocols.into_iter(),
        )?;
        let in_flight = ConstGauge::new(whole(self.admission.in_flight()));
        let text = "Peers that have not proved who they are";
        in_flight.encode(encoder.encode_descriptor("fairlead_handshakes_in_flight", text, None, MetricType::Gauge)?)
    }
}

fn family(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl Iterator<Item = (&'static str, usize)>,
) -> std::fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, count) in values {
        ConstGauge::new(whole(count)).encode(metric.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
