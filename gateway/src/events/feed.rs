//! From the audit into the queue of one broker.

use fairlead_runtime::audit::Record;
use tokio::sync::mpsc;

use super::meters::Meters;
use super::said::Said;
use crate::access::Listens;

/// Where events are put: never waits.
#[derive(Debug)]
pub(super) struct Feed {
    queue: mpsc::Sender<Said>,
    /// With its slash.
    own_topics: String,
    meters: Meters,
}

impl Feed {
    pub(super) fn new(queue: mpsc::Sender<Said>, prefix: &str, meters: Meters) -> Self {
        Self {
            queue,
            own_topics: format!("{prefix}/"),
            meters,
        }
    }

    /// Whether somebody was refused one of the very topics that events go to. Where the broker stands behind this gateway that
    /// may be the gateway's own event, and telling it would be refused again, without end.
    fn is_about_events(&self, record: &Record) -> bool {
        let topic = record.facts.as_ref().and_then(|facts| facts.get("topic")?.as_str());
        record.event == "act.refuse" && topic.is_some_and(|topic| topic.starts_with(&self.own_topics))
    }
}

impl Listens for Feed {
    fn hear(&self, record: &Record) {
        if let Some(said) = Said::of(record)
            && !self.is_about_events(record)
            && self.queue.try_send(said).is_err()
        {
            self.meters.left_out.inc();
        }
    }
}
