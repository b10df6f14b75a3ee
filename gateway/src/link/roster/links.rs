//! The links that have a place, by agent. An agent may have several, of one boot, told apart by their numbers: it may have
//! reached this gateway at several addresses.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_identity::name::EndpointUrl;
use fairlead_runtime::transport::Kind;
use fairlead_wire::check::FIRST_SIDE_LINK;

use super::{AgentKey, Link};

/// Live links. At most sixteen of one agent, since their numbers go to 15.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_agent: BTreeMap<AgentKey, Vec<Arc<Link>>>,
    count: usize,
}

impl Links {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Those of one agent.
    pub(super) fn of(&self, agent: &AgentKey) -> &[Arc<Link>] {
        self.by_agent.get(agent).map(Vec::as_slice).unwrap_or_default()
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.by_agent.values().flatten()
    }

    /// One link of each agent that sessions can go to, in order of the agents.
    pub(super) fn serving(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.by_agent
            .keys()
            .filter_map(|agent| self.best_of(agent))
            .filter(|link| link.is_confirmed())
    }

    /// The link of an agent that sessions go to: the newest one that serves, else any. An agent that moves to another
    /// transport comes with a further link, and finishes on the one before. A side link serves where there is no other.
    pub(super) fn best_of(&self, agent: &AgentKey) -> Option<&Arc<Link>> {
        let links = self.of(agent);
        let main = |link: &&Arc<Link>| link.number < FIRST_SIDE_LINK && serves(link);
        links
            .iter()
            .rfind(main)
            .or_else(|| links.iter().rfind(serves))
            .or_else(|| links.first())
    }

    /// The link that a session to this endpoint goes to: one over WebSocket where the agent asks for that and has one.
    pub(super) fn for_endpoint(&self, agent: &AgentKey, endpoint: &EndpointUrl) -> Option<&Arc<Link>> {
        let best = self.best_of(agent)?;
        if !best.remarks.asks_for_websocket(&endpoint.to_string()) {
            return Some(best);
        }
        let wanted = |link: &&Arc<Link>| link.connection.kind() == Kind::WebSocket && serves(link);
        self.of(agent).iter().rfind(wanted).or(Some(best))
    }

    /// The one whose place `link` would take as the next life of the same link, if there is one.
    pub(super) fn before(&self, link: &Link) -> Option<&Arc<Link>> {
        self.of(&link.agent).iter().find(|other| other.number == link.number)
    }

    /// Gives `link` a place. Those that have to give way are returned: the former life of the same link, and every one of
    /// another boot or key.
    pub(super) fn seat(&mut self, link: &Arc<Link>) -> Vec<Arc<Link>> {
        let links = self.by_agent.entry(link.agent.clone()).or_default();
        let stays =
            |other: &Arc<Link>| other.boot == link.boot && other.spki == link.spki && other.number != link.number;
        let (mut staying, displaced): (Vec<_>, Vec<_>) = std::mem::take(links).into_iter().partition(stays);
        staying.push(Arc::clone(link));
        *links = staying;
        self.count = self.count.saturating_sub(displaced.len()).saturating_add(1);
        displaced
    }

    /// Takes a link away; false when a newer one has its place already.
    pub(super) fn remove(&mut self, link: &Arc<Link>) -> bool {
        let Some(links) = self.by_agent.get_mut(&link.agent) else {
            return false;
        };
        let Some(at) = links.iter().position(|other| Arc::ptr_eq(other, link)) else {
            return false;
        };
        links.remove(at);
        if links.is_empty() {
            self.by_agent.remove(&link.agent);
        }
        self.count = self.count.saturating_sub(1);
        true
    }
}

/// Whether sessions can go over a link.
fn serves(link: &&Arc<Link>) -> bool {
    link.is_confirmed() && link.connection.close_reason().is_none()
}
