//! The live sessions: counted, listed, ended by id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use fairlead_identity::name::{EndpointUrl, Protocol};
use fairlead_policy::RuleRef;
use fairlead_runtime::relay::Counters;
use fairlead_runtime::stop::Lapse;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;
use tokio::sync::watch;

use crate::access::{CallerKind, Permit};

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
}

#[derive(Debug, Default)]
struct Rows {
    live: BTreeMap<SessionId, Row>,
    /// Why no session is taken any longer. Beside the rows: who waits for an emptied table must not miss a late one.
    closed: Option<Reason>,
}

#[derive(Debug)]
struct Row {
    caller: String,
    kind: CallerKind,
    endpoint: EndpointUrl,
    agent: String,
    site: String,
    rule: RuleRef,
    client_ip: String,
    started: SystemTime,
    counters: Arc<Counters>,
    lapse: Lapse<Reason>,
}

/// A live session, for lists.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// The session's id, the same at both ends.
    pub session: SessionId,
    /// Who.
    pub caller: String,
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
        let of_rule = permit
            .limits()
            .sessions_per_caller
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let name = caller.name.to_string();
        let rule = permit.rule().clone();
        let mut rows = self.rows();
        if let Some(reason) = rows.closed {
            return Err(reason);
        }
        let rows = &mut rows.live;
        let held = rows
            .values()
            .filter(|row| row.caller == name && row.kind == caller.kind)
            .count();
        let held_by_rule = rows
            .values()
            .filter(|row| row.caller == name && row.kind == caller.kind && row.rule == rule)
            .count();
        if rows.len() >= self.ceilings.total || held >= of_caller || held_by_rule >= of_rule {
            return Err(Reason::Limit);
        }
        let row = Row {
            caller: name,
            kind: caller.kind,
            endpoint: permit.endpoint().clone(),
            agent: permit.target().agent.to_string(),
            site: permit.target().site.to_string(),
            rule,
            client_ip: permit.client().ip().to_string(),
            started: permit.started(),
            counters: Arc::clone(counters),
            lapse: permit.lapse().clone(),
        };
        rows.insert(permit.session(), row);
        self.count.send_replace(rows.len());
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
                caller: row.caller.clone(),
                endpoint: row.endpoint.to_string(),
                protocol: row.endpoint.protocol,
                agent: row.agent.clone(),
                site: row.site.clone(),
                rule: row.rule.name.clone(),
                client_ip: row.client_ip.clone(),
                started: row.started,
                bytes_in: row.counters.to_upstream(),
                bytes_out: row.counters.to_caller(),
            })
            .collect()
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
        row.lapse.cancel(reason);
        true
    }

    /// Ends every session.
    pub fn end_all(&self, reason: Reason) {
        for row in self.rows().live.values() {
            row.lapse.cancel(reason);
        }
    }

    /// Ends every session of a user.
    pub fn end_of_user(&self, name: &str, reason: Reason) {
        let rows = self.rows();
        for row in rows
            .live
            .values()
            .filter(|row| row.caller == name && row.kind == CallerKind::User)
        {
            row.lapse.cancel(reason);
        }
    }

    /// Ends every session through an agent.
    pub fn end_through(&self, site: &str, agent: &str, reason: Reason) {
        let rows = self.rows();
        for row in rows.live.values().filter(|row| row.site == site && row.agent == agent) {
            row.lapse.cancel(reason);
        }
    }

    /// Waits until no session lives.
    pub async fn emptied(&self) {
        let mut count = self.count.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _sender_gone = count.wait_for(|live| *live == 0).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut rows = self.table.rows();
        rows.live.remove(&self.session);
        self.table.count.send_replace(rows.live.len());
    }
}
