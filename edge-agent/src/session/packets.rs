//! MQTT at the customer's side: every act judged by the customer's rules, from the bytes themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fairlead_policy::MqttAct;
use fairlead_protocol::mqtt::answer::Reason as Code;
use fairlead_protocol::mqtt::guard::{Act, End, Flow, Guard, Limits};
use fairlead_runtime::relay::{Between, Bounds, Said};
use fairlead_wire::refusal::Reason;
use tokio::time::Instant;

use super::Services;
use super::records::rule_name;
use super::table::{Ending, Live};
use crate::service::{Refusal, packet};

/// How long the rest of a packet may take. The gateway sends whole ones.
const UNFINISHED: Duration = Duration::from_secs(60);
/// Refused acts of one session that get a line of their own in a minute.
const LINES: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// The gateway bounds the rate; here only what was begun is.
pub(super) const BOUNDS: Bounds = Bounds {
    unfinished: UNFINISHED,
    rate: 0,
};

/// Reads both directions of one session.
pub(super) struct Judged<'a> {
    guard: Guard,
    rules: Rules<'a>,
}

/// The customer's rules about one session.
struct Rules<'a> {
    services: &'a Services,
    live: &'a Live,
    lines: u32,
    since: Instant,
}

impl<'a> Judged<'a> {
    /// `None` where the agent has read no CONNECT, and reads nothing else.
    pub(super) fn new(services: &'a Services, live: &'a Live) -> Option<Self> {
        let hello = live.asked.mqtt.as_ref()?.hello.clone();
        let text = format!("fairlead: {} (session {})", Reason::Rule, live.asked.session);
        Some(Self {
            guard: Guard::new(hello, Limits::default(), text),
            rules: Rules {
                services,
                live,
                lines: 0,
                since: Instant::now(),
            },
        })
    }

    fn over(&self, end: End) {
        let reason = match end {
            End::Client(_) => Reason::Malformed,
            End::Limit(_, Code::NotAuthorized) => Reason::Rule,
            End::Limit(..) => Reason::Limit,
            End::Broker(_) => Reason::UpstreamFailed,
        };
        self.rules.live.lapse.cancel(Ending::with(reason, end.to_string()));
    }
}

impl Rules<'_> {
    fn allows(&mut self, act: &MqttAct) -> bool {
        let list = self.services.list();
        let Err(refusal) = list.admit_packet(&self.live.asked, act, self.services.clock.now()) else {
            return true;
        };
        if self.since.elapsed() >= MINUTE {
            (self.lines, self.since) = (0, Instant::now());
        }
        if self.lines < LINES {
            self.lines = self.lines.saturating_add(1);
            self.record(act, &refusal);
        }
        false
    }

    fn record(&self, act: &MqttAct, refusal: &Refusal) {
        let mut record = self.services.record("act.refuse", &self.live.asked);
        record.act = Some(act.action.into());
        record.decision = Some("deny".into());
        record.reason = Some(refusal.reason.name().into());
        record.rule = refusal.rule.as_ref().map(rule_name);
        record.fact("topic", act.topic.chars().take(256).collect::<String>());
        record.fact("qos", act.qos);
        record.fact("retain", act.retain);
        // A refusal stays one when it cannot be logged.
        self.services.append(&record).unwrap_or_default();
    }
}

impl Between for Judged<'_> {
    fn hear_caller(&mut self, bytes: &mut BytesMut, said: &mut Said) -> Option<()> {
        let mut flow = Flow::default();
        let rules = &mut self.rules;
        let mut judge = |act: Act<'_>| rules.allows(&packet(act));
        let ended = self.guard.from_client(bytes, &mut judge, &mut flow);
        if flow.regranted {
            let held: BTreeSet<MqttAct> = self.guard.granted().map(packet).collect();
            let Rules { services, live, .. } = &self.rules;
            live.hold(held);
            // A file that was read again meanwhile has either seen these, or is asked now.
            if let Err(refusal) = services.still(&services.list(), live) {
                live.lapse.cancel(Ending::withdrawn(refusal));
            }
        }
        said.to_upstream.append(&mut flow.to_broker);
        said.to_caller.append(&mut flow.to_client);
        said.leaves = flow.leaves;
        said.units = flow.packets;
        ended.map_err(|end| self.over(end)).ok()
    }

    fn hear_upstream(&mut self, bytes: Bytes, said: &mut Said) -> Option<()> {
        let mut flow = Flow::default();
        let ended = self.guard.from_broker(bytes, &mut flow);
        said.to_caller.append(&mut flow.to_client);
        ended.map_err(|end| self.over(end)).ok()
    }

    fn takes_more(&self) -> bool {
        self.guard.takes_more()
    }

    fn unfinished(&mut self) {
        self.over(End::Limit("a packet that was not finished", Code::KeepAlive));
    }
}
