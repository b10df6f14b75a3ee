//! What every handler has at hand, and the order of a change: audit line, act, word to the running gateway.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fairlead_identity::name::Label;
use fairlead_runtime::audit::Record;
use fairlead_runtime::clock::Clock;
use fairlead_runtime::tasks::TaskGroup;
use tokio::sync::{oneshot, watch};

use super::error::ApiError;
use super::extract::Actor;
use super::live::{Change, Live};
use crate::store::{AgentId, CallerKind, CallerName, Store, StoreError, StoreHandle};

/// What a join string says of this gateway.
#[derive(Clone, Debug)]
pub struct JoinFacts {
    /// What agents and callers dial, `HOST:PORT`, 1 to 4.
    pub addresses: Vec<String>,
    /// The gateway's domain.
    pub domain: String,
    /// The trust domain of its own authority.
    pub trust_domain: String,
    /// SHA-256 of the root certificate in DER, as it changes.
    pub ca_sha256: watch::Receiver<[u8; 32]>,
}

/// What administration works with.
#[derive(Clone)]
pub struct Desk {
    /// The gateway's memory.
    pub store: StoreHandle,
    /// The running gateway.
    pub live: Arc<dyn Live>,
    /// For join strings.
    pub join: JoinFacts,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("store", &self.store)
            .field("join", &self.join)
            .finish_non_exhaustive()
    }
}

/// A desk whose changes outlive the connection that asked for them.
#[derive(Clone)]
pub(super) struct Office {
    desk: Desk,
    tasks: TaskGroup,
}

impl Office {
    pub(super) fn new(desk: Desk, tasks: TaskGroup) -> Arc<Self> {
        Arc::new(Self { desk, tasks })
    }

    pub(super) fn live(&self) -> &dyn Live {
        &*self.desk.live
    }

    pub(super) fn join(&self) -> &JoinFacts {
        &self.desk.join
    }

    /// Now, unix seconds.
    pub(super) fn now(&self) -> i64 {
        unix(self.desk.clock.now())
    }

    /// Does work that takes its time, off the threads that carry sessions.
    pub(super) async fn blocking<T, F>(&self, name: &'static str, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let done = self.tasks.blocking(name, work).await;
        done.map_err(|error| ApiError::failed(error.to_string()))
    }

    /// Asks the store.
    pub(super) async fn ask<T, F>(&self, question: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Store) -> Result<T, StoreError> + Send + 'static,
    {
        Ok(self.desk.store.run(question).await?)
    }

    /// Changes the store: first the audit line, then the change, then the word to the running gateway.
    ///
    /// All three happen together even when whoever asked hangs up: a deleted agent whose link stays would be worse than
    /// an unheard answer.
    pub(super) async fn change<T, F>(
        &self,
        actor: Actor,
        record: Record,
        told: Vec<Change>,
        act: F,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Store) -> Result<T, StoreError> + Send + 'static,
    {
        let desk = self.desk.clone();
        self.settle(actor, record, async move {
            let done = desk.store.run(act).await?;
            told.iter().for_each(|change| desk.live.changed(change));
            Ok(done)
        })
        .await
    }

    /// As [`Self::change`], with an audit line for each of many rows that change together or not at all; the running
    /// gateway need not know of them. A failure gets one line, which says as the others how many belong together.
    pub(super) async fn change_many<F>(&self, actor: Actor, mut lines: Vec<Record>, act: F) -> Result<(), ApiError>
    where
        F: FnOnce(&mut dyn Store) -> Result<(), StoreError> + Send + 'static,
    {
        let together = lines.len();
        lines.iter_mut().for_each(|line| line.fact("together", together));
        let last = lines.pop().unwrap_or_else(|| Record::new("change"));
        let desk = self.desk.clone();
        let uid = actor.uid;
        self.settle(actor, last, async move {
            for mut line in lines {
                line.fact("actor", format!("uid:{uid}"));
                line.decision = Some("allow".into());
                desk.live.audit(&line)?;
            }
            Ok(desk.store.run(act).await?)
        })
        .await
    }

    /// Writes the audit line, then does `act` to its end; a failure gets a second line.
    pub(super) async fn settle<T, F>(&self, actor: Actor, mut record: Record, act: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        record.fact("actor", format!("uid:{}", actor.uid));
        record.decision = Some("allow".into());
        let live = Arc::clone(&self.desk.live);
        let (reply, answer) = oneshot::channel();
        let began = self.tasks.spawn("admin-change", async move {
            let outcome = match live.audit(&record) {
                Ok(()) => act.await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = &outcome {
                record.decision = Some("deny".into());
                record.reason = Some(error.error().into());
                // The request has failed already; a failure to say so in the audit is in the gateway's log.
                let _unlogged = live.audit(&record);
            }
            // Whoever asked may have gone.
            drop(reply.send(outcome));
        });
        if !began {
            return Err(ApiError::busy("the gateway is stopping"));
        }
        answer
            .await
            .unwrap_or_else(|_| Err(ApiError::failed("the change failed inside the gateway")))
    }
}

/// Unix seconds; a time before 1970 is 0.
pub(super) fn unix(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Refuses what is not a label before it gets into an audit line.
pub(super) fn label(what: &str, text: &str) -> Result<(), ApiError> {
    let parsed = text.parse::<Label>();
    parsed
        .map(drop)
        .map_err(|error| ApiError::invalid(format!("{what}: {error}"), ""))
}

/// An agent's name out of a request.
pub(super) fn agent_id(site: String, name: String) -> Result<AgentId, ApiError> {
    label("site", &site)?;
    label("agent name", &name)?;
    Ok(AgentId { site, name })
}

/// Starts the audit line of a change to an agent.
pub(super) fn about_agent(event: &'static str, agent: &AgentId) -> Record {
    let mut record = Record::new(event);
    record.site = Some(agent.site.clone());
    record.agent = Some(agent.name.clone());
    record
}

/// Starts the audit line of a change to a caller.
pub(super) fn about_caller(event: &'static str, id: &CallerName) -> Record {
    let mut record = Record::new(event);
    record.caller = Some(id.name.clone());
    if id.kind == CallerKind::Workload {
        record.fact("caller_kind", id.kind.as_str());
    }
    record
}
