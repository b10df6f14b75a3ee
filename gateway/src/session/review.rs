//! Live sessions are decided again: when the policy, a caller or an agent has changed, and as time passes where a rule
//! reads it. Whoever lost their answer is cut, with the reason; the others notice nothing.
//!
//! Off the path of requests and in batches: the store is asked once for each batch, the gate decides on a thread that may
//! take its time, and what concerns a single caller or agent goes before a look at everything.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fairlead_policy::AccessPolicy;
use fairlead_runtime::clock::Clock;
use fairlead_runtime::tasks::TaskGroup;
use tokio::time::MissedTickBehavior;

use super::table::Table;
use crate::access::{Gate, Given, Lost, Meters, Present, decide_again_by};

/// Sessions decided together: the store's answer to one batch is a few milliseconds of its thread.
const BATCH: usize = 256;
/// How often every session is decided again where a rule reads the time. With what a look at everything takes, nobody
/// outlives a schedule by more than 5 s.
const AS_TIME_PASSES: Duration = Duration::from_secs(4);
/// After the store failed to answer, how long until it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A future that [`Facts`] gives.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the store says now of those whom permits were given to.
pub trait Facts: Send + Sync + 'static {
    /// One answer for each of `given`, in order; at most 256 are asked about at a time.
    ///
    /// # Errors
    /// In words for the log, when the store does not answer; then nobody is cut.
    fn present<'a>(&'a self, given: &'a [Arc<Given>]) -> Answer<'a, Result<Vec<Present>, String>>;
}

/// Decides live sessions again.
#[derive(Clone)]
pub struct Reviewer {
    gate: Arc<Gate>,
    table: Arc<Table>,
    facts: Arc<dyn Facts>,
    clock: Arc<dyn Clock>,
    tasks: TaskGroup,
    meters: Meters,
}

/// A live session that another policy would cut.
#[derive(Clone, Debug)]
pub struct WouldCut {
    /// What its permit was given for.
    pub given: Arc<Given>,
    /// By what it would lose its answer.
    pub lost: Lost,
}

impl std::fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviewer")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl Reviewer {
    /// A reviewer of the sessions in `table`; decisions run as work of `tasks`.
    pub fn new(
        gate: Arc<Gate>,
        table: Arc<Table>,
        facts: Arc<dyn Facts>,
        clock: Arc<dyn Clock>,
        tasks: TaskGroup,
        meters: Meters,
    ) -> Self {
        Self {
            gate,
            table,
            facts,
            clock,
            tasks,
            meters,
        }
    }

    /// Reviews what is noted, and everything as time passes, until the group of its tasks ends.
    pub async fn run(self) {
        let mut clock = tokio::time::interval(AS_TIME_PASSES);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.tasks.token().clone();
        while !stop.is_cancelled() {
            if let Err(error) = self.review_noted().await {
                tracing::error!(error, "live sessions could not be decided again; trying once more");
                self.table.changes().note_all();
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.table.changes().noted() => {}
                _ = clock.tick() => if self.gate.reads_time() {
                    self.table.changes().note_all();
                },
            }
        }
    }

    /// Which live sessions `policy` would cut if it were in force now; nothing is cut.
    ///
    /// # Errors
    /// In words, when the store does not answer or the gateway is stopping.
    pub async fn would_cut(&self, policy: &Arc<AccessPolicy>) -> Result<Vec<WouldCut>, String> {
        let mut found = Vec::new();
        for batch in self.table.live(|_| true).chunks(BATCH) {
            found.extend(self.decided(batch, Some(policy)).await?);
        }
        Ok(found)
    }

    async fn review_noted(&self) -> Result<(), String> {
        loop {
            self.review_few().await?;
            if !self.table.changes().take_all() {
                return Ok(());
            }
            for batch in self.table.live(|_| true).chunks(BATCH) {
                // A caller who was shut out does not wait behind ten thousand who were not.
                self.review_few().await?;
                self.review(batch).await?;
            }
        }
    }

    async fn review_few(&self) -> Result<(), String> {
        while let Some(concerned) = self.table.changes().take_few() {
            for batch in self.table.live(|given| concerned.includes(given)).chunks(BATCH) {
                self.review(batch).await?;
            }
        }
        Ok(())
    }

    async fn review(&self, batch: &[Arc<Given>]) -> Result<(), String> {
        for WouldCut { given, lost } in self.decided(batch, None).await? {
            tracing::info!(session = %given.session, reason = %lost.reason, why = lost.why, "cut");
            given.cut(lost);
        }
        Ok(())
    }

    /// Those of the batch that have no answer any longer.
    async fn decided(&self, batch: &[Arc<Given>], policy: Option<&Arc<AccessPolicy>>) -> Result<Vec<WouldCut>, String> {
        let present = self.facts.present(batch).await?;
        let (batch, gate, policy, now) = (
            batch.to_vec(),
            Arc::clone(&self.gate),
            policy.cloned(),
            self.clock.now(),
        );
        self.meters.count_reviewed(batch.len());
        let decide = move || {
            let asked = batch.into_iter().zip(&present);
            let lost = asked.filter_map(|(given, present)| {
                let again = match &policy {
                    Some(policy) => decide_again_by(policy, &given, present, now),
                    None => gate.decide_again(&given, present, now),
                };
                again.err().map(|lost| WouldCut { given, lost })
            });
            lost.collect()
        };
        self.tasks
            .blocking("review", decide)
            .await
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests;
