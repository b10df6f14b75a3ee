//! Answers questions about the running agent, and does what its customer orders.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fairlead_runtime::audit::Record;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;
use tokio::sync::watch;

use super::api::{Answer, LinkShown, Question, SessionShown, StatusShown};
use crate::link::{LinkStatus, Status};
use crate::reload::Reloader;
use crate::session::{Ending, Live, Services, rule_name};

/// What questions are about.
pub(crate) struct Desk {
    pub(crate) services: Arc<Services>,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) link: watch::Receiver<Status>,
    pub(crate) principal: String,
    pub(crate) tasks: TaskGroup,
}

impl Desk {
    /// Answers `question` of the user `uid`.
    pub(super) async fn answer(self: &Arc<Self>, question: Question, uid: u32) -> Answer {
        match question {
            Question::Status => Answer::Status(Box::new(self.status())),
            Question::Sessions => Answer::Sessions(self.services.live.list().iter().map(|live| shown(live)).collect()),
            Question::Cut { session } => self.cut(&session, uid),
            Question::Pause | Question::Resume => {
                let desk = Arc::clone(self);
                // The mark goes to the disk; sessions do not wait for it.
                let work = move || match question {
                    Question::Pause => desk.pause(uid),
                    _ => desk.resume(uid),
                };
                let done = self.tasks.blocking("pause", work).await;
                done.unwrap_or_else(|error| Answer::Refused(error.to_string()))
            }
        }
    }

    fn status(&self) -> StatusShown {
        let link = self.link.borrow().clone();
        StatusShown {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            principal: self.principal.clone(),
            file: self.reloader.file().display().to_string(),
            sha256: self.services.list().digest().to_owned(),
            after_restart: self.reloader.after_restart().into_iter().map(str::to_owned).collect(),
            paused: self.services.pause.state(),
            linked: link.up,
            links: link.links.values().map(shown_link).collect(),
            errors: link
                .errors
                .iter()
                .map(|(at, why)| (seconds(*at), why.clone()))
                .collect(),
            last_error: link.last_error,
            accepted: link.accepted,
            refused: link.refused,
            sessions: self.services.live.list().len(),
            audit_seq: self.services.audit.head().seq,
        }
    }

    fn cut(&self, session: &str, uid: u32) -> Answer {
        let Ok(id) = session.parse::<SessionId>() else {
            return Answer::Refused(format!(
                "`{session}` is no session's id; `fairlead-agent sessions` lists them"
            ));
        };
        let Some(live) = self.services.live.find(&id) else {
            return Answer::Refused(format!("no session {session} lives here"));
        };
        let mut record = self.services.record("session.cut", &live.asked);
        record.fact("uid", uid);
        let warning = self.note(&record);
        let ended = usize::from(live.lapse.cancel(Ending::of(Reason::Killed)));
        Answer::Done { ended, warning }
    }

    fn pause(&self, uid: u32) -> Answer {
        let mut warning = self.note(&order("agent.pause", uid));
        if let Err(error) = self.services.pause.turn_on(uid, SystemTime::now()) {
            warning = format!("the pause holds until the agent ends, and no longer: {error}");
        }
        let live = self.services.live.list();
        let ended = live.iter().filter(|live| live.lapse.cancel(Ending::paused())).count();
        Answer::Done { ended, warning }
    }

    fn resume(&self, uid: u32) -> Answer {
        // This one lets more happen, and so not without its line.
        if self.services.append(&order("agent.resume", uid)).is_err() {
            return Answer::Refused("the agent cannot write its audit log, and stays paused".into());
        }
        match self.services.pause.turn_off() {
            Ok(()) => Answer::Done {
                ended: 0,
                warning: String::new(),
            },
            Err(error) => Answer::Refused(format!("the mark of the pause cannot be removed: {error}")),
        }
    }

    /// Writes the line of an order that only takes away, which is carried out in any case.
    fn note(&self, record: &Record) -> String {
        match self.services.append(record) {
            Ok(()) => String::new(),
            Err(()) => "the agent could not write its audit log".into(),
        }
    }
}

fn order(event: &'static str, uid: u32) -> Record {
    let mut record = Record::new(event);
    record.fact("uid", uid);
    record
}

fn shown_link(link: &LinkStatus) -> LinkShown {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    LinkShown {
        gateway: link.connection.remote_address().to_string(),
        transport: link.connection.kind().name().to_owned(),
        since: seconds(link.since),
        rtt_us: link.connection.rtt().map(micros),
        packets: link.connection.lost(),
        draining: link.draining,
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn shown(live: &Live) -> SessionShown {
    let settled = live.settled.get();
    let addresses = settled.map(|settled| settled.addresses.as_slice()).unwrap_or_default();
    SessionShown {
        session: live.asked.session.to_string(),
        endpoint: live.asked.endpoint.to_string(),
        caller: live.asked.caller.name.clone(),
        client_ip: live.asked.client_ip.to_string(),
        since: seconds(live.asked.at),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        acts: live.acts().into_iter().map(|act| act.action).collect(),
        rule: settled
            .and_then(|settled| settled.rule.as_ref())
            .map(rule_name)
            .unwrap_or_default(),
        bytes_in: live.counters.to_upstream(),
        bytes_out: live.counters.to_caller(),
    }
}
