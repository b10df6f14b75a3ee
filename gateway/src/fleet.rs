//! The fleet as events tell it: known to the store, linked by the roster.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::events::{AgentName, Answer, Fleet};
use crate::link::Roster;
use crate::store::{SiteScope, StoreError, StoreHandle};

/// Answers from the rooms that know.
pub(crate) struct LinkedFleet {
    roster: Arc<Roster>,
    store: StoreHandle,
}

impl LinkedFleet {
    pub(crate) fn new(roster: &Arc<Roster>, store: &StoreHandle) -> Self {
        Self {
            roster: Arc::clone(roster),
            store: store.clone(),
        }
    }
}

impl Fleet for LinkedFleet {
    fn known(&self) -> Answer<'_, Option<Vec<AgentName>>> {
        Box::pin(async {
            let listed = self.store.run(|store| store.agents(&SiteScope::Every));
            let rows = listed.await.map_err(|error: StoreError| {
                tracing::warn!(%error, "agents that are not linked are not told to the broker");
            });
            let named = rows.ok()?.into_iter().map(|row| AgentName {
                site: row.id.site,
                name: row.id.name,
            });
            Some(named.collect())
        })
    }

    fn online(&self) -> BTreeSet<AgentName> {
        let named = self.roster.online().into_iter().map(|linked| AgentName {
            site: linked.agent.site.to_string(),
            name: linked.agent.name.to_string(),
        });
        named.collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.roster.watch()
    }
}
