//! The guard of one connection with the gate behind it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fairlead_policy::MqttAct;
use fairlead_protocol::mqtt::answer::Reason as Code;
use fairlead_protocol::mqtt::guard::{Act, End, Flow, Guard};
use fairlead_runtime::clock::Clock;
use fairlead_runtime::relay::{Between, Said};
use fairlead_runtime::stop::Lapse;
use fairlead_wire::refusal::Reason;

use super::code_of;
use crate::access::Acts;
use crate::session::Carried;

/// Reads both directions of one session.
pub(in crate::endpoint) struct Judged {
    guard: Guard,
    acts: Acts,
    clock: Arc<dyn Clock>,
    lapse: Lapse<Reason>,
    /// Why the session is over, where its own packets say so.
    ended: Option<End>,
}

impl Judged {
    pub(super) fn new(guard: Guard, acts: Acts, clock: Arc<dyn Clock>, lapse: Lapse<Reason>) -> Self {
        Self {
            guard,
            acts,
            clock,
            lapse,
            ended: None,
        }
    }

    /// The last packet to the client, where there is one.
    pub(super) fn farewell(&self, carried: &Carried) -> Option<Vec<u8>> {
        let (code, text) = match (&self.ended, carried.reason) {
            (Some(end), _) => {
                let session = carried.denial.session;
                (end.reason(), format!("fairlead: {end} (session {session})"))
            }
            (None, Some(reason)) => (code_of(reason), carried.denial.to_string()),
            (None, None) => return None,
        };
        self.guard.farewell(code, &text)
    }

    fn over(&mut self, end: End) {
        let reason = match end {
            End::Client(_) => Reason::Malformed,
            End::Limit(_, Code::NotAuthorized) => Reason::Denied,
            End::Limit(..) => Reason::Limit,
            End::Broker(_) => Reason::UpstreamFailed,
        };
        tracing::debug!(%end, "an MQTT session is over");
        self.ended.get_or_insert(end);
        self.lapse.cancel(reason);
    }
}

/// An act in the policy's words.
pub(super) fn named(act: Act<'_>) -> MqttAct {
    match act {
        Act::Publish { topic, qos, retain } => MqttAct {
            action: "publish",
            topic: topic.to_owned(),
            qos: qos.number(),
            retain,
        },
        Act::Subscribe { filter, qos } => MqttAct {
            action: "subscribe",
            topic: filter.to_owned(),
            qos: qos.number(),
            retain: false,
        },
    }
}

impl Between for Judged {
    fn hear_caller(&mut self, bytes: &mut BytesMut, said: &mut Said) -> Option<()> {
        let (mut flow, now) = (Flow::default(), self.clock.now());
        let acts = &mut self.acts;
        let mut judge = |act: Act<'_>| acts.allows(&named(act), now);
        let ended = self.guard.from_client(bytes, &mut judge, &mut flow);
        if flow.regranted {
            // Before the packet leaves: what the broker grants is held from the first message on.
            self.acts.hold(self.guard.granted().map(named).collect(), now);
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
