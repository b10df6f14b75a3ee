//! The live sessions: counted, listed, ended by id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use fairlead_identity::name::{Label, Protocol};
use fairlead_runtime::relay::Counters;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;
use tokio::sync::watch;

use super::changes::{Changed, Changes};
use crate::access::{Caller, CallerId, CallerKind, Given, Permit, Target};

/// How many sessions there may be.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// In all.
    pub total: usize,
    /// For one user.
    pub per_user: usize,
    /// For one workload.
    pub per_workload: usize,
}

/// The table of live sessions.
#[derive(Debug)]
pub struct Table {
    rows: Mutex<Rows>,
    ceilings: Ceilings,
    count: watch::Sender<usize>,
    changes: Changes,
}

#[derive(Debug, Default)]
struct Rows {
    live: BTreeMap<SessionId, Row>,
    /// The same sessions by caller, for the limits of callers.
    of_caller: BTreeMap<CallerId, BTreeSet<SessionId>>,
    /// How many go through each agent, by site and name.
    through: BTreeMap<(Label, Label), usize>,
    /// Why no session is taken any longer. Beside the rows: who waits for an emptied table must not miss a late one.
    closed: Option<Reason>,
}

#[derive(Debug)]
struct Row {
    given: Arc<Given>,
    counters: Arc<Counters>,
}

/// A live session, for lists.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// The session's id, the same at both ends.
    pub session: SessionId,
    /// Who.
    pub caller: CallerId,
    /// The endpoint's URL.
    pub endpoint: String,
    /// The endpoint's protocol.
    pub protocol: Protocol,
    /// The agent that serves it.
    pub agent: String,
    /// The agent's site.
    pub site: String,
    /// The rule that allowed it.
    pub rule: String,
    /// Where the caller comes from.
    pub client_ip: String,
    /// What the caller proved, in words.
    pub proved: String,
    /// The acts that were given; empty for a tunnel.
    pub acts: Vec<String>,
    /// Since when.
    pub started: SystemTime,
    /// Bytes towards the upstream so far.
    pub bytes_in: u64,
    /// Bytes towards the caller so far.
    pub bytes_out: u64,
}

/// A session's place in the table; leaves it when dropped.
#[derive(Debug)]
pub(super) struct Place {
    table: Arc<Table>,
    session: SessionId,
}

impl Table {
    /// An empty table with its ceilings.
    pub fn new(ceilings: Ceilings) -> Arc<Self> {
        Arc::new(Self {
            rows: Mutex::default(),
            ceilings,
            count: watch::Sender::new(0),
            changes: Changes::default(),
        })
    }

    /// Takes no further sessions; those that ask are told `reason`. The first reason stays.
    pub fn close(&self, reason: Reason) {
        self.rows().closed.get_or_insert(reason);
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a session, or says that a ceiling is reached (the gateway's, the caller's, or the rule's own) or why the
    /// table is closed.
    pub(super) fn enter(self: &Arc<Self>, permit: &Permit, counters: &Arc<Counters>) -> Result<Place, Reason> {
        let caller = permit.caller();
        let of_caller = match caller.kind {
            CallerKind::User => self.ceilings.per_user,
            _ => self.ceilings.per_workload,
        };
        let mut rows = self.rows();
        if let Some(reason) = rows.closed {
            return Err(reason);
        }
        let total = rows.live.len();
        if total >= self.ceilings.total || rows.held(caller) >= of_caller || rows.is_full_by_rule(permit) {
            return Err(Reason::Limit);
        }
        let row = Row {
            given: Arc::clone(permit.given()),
            counters: Arc::clone(counters),
        };
        rows.live.insert(permit.session(), row);
        rows.of_caller.entry(caller.id()).or_default().insert(permit.session());
        let through = rows.through.entry(agent_of(&permit.given().target)).or_default();
        *through = through.saturating_add(1);
        self.count.send_replace(rows.live.len());
        // After it stands in the table: a change is either seen here, or its review sees the session.
        if permit.as_of() != self.changes.count() {
            self.changes.note_session(permit.session());
        }
        Ok(Place {
            table: Arc::clone(self),
            session: permit.session(),
        })
    }

    /// The live sessions in the order of their ids, which is the order of their beginning.
    pub fn list(&self) -> Vec<SessionRow> {
        let rows = self.rows();
        rows.live
            .iter()
            .map(|(session, row)| SessionRow {
                session: *session,
                caller: row.given.caller.id(),
                endpoint: row.given.target.endpoint.to_string(),
                protocol: row.given.target.endpoint.protocol,
                agent: row.given.target.agent.to_string(),
                site: row.given.target.site.to_string(),
                rule: row.given.rule.name.clone(),
                client_ip: row.given.client.ip().to_string(),
                proved: row.given.caller.by.to_string(),
                acts: row.given.acts.iter().cloned().collect(),
                started: row.given.started,
                bytes_in: row.counters.to_upstream(),
                bytes_out: row.counters.to_caller(),
            })
            .collect()
    }

    /// How many sessions go through the agent of an endpoint.
    pub(super) fn through(&self, target: &Target) -> usize {
        let rows = self.rows();
        rows.through.get(&agent_of(target)).copied().unwrap_or_default()
    }

    /// How many sessions live.
    pub fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// Whether no session lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends one session; whether there was one.
    pub fn end(&self, session: SessionId, reason: Reason) -> bool {
        let rows = self.rows();
        let Some(row) = rows.live.get(&session) else {
            return false;
        };
        row.given.lapse.cancel(reason);
        true
    }

    /// Ends every session.
    pub fn end_all(&self, reason: Reason) {
        for row in self.rows().live.values() {
            row.given.lapse.cancel(reason);
        }
    }

    /// Ends every session through an agent.
    pub fn end_through(&self, site: &str, agent: &str, reason: Reason) {
        for given in self.live(|given| given.target.site == site && given.target.agent == agent) {
            given.lapse.cancel(reason);
        }
    }

    /// Notes a change of what live sessions were decided by, after it was made; they are decided again.
    pub fn note(&self, changed: Changed) {
        self.changes.note(changed);
    }

    /// How many changes were noted, for [`crate::access::AccessRequest::as_of`].
    pub fn changes_noted(&self) -> u64 {
        self.changes.count()
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// What the permits of these live sessions were given for.
    pub(super) fn live(&self, wanted: impl Fn(&Given) -> bool) -> Vec<Arc<Given>> {
        let rows = self.rows();
        let given = rows.live.values().map(|row| &row.given);
        given.filter(|given| wanted(given)).cloned().collect()
    }

    /// Waits until no session lives.
    pub async fn emptied(&self) {
        let mut count = self.count.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _sender_gone = count.wait_for(|live| *live == 0).await;
    }
}

impl Rows {
    fn held(&self, caller: &Caller) -> usize {
        self.of_caller.get(&caller.id()).map_or(0, BTreeSet::len)
    }

    /// Whether the caller has as many sessions under the permit's rule as it lets them have.
    fn is_full_by_rule(&self, permit: &Permit) -> bool {
        let Some(limit) = permit.limits().sessions_per_caller else {
            return false;
        };
        let own = self.of_caller.get(&permit.caller().id()).into_iter().flatten();
        let rows = own.filter_map(|session| self.live.get(session));
        let held = rows.filter(|row| row.given.rule == *permit.rule()).count();
        u32::try_from(held).is_ok_and(|held| held >= limit)
    }

    fn remove(&mut self, session: SessionId) {
        let Some(row) = self.live.remove(&session) else { return };
        let agent = agent_of(&row.given.target);
        if let Some(through) = self.through.get_mut(&agent) {
            *through = through.saturating_sub(1);
            if *through == 0 {
                self.through.remove(&agent);
            }
        }
        let caller = row.given.caller.id();
        let own = self.of_caller.entry(caller.clone()).or_default();
        own.remove(&session);
        if own.is_empty() {
            self.of_caller.remove(&caller);
        }
    }
}

fn agent_of(target: &Target) -> (Label, Label) {
    (target.site.clone(), target.agent.clone())
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut rows = self.table.rows();
        rows.remove(self.session);
        self.table.count.send_replace(rows.live.len());
    }
}
