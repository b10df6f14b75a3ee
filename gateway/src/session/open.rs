//! A permit becomes a stream to the agent; the stream carries bytes until an end or until the permit lapses.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fairlead_runtime::relay::{self, Counters, Ended, Side, Sink, Source, Wake, Woken};
use fairlead_runtime::transport;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;

use super::cancel::{CancelSeat, Cancels};
use super::pool::{self, Doubts, Rank};
use super::table::{Place, Table};
use crate::access::{Denial, Permit, Target, Trail};
use crate::link::{AgentStream, OpenError, Roster};

/// Opens sessions.
#[derive(Clone, Debug)]
pub struct Sessions {
    pub(super) roster: Arc<Roster>,
    table: Arc<Table>,
    pub(super) trail: Trail,
    pub(super) cancels: Arc<Cancels>,
    doubts: Arc<Doubts>,
}

/// A session that the agent has opened; bytes may flow.
#[derive(Debug)]
pub struct Session {
    account: Account,
    stream: AgentStream,
    cancels: Arc<Cancels>,
    wake: Option<Wake>,
}

/// A permit with the `session.end` line that is owed for it: written at the latest when this is dropped, whichever task
/// was ended with the session in it.
#[derive(Debug)]
struct Account {
    permit: Arc<Permit>,
    counters: Arc<Counters>,
    trail: Trail,
    settled: bool,
    // Left last: an emptied table means that every line is written.
    place: Option<Place>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The session.
    pub denial: Denial,
    /// `None` when both sides had said all they had to say.
    pub reason: Option<Reason>,
}

/// Why a session was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unopened {
    /// For the caller.
    pub denial: Denial,
    /// Whether another member of a pool may be asked: this one is away, or cannot.
    pub elsewhere: bool,
}

impl Sessions {
    /// Sessions over the agents of `roster`, entered in `table`.
    pub fn new(roster: Arc<Roster>, table: Arc<Table>, trail: Trail) -> Self {
        Self {
            roster,
            table,
            trail,
            cancels: Arc::default(),
            doubts: Arc::default(),
        }
    }

    /// Puts the members of a pool in the order in which they are to be asked.
    pub fn order(&self, members: &mut [Target]) {
        let roster = &self.roster;
        let rank = |member: &Target| Rank {
            away: !self.is_online(member),
            unwell: roster.is_unwell(&member.site, &member.agent, &member.endpoint),
            sessions: self.table.through(member),
        };
        self.doubts.order(members, rank);
    }

    /// How many changes were noted so far, for [`crate::access::AccessRequest::as_of`].
    pub fn changes_noted(&self) -> u64 {
        self.table.changes_noted()
    }

    /// Whether the agent of an endpoint is linked now.
    pub fn is_online(&self, target: &Target) -> bool {
        self.roster.is_online(&target.site, &target.agent)
    }

    /// Asks the agent to open the endpoint.
    ///
    /// # Errors
    /// A [`Denial`] with what a permitted caller may be told: `offline`, `upstream-failed`, `limit`, or `denied` when
    /// the agent's own file says no. Its `session.end` line is in the audit. With `may_go_elsewhere` an agent that does not
    /// answer within 2 s is offline.
    pub async fn open(&self, permit: Permit, may_go_elsewhere: bool) -> Result<Session, Unopened> {
        let mut account = Account {
            permit: Arc::new(permit),
            counters: Arc::default(),
            trail: self.trail.clone(),
            settled: false,
            place: None,
        };
        match self.opened(&mut account, may_go_elsewhere).await {
            Ok(stream) => Ok(Session {
                account,
                stream,
                cancels: Arc::clone(&self.cancels),
                wake: None,
            }),
            Err(OpenError { reason, detail }) => {
                let entered = account.place.is_some() && !account.permit.lapse().is_cancelled();
                let is_away = matches!(
                    reason,
                    Reason::Offline | Reason::AgentStopping | Reason::UpstreamFailed | Reason::Limit
                );
                let denial = Denial {
                    session: account.settle(Some(reason), &detail),
                    told: reason.told_to_caller(true),
                };
                Err(Unopened {
                    denial,
                    elsewhere: entered && is_away,
                })
            }
        }
    }

    async fn opened(&self, account: &mut Account, may_go_elsewhere: bool) -> Result<AgentStream, OpenError> {
        let ended = |reason| OpenError {
            reason,
            detail: String::new(),
        };
        let place = self.table.enter(&account.permit, &account.counters).map_err(ended)?;
        account.place = Some(place);
        let target = account.permit.target();
        tokio::select! {
            opened = self.roster.open(&account.permit) => {
                if opened.is_ok() {
                    self.doubts.clear(target);
                }
                opened
            }
            reason = account.permit.lapse().cancelled() => Err(ended(reason)),
            () = after(may_go_elsewhere.then_some(pool::PATIENCE)) => {
                self.doubts.note(target);
                Err(OpenError {
                    reason: Reason::Offline,
                    detail: "the agent did not answer within 2 s; another one is asked".to_owned(),
                })
            }
        }
    }
}

impl Session {
    /// The permit this session lives under.
    pub fn permit(&self) -> &Permit {
        &self.account.permit
    }

    /// A place among the keys by which callers have cancelled what their sessions do.
    pub fn cancel_seat(&self) -> CancelSeat {
        self.cancels.seat(&self.account.permit)
    }

    /// Lets the caller's sink be asked to write whenever `wake` says so: a face answers some things itself.
    #[must_use]
    pub fn woken_by(mut self, wake: Wake) -> Self {
        self.wake = Some(wake);
        self
    }

    /// Relays until both directions have ended, a limit is reached, the permit lapses, or a side fails.
    pub async fn carry<S: Source, K: Sink>(self, mut caller: (S, K)) -> Carried {
        let Self {
            account, stream, wake, ..
        } = self;
        let AgentStream {
            mut from_agent,
            mut to_agent,
        } = stream;
        let limits = *account.permit.limits();
        let mut lapsed = None;
        let ended = {
            let lapse = pin!(async {
                lapsed = Some(tokio::select! {
                    reason = account.permit.lapse().cancelled() => reason,
                    () = after(limits.session) => Reason::SessionLimit,
                });
            });
            let (from_caller, to_caller) = (&mut caller.0, &mut caller.1);
            let mut woken = Woken::new(&mut from_agent, wake);
            let agent = (&mut woken, &mut to_agent);
            relay::relay_between((from_caller, to_caller), agent, limits.idle, &account.counters, lapse).await
        };
        let (reason, detail) = match ended {
            Ended::Finished => (None, String::new()),
            Ended::Idle => (Some(Reason::IdleLimit), String::new()),
            Ended::Lapsed => (lapsed, String::new()),
            Ended::Failed(Side::Caller, error) => (Some(Reason::CallerGone), error.to_string()),
            Ended::Failed(Side::Upstream, error) => (Some(upstream_reason(&error)), with_cause(&error)),
        };
        if let Some(reason) = reason {
            // Both ends must see a cut, not an end; the agent gets the reason with it. An agent whose upstream takes no
            // bytes does not read and learns it by the stop, which therefore goes first; its half may be closed already.
            from_agent.stop(reason.code());
            to_agent.abort(reason.code());
            caller.1.abort(reason.code());
        }
        let told = reason.unwrap_or(Reason::UpstreamFailed).told_to_caller(true);
        let session = account.settle(reason, &detail);
        Carried {
            denial: Denial { session, told },
            reason,
        }
    }
}

impl Account {
    /// Writes the line, then leaves the table.
    fn settle(mut self, reason: Option<Reason>, detail: &str) -> SessionId {
        self.write(reason, detail);
        self.permit.session()
    }

    fn write(&mut self, reason: Option<Reason>, detail: &str) {
        self.settled = true;
        // The session is over; a failure to log that is in the gateway's log.
        let _unlogged = self.trail.end(&self.permit, reason, detail, &self.counters);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.settled {
            let reason = self.permit.lapse().reason().unwrap_or(Reason::CallerGone);
            self.write(Some(reason), "cut off");
        }
    }
}

/// The error and what caused it: `connection lost: timed out`.
fn with_cause(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.source()) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Why bytes from or to the agent failed: its own reason, else the link, else what stands behind it.
fn upstream_reason(error: &std::io::Error) -> Reason {
    if transport::connection_lost(error) {
        // An agent that stops closes its link so soon after its streams that only the close may arrive.
        let closed = transport::closed_code(error).and_then(Reason::from_quic_code);
        return closed
            .filter(|reason| *reason == Reason::AgentStopping)
            .unwrap_or(Reason::Offline);
    }
    let reason = transport::abandoned_code(error).and_then(Reason::from_quic_code);
    reason.unwrap_or(Reason::UpstreamFailed)
}

async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}
