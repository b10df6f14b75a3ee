//! One session at the agent: read what is asked, decide by the customer's file, write the audit line, dial, carry bytes.
//!
//! A session lives as long as its reason: [`Services::decide_again`] asks the file again for every live one, and whoever
//! ends one (`cut`, `pause`, a limit) gives the reason that both audits show.

mod again;
mod answer;
mod cancel;
mod carry;
mod crowd;
mod packets;
mod records;
mod statements;
mod table;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fairlead_identity::name::Protocol;
use fairlead_runtime::audit::AuditLog;
use fairlead_runtime::clock::Clock;
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_runtime::transport::{Receiver, Sender};
use fairlead_wire::open::OpenAnswer;
use fairlead_wire::refusal::{Reason, Refused};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::builtin::Builtin;
use crate::config::Upstream;
use crate::link::{GatewayStream, InUse, Sessions};
use crate::pause::Pause;
use crate::service::{self, Admission, AllowList, Asked, Neighbourhood, Refusal, Resolver};
use crate::statement_log::{StatementLog, StatementLogs};

pub(crate) use again::watch_time;
pub(crate) use answer::withdrawn;
pub(crate) use crowd::Crowd;
pub(crate) use records::rule_name;
pub(crate) use table::{Ending, Live, Table};

use table::{Seat, Settled};

use answer::{NoOpen, answer, read_connect, read_open, read_startup, turn_away};

/// `Open` must be complete this soon after its stream began.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Sessions at a time; the link lets the gateway have as many streams open.
const SESSIONS: u32 = 1024;

/// Serves the sessions that the gateway opens.
pub(crate) struct Services {
    /// The file in force; replaced whole.
    pub(crate) list: Mutex<Arc<AllowList>>,
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) near: Neighbourhood,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) builtin: Option<Builtin>,
    pub(crate) live: Arc<Table>,
    pub(crate) pause: Pause,
    pub(crate) crowd: Crowd,
    /// Told when a session to an SSH server of the customer's begins.
    pub(crate) ssh_used: Arc<Notify>,
    pub(crate) statement_logs: StatementLogs,
    /// The agent stops: those that run may finish, and no further one begins.
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskGroup,
}

/// A session that the customer's file permits, and that is in the audit.
struct Permitted {
    seat: Seat,
    admission: Admission,
    from_caller: Receiver,
    to_caller: Sender,
    in_use: InUse,
}

impl Sessions for Services {
    fn at_once(&self) -> u32 {
        SESSIONS
    }

    fn begin(self: Arc<Self>, stream: GatewayStream) {
        if self.stopping.is_cancelled() || self.tasks.token().is_cancelled() {
            return self.turn_away(stream, Reason::AgentStopping);
        }
        if self.tasks.len() >= usize::try_from(SESSIONS).unwrap_or(usize::MAX) || !self.crowd.has_room() {
            return self.turn_away(stream, Reason::Limit);
        }
        let services = Arc::clone(&self);
        self.tasks.spawn("session", async move { services.serve(stream).await });
    }

    fn turn_away(self: Arc<Self>, stream: GatewayStream, reason: Reason) {
        turn_away(stream, reason);
        if self.crowd.count(reason) {
            // One line a second says how many there were: a peer that floods shall not fill the customer's disk.
            let services = Arc::clone(&self);
            self.tasks
                .spawn("turned-away", async move { services.record_turned_away().await });
        }
    }

    fn gateway_is_at(&self, address: std::net::IpAddr) {
        self.near.gateway_is_at(address);
    }

    fn trust_user_cas(&self, lines: &[String]) {
        if let Some(builtin) = &self.builtin {
            builtin.trust_user_cas(lines);
        }
    }

    fn present_host_certificate(&self, line: &str) {
        if let Some(builtin) = &self.builtin {
            builtin.present_host_certificate(line);
        }
    }
}

impl Services {
    /// The file in force.
    pub(crate) fn list(&self) -> Arc<AllowList> {
        Arc::clone(&self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn serve(self: Arc<Self>, stream: GatewayStream) {
        // On the heap: what only leads to a session shall not take room in it for as long as it lives.
        let Some(permitted) = Box::pin(self.hear(stream)).await else {
            return;
        };
        let Permitted {
            seat,
            admission,
            from_caller,
            to_caller,
            // Held to the end of the session: the link is needed as long.
            in_use: _in_use,
        } = permitted;
        self.crowd.permitted();
        let ending = self.carry_out(&seat.live, admission, from_caller, to_caller).await;
        self.record_end(&seat.live, ending);
    }

    /// Reads what a stream asks for, and answers it unless it is a session that is permitted.
    async fn hear(self: &Arc<Self>, stream: GatewayStream) -> Option<Permitted> {
        let GatewayStream {
            mut from_caller,
            mut to_caller,
            in_use,
        } = stream;
        let asked = match timeout(OPEN_LIMIT, read_open(&mut from_caller, self.clock.now())).await {
            Ok(Ok(asked)) => asked,
            Ok(Err(unusable)) => {
                self.refuse_unread(*unusable, &mut to_caller).await;
                return None;
            }
            Err(_) => {
                let refusal = Refusal::new(Reason::Malformed, "no Open within 10 s");
                self.refuse_unread(NoOpen::silent(refusal), &mut to_caller).await;
                return None;
            }
        };
        if let Some(about) = asked.question {
            if self.crowd.has_room_for_a_question() {
                self.answer_question(&asked, about, &mut to_caller).await;
            } else {
                let refusal = Refusal::new(Reason::Limit, "too many questions at once");
                self.refuse(&asked, refusal, &mut to_caller).await;
            }
            return None;
        }
        if let Some(key) = asked.cancel.clone() {
            self.cancel(&asked, &key, &mut to_caller).await;
            return None;
        }
        match self.decide(asked, &mut from_caller, &to_caller).await {
            Ok((seat, admission)) => Some(Permitted {
                seat,
                admission,
                from_caller,
                to_caller,
                in_use,
            }),
            Err((asked, refusal)) => {
                self.refuse(&asked, refusal, &mut to_caller).await;
                None
            }
        }
    }

    /// Takes a session into the table and asks the customer's file about it.
    async fn decide(
        self: &Arc<Self>,
        asked: Asked,
        from_caller: &mut Receiver,
        to_caller: &Sender,
    ) -> Result<(Seat, Admission), (Asked, Refusal)> {
        let asked = self.heard(asked, from_caller).await?;
        // In the table before it is decided: whatever changes from here on finds the session there.
        let Some(seat) = self.live.enter(asked.clone()) else {
            let refusal = Refusal::new(Reason::Malformed, "a session with this id lives");
            return Err((asked, refusal));
        };
        match self.permit(&seat.live, to_caller).await {
            Ok(admission) => Ok((seat, admission)),
            Err(refusal) => Err((asked, refusal)),
        }
    }

    /// Says what the file says, after a line in the customer's audit; nothing is opened, and no name is looked up.
    async fn answer_question(&self, asked: &Asked, about: SystemTime, to_caller: &mut Sender) {
        let mut answered = self.list().answer(asked, about);
        if self.pause.is_on() {
            answered.allowed = false;
            answered.reason = Reason::AgentStopping.name().to_owned();
        }
        let answered = match self.record_question(asked, &answered) {
            Ok(()) => OpenAnswer::explained(answered),
            Err(()) => OpenAnswer::refused(Refused::new(Reason::AuditFailed, "")),
        };
        answer(to_caller, answered).await;
    }

    /// Reads what the caller's protocol says first, where the customer's rules may ask about it: from the bytes
    /// themselves, whatever the gateway makes of them.
    async fn heard(&self, mut asked: Asked, from_caller: &mut Receiver) -> Result<Asked, (Asked, Refusal)> {
        if self.list().reads_packets(&asked) {
            let heard = timeout(OPEN_LIMIT, read_connect(from_caller)).await;
            let heard = heard.unwrap_or_else(|_| Err("no CONNECT within 10 s, and this endpoint reads it".into()));
            return match heard {
                Ok(said) => {
                    asked.mqtt = Some(said);
                    Ok(asked)
                }
                Err(detail) => Err((asked, Refusal::new(Reason::Malformed, detail))),
            };
        }
        if !self.list().reads_startup(&asked) {
            return Ok(asked);
        }
        let heard = timeout(OPEN_LIMIT, read_startup(from_caller)).await;
        let heard = heard.unwrap_or_else(|_| Err("no startup packet within 10 s, and this endpoint reads it".into()));
        match heard {
            Ok(startup) => {
                asked.postgres = Some(startup);
                Ok(asked)
            }
            Err(detail) => Err((asked, Refusal::new(Reason::Malformed, detail))),
        }
    }

    /// Everything that must be true before a byte leaves for the upstream; ends with the audit line that says so.
    async fn permit(&self, live: &Arc<Live>, to_caller: &Sender) -> Result<Admission, Refusal> {
        if self.pause.is_on() {
            let refusal = Refusal::new(Reason::AgentStopping, "the customer has paused this agent");
            return Err(refusal.but_here("paused", ""));
        }
        let admission = self.list().admit(&live.asked, self.clock.now())?;
        let addresses = match &admission.upstream {
            Upstream::BuiltinSsh => Vec::new(),
            Upstream::Tcp(upstream) => {
                let look = || self.near.look();
                tokio::select! {
                    found = service::resolve(upstream, self.resolver.as_ref(), look) => found.map_err(|error| {
                        // The gateway learns that it failed, not the addresses of the customer's network.
                        Refusal::new(Reason::UpstreamFailed, "the upstream's name gives no address that may be dialled")
                            .but_here(error.name(), error.to_string())
                    })?,
                    reason = withdrawn(to_caller) => return Err(Refusal::new(reason, "")),
                    () = self.tasks.token().cancelled() => return Err(Refusal::new(Reason::AgentStopping, "")),
                }
            }
        };
        // Nothing waits from here to the line: what was cut, paused or changed meanwhile is seen.
        if let Some(ending) = live.lapse.reason() {
            let refusal = Refusal::new(ending.reason, "").but_here(ending.name, ending.detail);
            return Err(Refusal {
                rule: ending.rule,
                ..refusal
            });
        }
        let settled = Settled {
            upstream: admission.upstream.clone(),
            rule: admission.rule.clone(),
            addresses,
            credential: admission.credential.clone(),
            statement_log: self.statement_log(&live.asked, &admission)?,
        };
        // Set once, here.
        drop(live.settled.set(settled));
        // The file may have been read again while the name was resolved: what this was settled by must still be in it.
        self.still(&self.list(), live)?;
        if let (Some(most), Some(rule)) = (admission.limits.sessions_per_caller, &admission.rule)
            && self.live.beside(live, rule) >= usize::try_from(most).unwrap_or(usize::MAX)
        {
            return Err(Refusal {
                rule: admission.rule,
                ..Refusal::new(Reason::Limit, format!("at most {most} sessions of one caller"))
            });
        }
        self.record_permit(live)
            .map_err(|()| Refusal::new(Reason::AuditFailed, "the agent cannot write its audit log"))?;
        Ok(admission)
    }

    /// The log of the caller's statements, ready to be written to, where the file asks for one.
    fn statement_log(&self, asked: &Asked, admission: &Admission) -> Result<Option<Arc<StatementLog>>, Refusal> {
        let Some(path) = &admission.statement_log else {
            return Ok(None);
        };
        let log = match asked.postgres {
            Some(_) => self.statement_logs.ready(path).map_err(|error| error.to_string()),
            // The file was read again in the middle of the question.
            None => Err("the session began before its statements were to be written down".into()),
        };
        log.map(Some).map_err(|detail| {
            let refusal = Refusal::new(Reason::AuditFailed, "the agent cannot write its statement log");
            refusal.but_here(Reason::AuditFailed.name(), detail)
        })
    }

    async fn carry_out(
        self: &Arc<Self>,
        live: &Arc<Live>,
        admission: Admission,
        from_caller: Receiver,
        mut to_caller: Sender,
    ) -> Option<Ending> {
        let limits = admission.limits;
        match (&admission.upstream, &self.builtin) {
            (Upstream::Tcp(target), _) => {
                if live.asked.endpoint.protocol == Protocol::Ssh {
                    self.ssh_used.notify_one();
                }
                self.tunnel(live, target, limits, from_caller, to_caller).await
            }
            (Upstream::BuiltinSsh, Some(builtin)) => {
                if !answer(&mut to_caller, OpenAnswer::opened()).await {
                    return Some(Ending::with(Reason::Offline, "the gateway went away".into()));
                }
                // On the heap: other sessions would hold the room for it.
                Box::pin(builtin.serve(self, live, limits, from_caller, to_caller)).await
            }
            (Upstream::BuiltinSsh, None) => {
                let refused = Refused::new(Reason::Unsupported, "no SSH server here");
                answer(&mut to_caller, OpenAnswer::refused(refused)).await;
                Some(Ending::of(Reason::Unsupported))
            }
        }
    }
}
