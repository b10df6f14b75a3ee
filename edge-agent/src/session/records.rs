//! The lines of the customer's own audit. `caller` and `client_ip` in them are the gateway's word.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fairlead_policy::RuleRef;
use fairlead_runtime::audit::Record;
use fairlead_runtime::transport::Sender;
use fairlead_wire::open::{Explained, OpenAnswer};
use fairlead_wire::refusal::{Reason, Refused};

use super::answer::{NoOpen, answer};
use super::table::{Ending, Live};
use super::{SESSIONS, Services};
use crate::service::{Asked, Refusal};

/// Over this time refusals of a crowd are counted for one line.
const CROWD_LINE: Duration = Duration::from_secs(1);

impl Services {
    /// Refuses a session: the customer's line first, then the gateway's answer.
    pub(super) async fn refuse(&self, asked: &Asked, refusal: Refusal, to_caller: &mut Sender) {
        let record = self.record("session.refuse", asked);
        self.refuse_as(record, refusal, to_caller).await;
    }

    /// Refuses what could not be read as a session.
    pub(super) async fn refuse_unread(&self, unusable: NoOpen, to_caller: &mut Sender) {
        let NoOpen { refusal, open } = unusable;
        // No louder: the audit has it, and a peer that floods shall not fill the log.
        tracing::debug!(reason = %refusal.reason, "the gateway sent no usable Open");
        let mut record = Record::new("session.refuse");
        record.policy = Some(self.list().digest().to_owned());
        record.session = open.session_id().ok().map(|session| session.to_string());
        let shown = |text: &str| (!text.is_empty()).then(|| text.chars().take(256).collect::<String>());
        record.endpoint = shown(&open.endpoint_url);
        record.caller = open.caller.as_ref().and_then(|caller| shown(&caller.name));
        self.refuse_as(record, refusal, to_caller).await;
    }

    async fn refuse_as(&self, mut record: Record, refusal: Refusal, to_caller: &mut Sender) {
        let Refusal {
            reason,
            detail,
            rule,
            private,
        } = refusal;
        let told = OpenAnswer::refused(Refused::new(reason, &detail));
        let (name, detail) = private.map_or((reason.name(), detail), |private| *private);
        record.decision = Some("deny".into());
        record.reason = Some(name.into());
        record.rule = rule.as_ref().map(rule_name);
        if !detail.is_empty() {
            record.fact("detail", detail);
        }
        // A refusal stays one when it cannot be logged.
        self.append(&record).unwrap_or_default();
        answer(to_caller, told).await;
    }

    /// Waits while a crowd is turned away, then says how many there were.
    pub(super) async fn record_turned_away(&self) {
        let stopping = self.tasks.token();
        let _stopped = stopping.run_until_cancelled(tokio::time::sleep(CROWD_LINE)).await;
        for (reason, count) in self.crowd.take() {
            let mut record = Record::new("session.refuse");
            record.decision = Some("deny".into());
            record.reason = Some(reason.name().into());
            record.policy = Some(self.list().digest().to_owned());
            record.fact("count", count);
            if reason == Reason::Limit {
                record.fact("detail", format!("more than {SESSIONS} sessions, or too many at once"));
            }
            self.append(&record).unwrap_or_default();
        }
    }

    /// What the gateway asked about and was told.
    pub(super) fn record_question(&self, asked: &Asked, answered: &Explained) -> Result<(), ()> {
        let mut record = self.record("explain", asked);
        // There is no session, and will be none of this id.
        record.session = None;
        record.decision = Some(if answered.allowed { "allow" } else { "deny" }.into());
        record.reason = (!answered.reason.is_empty()).then(|| answered.reason.clone().into());
        record.rule =
            (!answered.rule.is_empty()).then(|| format!("{} ({}:{})", answered.rule, answered.file, answered.line));
        self.append(&record)
    }

    pub(super) fn record_permit(&self, live: &Live) -> Result<(), ()> {
        let asked = &live.asked;
        let mut record = self.record("session.permit", asked);
        record.decision = Some("allow".into());
        record.act = (!asked.acts.is_empty()).then(|| asked.acts.iter().cloned().collect::<Vec<_>>().join(",").into());
        if let Some(settled) = live.settled.get() {
            record.rule = settled.rule.as_ref().map(rule_name);
            record.fact("upstream", settled.upstream.to_string());
            if !settled.addresses.is_empty() {
                let addresses: Vec<String> = settled.addresses.iter().map(ToString::to_string).collect();
                record.fact("addresses", addresses);
            }
            if let Some(credential) = &settled.credential {
                record.fact(user_fact(asked), credential.user.as_str());
            }
        }
        self.append(&record)
    }

    pub(super) fn record_end(&self, live: &Live, ending: Option<Ending>) {
        let mut record = self.record("session.end", &live.asked);
        record.reason = Some(ending.as_ref().map_or("finished", |ending| ending.name).into());
        if let Some(ending) = ending {
            record.rule = ending.rule.as_ref().map(rule_name);
            if !ending.detail.is_empty() {
                record.fact("detail", ending.detail);
            }
        }
        if let Some(credential) = live.settled.get().and_then(|settled| settled.credential.as_ref()) {
            record.fact(user_fact(&live.asked), credential.user.as_str());
        }
        if let Some(by) = live.logged_in.get() {
            record.fact("login", *by);
        }
        if live.asked.postgres.is_some() {
            record.fact("statements", live.statements.load(Ordering::Relaxed));
        }
        if let Ok(lasted) = self.clock.now().duration_since(live.asked.at) {
            record.fact("duration_ms", u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX));
        }
        record.bytes_in = Some(live.counters.to_upstream());
        record.bytes_out = Some(live.counters.to_caller());
        // The session is over; the failure to log it is in the agent's log.
        self.append(&record).unwrap_or_default();
    }

    /// The fields every event of a session has.
    pub(crate) fn record(&self, event: &'static str, asked: &Asked) -> Record {
        let mut record = Record::new(event);
        record.session = Some(asked.session.to_string());
        record.caller = Some(asked.caller.name.clone());
        record.client_ip = Some(asked.client_ip.to_string());
        record.site = Some(asked.endpoint.site.to_string());
        record.endpoint = Some(asked.endpoint.to_string());
        record.policy = Some(self.list().digest().to_owned());
        if let Some(startup) = &asked.postgres {
            record.fact("user", startup.user());
            record.fact("database", startup.database());
            let application = startup.parameter("application_name");
            if !application.is_empty() {
                record.fact("application_name", application);
            }
        }
        if let Some(said) = &asked.mqtt {
            let shown = |text: &str| text.chars().take(256).collect::<String>();
            record.fact("client_id", shown(&said.hello.client_id));
            if let Some(username) = &said.hello.username {
                record.fact("username", shown(username));
            }
        }
        record
    }

    pub(crate) fn append(&self, record: &Record) -> Result<(), ()> {
        self.audit
            .append(record)
            .map(drop)
            .map_err(|error| tracing::error!(%error, "audit line not written"))
    }
}

/// What the audit calls the user that the agent logs in as.
fn user_fact(asked: &Asked) -> &'static str {
    if asked.mqtt.is_some() {
        "broker_user"
    } else {
        "database_user"
    }
}

/// A rule as the audit names it.
pub(crate) fn rule_name(rule: &RuleRef) -> String {
    format!("{} ({}:{})", rule.name, rule.file, rule.line)
}
