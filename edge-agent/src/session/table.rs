//! The sessions that live now: what each was permitted, what it carries, and how it is told to end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use fairlead_policy::{MqttAct, RuleRef, SshFacts};
use fairlead_runtime::relay::Counters;
use fairlead_runtime::stop::Lapse;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;

use crate::config::{Credential, Upstream};
use crate::service::{Asked, Refusal};
use crate::statement_log::StatementLog;

/// Why a session ends that neither side has finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// For the gateway.
    pub(crate) reason: Reason,
    /// The reason's name in the agent's own audit.
    pub(crate) name: &'static str,
    /// For the agent's own audit; may be empty.
    pub(crate) detail: String,
    /// The rule behind it.
    pub(crate) rule: Option<RuleRef>,
}

impl Ending {
    pub(crate) fn of(reason: Reason) -> Self {
        Self::with(reason, String::new())
    }

    pub(crate) fn with(reason: Reason, detail: String) -> Self {
        Self {
            reason,
            name: reason.name(),
            detail,
            rule: None,
        }
    }

    /// The customer paused the agent.
    pub(crate) fn paused() -> Self {
        Self {
            name: "paused",
            ..Self::of(Reason::AgentStopping)
        }
    }

    /// The file in force does not permit the session any more.
    pub(crate) fn withdrawn(refusal: Refusal) -> Self {
        Self {
            rule: refusal.rule,
            ..Self::with(Reason::PolicyChanged, format!("{}: {}", refusal.reason, refusal.detail))
        }
    }
}

/// What was permitted, once it was.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) upstream: Upstream,
    pub(crate) rule: Option<RuleRef>,
    /// The checked addresses; none for `builtin:ssh`.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whom the agent logs in as.
    pub(crate) credential: Option<Credential>,
    /// Where the caller's statements are written.
    pub(crate) statement_log: Option<Arc<StatementLog>>,
}

/// One session.
pub(crate) struct Live {
    pub(crate) asked: Asked,
    pub(crate) counters: Counters,
    pub(crate) lapse: Lapse<Ending>,
    pub(crate) settled: OnceLock<Settled>,
    /// How the agent has logged in for the caller.
    pub(crate) logged_in: OnceLock<&'static str>,
    /// Statements that the caller asked to run, where the agent follows them.
    pub(crate) statements: AtomicU64,
    acts: Mutex<BTreeMap<u64, SshFacts>>,
    held: Mutex<BTreeSet<MqttAct>>,
}

impl Live {
    /// The acts that are going on in it.
    pub(crate) fn acts(&self) -> Vec<SshFacts> {
        self.running().values().cloned().collect()
    }

    /// The subscriptions that it holds on to.
    pub(crate) fn held(&self) -> BTreeSet<MqttAct> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what it holds on to from now on. Bounded by whoever grants it.
    pub(crate) fn hold(&self, acts: BTreeSet<MqttAct>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = acts;
    }

    /// Notes an act for as long as what is returned lives. The server bounds how many there are at a time.
    #[cfg(feature = "builtin-ssh")]
    pub(crate) fn begin_act(self: &Arc<Self>, act: SshFacts) -> ActUnderWay {
        let mut running = self.running();
        let number = running.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        running.insert(number, act);
        ActUnderWay {
            live: Arc::clone(self),
            number,
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, SshFacts>> {
        self.acts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An act that has not ended.
#[cfg(feature = "builtin-ssh")]
pub(crate) struct ActUnderWay {
    live: Arc<Live>,
    number: u64,
}

#[cfg(feature = "builtin-ssh")]
impl Drop for ActUnderWay {
    fn drop(&mut self) {
        self.live.running().remove(&self.number);
    }
}

/// Sessions by id. Bounded by whoever lets them in.
#[derive(Default)]
pub(crate) struct Table {
    rows: Mutex<BTreeMap<SessionId, Arc<Live>>>,
}

impl Table {
    /// Takes a session in. `None` when one with its id lives: two of one id could not be told apart in the audit.
    pub(crate) fn enter(self: &Arc<Self>, asked: Asked) -> Option<Seat> {
        let live = Arc::new(Live {
            asked,
            counters: Counters::new(),
            lapse: Lapse::new(),
            settled: OnceLock::new(),
            logged_in: OnceLock::new(),
            statements: AtomicU64::new(0),
            acts: Mutex::default(),
            held: Mutex::default(),
        });
        let mut rows = self.rows();
        if rows.contains_key(&live.asked.session) {
            return None;
        }
        rows.insert(live.asked.session, Arc::clone(&live));
        Some(Seat {
            table: Arc::clone(self),
            live,
        })
    }

    /// The sessions of this moment, by id.
    pub(crate) fn list(&self) -> Vec<Arc<Live>> {
        self.rows().values().cloned().collect()
    }

    /// The session of that id.
    pub(crate) fn find(&self, session: &SessionId) -> Option<Arc<Live>> {
        self.rows().get(session).cloned()
    }

    /// How many permitted sessions of this caller the same rule has let in, this one not counted.
    pub(crate) fn beside(&self, live: &Live, rule: &RuleRef) -> usize {
        let same = |other: &&Arc<Live>| {
            other.asked.session != live.asked.session
                && other.asked.caller.name == live.asked.caller.name
                && other.asked.caller.kind == live.asked.caller.kind
                && other
                    .settled
                    .get()
                    .is_some_and(|settled| settled.rule.as_ref() == Some(rule))
        };
        self.rows().values().filter(same).count()
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<Live>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place in the table; left when dropped.
pub(crate) struct Seat {
    table: Arc<Table>,
    pub(crate) live: Arc<Live>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.rows().remove(&self.live.asked.session);
    }
}
