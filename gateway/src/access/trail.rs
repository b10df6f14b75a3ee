//! The gate's audit lines. The schema is PRODUCT's; this file decides which fields each event carries.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fairlead_policy::{Allowed, Denied, Effect, MqttAct, RuleRef, ShadowMatch};
use fairlead_runtime::audit::{AuditLog, Record};
use fairlead_runtime::relay::Counters;
use fairlead_wire::refusal::Reason;

use super::caller::{Caller, CallerKind};
use super::gate::{AccessRequest, Spoken, Target};
use super::meters::{ActLabels, DirectionLabel, EffectLabel, Meters, OutcomeLabels, ReasonLabel};
use super::permit::{Given, Permit};
use crate::admission::Notes;

/// Rules with `enforce: false` that one line names; all are counted.
const MAX_SHADOW_NAMES: usize = 8;
/// Characters of what a caller's protocol says that go into a line.
const MAX_FACT_CHARS: usize = 256;

/// The audit line could not be written; the caller must not proceed.
#[derive(Debug, thiserror::Error)]
#[error("the audit log cannot be written; see the gateway's log")]
pub struct AuditUnavailable;

/// Hears what was written. Must not wait.
pub trait Listens: Send + Sync + std::fmt::Debug + 'static {
    /// A record that is in the log.
    fn hear(&self, record: &Record);
}

/// Writes the gate's events to the audit log.
#[derive(Clone, Debug)]
pub struct Trail {
    log: Arc<AuditLog>,
    meters: Meters,
    notes: Arc<Notes>,
    listeners: Vec<Arc<dyn Listens>>,
}

impl Trail {
    /// A trail that ends in `log`, and counts in `meters`.
    pub fn new(log: Arc<AuditLog>, meters: Meters) -> Self {
        Self {
            log,
            meters,
            notes: Arc::new(Notes::new()),
            listeners: Vec::new(),
        }
    }

    /// The same trail, heard by these.
    #[must_use]
    pub fn heard_by(self, listeners: Vec<Arc<dyn Listens>>) -> Self {
        Self { listeners, ..self }
    }

    /// The counters this trail keeps.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Appends any other event (tokens, enrolment, links).
    ///
    /// # Errors
    /// [`AuditUnavailable`] when the line was not written.
    pub fn event(&self, record: &Record) -> Result<(), AuditUnavailable> {
        self.log.append(record).map(drop).map_err(|error| {
            tracing::error!(%error, event = %record.event, "audit line not written");
            AuditUnavailable
        })?;
        self.listeners.iter().for_each(|listener| listener.hear(record));
        Ok(())
    }

    /// Counts the refusal of a peer that proved nothing, and appends its line unless strangers have had theirs for the
    /// moment ([`Notes`]); the next line then says how many were left out. Nothing depends on such a line: whoever is
    /// refused gets nothing either way.
    pub fn stranger(&self, mut record: Record, client: IpAddr, why: &'static str) {
        self.meters.refused.get_or_create(&ReasonLabel { reason: why }).inc();
        let Some(left_out) = self.notes.take(client) else {
            return;
        };
        record.decision = Some("deny".into());
        record.reason = Some(why.into());
        if left_out > 0 {
            record.fact("left_out", left_out);
        }
        let _unlogged = self.event(&record);
    }

    pub(super) fn permit(
        &self,
        request: &AccessRequest,
        target: &Target,
        allowed: &Allowed,
        shadow: &[ShadowMatch],
        policy: &str,
    ) -> Result<(), AuditUnavailable> {
        let mut record = asked(request, "session.permit");
        self.note_shadow(&mut record, shadow);
        placed(&mut record, target);
        record.act =
            (!allowed.acts.is_empty()).then(|| allowed.acts.iter().cloned().collect::<Vec<_>>().join(",").into());
        record.decision = Some("allow".into());
        record.rule = Some(rule_name(&allowed.rule));
        record.policy = Some(policy.to_owned());
        self.event(&record)
    }

    pub(super) fn refuse(
        &self,
        request: &AccessRequest,
        denied: &Denied,
        reason: &'static str,
        shadow: &[ShadowMatch],
        policy: &str,
    ) -> Result<(), AuditUnavailable> {
        let mut record = asked(request, "session.refuse");
        self.note_shadow(&mut record, shadow);
        match &request.target {
            Some(target) => placed(&mut record, target),
            None => record.endpoint = Some(request.asked.clone()),
        }
        record.decision = Some("deny".into());
        record.rule = denied.rule.as_ref().map(rule_name);
        record.policy = Some(policy.to_owned());
        record.reason = Some(reason.into());
        self.meters.denied.get_or_create(&ReasonLabel { reason }).inc();
        self.event(&record)
    }

    /// Counts an act that was refused inside a session that goes on; with the digest of the policy also its line.
    pub(super) fn refuse_act(
        &self,
        given: &Given,
        act: &MqttAct,
        denied: &Denied,
        policy: Option<String>,
    ) -> Result<(), AuditUnavailable> {
        let reason = denied.reason.as_str();
        let labels = ActLabels {
            act: act.action,
            reason,
        };
        self.meters.acts_refused.get_or_create(&labels).inc();
        let Some(policy) = policy else { return Ok(()) };
        let mut record = Record::new("act.refuse");
        record.session = Some(given.session.to_string());
        called(&mut record, &given.caller);
        record.client_ip = Some(given.client.ip().to_string());
        placed(&mut record, &given.target);
        record.act = Some(act.action.into());
        record.decision = Some("deny".into());
        record.reason = Some(reason.into());
        record.rule = denied.rule.as_ref().map(rule_name);
        record.policy = Some(policy);
        for (name, value) in of_act(act) {
            record.fact(name, value);
        }
        self.event(&record)
    }

    /// Counts the rules with `enforce: false` that matched, and names the first of them in the line.
    fn note_shadow(&self, record: &mut Record, shadow: &[ShadowMatch]) {
        for matched in shadow {
            let effect = effect_name(matched.effect);
            self.meters.shadow.get_or_create(&EffectLabel { effect }).inc();
        }
        if !shadow.is_empty() {
            let named = shadow.iter().take(MAX_SHADOW_NAMES);
            let named = named.map(|matched| format!("{}: {}", effect_name(matched.effect), rule_name(&matched.rule)));
            record.fact("shadow", named.collect::<Vec<_>>());
        }
    }

    /// Somebody with the key of a live session has cancelled what it does; before the agent is asked to.
    ///
    /// # Errors
    /// [`AuditUnavailable`] when the line was not written; then nothing may be cancelled.
    pub fn cancel(&self, permit: &Permit, client: SocketAddr) -> Result<(), AuditUnavailable> {
        let mut record = Record::new("session.cancel");
        record.session = Some(permit.session().to_string());
        called(&mut record, permit.caller());
        record.client_ip = Some(client.ip().to_string());
        placed(&mut record, permit.target());
        record.decision = Some("allow".into());
        record.rule = Some(rule_name(permit.rule()));
        self.event(&record)
    }

    /// A routing token was made for a caller who may reach this endpoint.
    ///
    /// # Errors
    /// [`AuditUnavailable`] when the line was not written; then nobody may be given it.
    pub fn route(&self, caller: &Caller, target: &Target, client: SocketAddr) -> Result<(), AuditUnavailable> {
        let mut record = Record::new("route.issue");
        called(&mut record, caller);
        record.client_ip = Some(client.ip().to_string());
        placed(&mut record, target);
        record.decision = Some("allow".into());
        self.event(&record)
    }

    /// The end of a permitted session. `detail` is the agent's word, for example why the upstream failed.
    ///
    /// # Errors
    /// [`AuditUnavailable`] when the line was not written.
    pub fn end(
        &self,
        permit: &Permit,
        reason: Option<Reason>,
        detail: &str,
        bytes: &Counters,
    ) -> Result<(), AuditUnavailable> {
        let outcome = reason.map_or("finished", Reason::name);
        let protocol = permit.endpoint().protocol.as_str();
        self.meters
            .sessions
            .get_or_create(&OutcomeLabels { protocol, outcome })
            .inc();
        self.meters
            .bytes
            .get_or_create(&DirectionLabel { direction: "in" })
            .inc_by(bytes.to_upstream());
        self.meters
            .bytes
            .get_or_create(&DirectionLabel { direction: "out" })
            .inc_by(bytes.to_caller());
        let mut record = Record::new("session.end");
        record.session = Some(permit.session().to_string());
        called(&mut record, permit.caller());
        record.client_ip = Some(permit.client().ip().to_string());
        placed(&mut record, permit.target());
        record.reason = Some(outcome.into());
        told_by_protocol(&mut record, &permit.given().spoken);
        if !detail.is_empty() {
            record.fact("detail", detail);
        }
        if let Some(lost) = permit.given().lost() {
            record.rule = lost.rule.as_ref().map(rule_name);
            record.policy = Some(lost.policy.clone());
            record.fact("decided", lost.why);
        }
        if let Ok(lasted) = permit.started().elapsed() {
            record.fact("duration_ms", u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX));
        }
        record.bytes_in = Some(bytes.to_upstream());
        record.bytes_out = Some(bytes.to_caller());
        self.event(&record)
    }
}

fn asked(request: &AccessRequest, event: &'static str) -> Record {
    let mut record = Record::new(event);
    record.session = Some(request.session.to_string());
    called(&mut record, &request.caller);
    record.client_ip = Some(request.client.ip().to_string());
    told_by_protocol(&mut record, &request.spoken);
    record
}

/// What the caller's protocol says, as far as the audit keeps it.
fn told_by_protocol(record: &mut Record, spoken: &Spoken) {
    let mut facts: Vec<(&'static str, &str)> = Vec::new();
    if let Some(said) = &spoken.postgres {
        facts.extend([
            ("user", said.user.as_str()),
            ("database", &said.database),
            ("application_name", &said.application_name),
        ]);
    }
    if let Some(said) = &spoken.mqtt {
        facts.extend([("client_id", said.client_id.as_str()), ("username", &said.username)]);
        facts.extend(spoken.will.iter().map(|will| ("will", will.topic.as_str())));
    }
    for (name, text) in facts.into_iter().filter(|(_, text)| !text.is_empty()) {
        record.fact(name, text.chars().take(MAX_FACT_CHARS).collect::<String>());
    }
}

fn of_act(act: &MqttAct) -> [(&'static str, serde_json::Value); 3] {
    let topic: String = act.topic.chars().take(MAX_FACT_CHARS).collect();
    [
        ("topic", topic.into()),
        ("qos", act.qos.into()),
        ("retain", act.retain.into()),
    ]
}

/// Names the caller; of a workload it is said, so that a name means one caller in the whole log.
fn called(record: &mut Record, caller: &Caller) {
    record.caller = Some(caller.name.to_string());
    if caller.kind != CallerKind::User {
        record.fact("caller_kind", caller.kind.as_str());
    }
}

fn placed(record: &mut Record, target: &Target) {
    record.site = Some(target.site.to_string());
    record.agent = Some(target.agent.to_string());
    record.endpoint = Some(target.endpoint.to_string());
}

fn effect_name(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }
}

/// A rule as the audit names it.
fn rule_name(rule: &RuleRef) -> String {
    format!("{} ({}:{})", rule.name, rule.file, rule.line)
}
