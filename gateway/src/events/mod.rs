//! What happens at this gateway, told to brokers of MQTT: which agents are linked, sessions, refusals, and whether the gateway
//! itself lives (docs/events.md has the schema).
//!
//! The room exists so that telling stays an echo: an event is in the audit before it comes here, and nothing waits for a broker.
//! Deliberately not in here: any decision, who is online (a [`Fleet`] says), and state on disk.
//!
//! States (agents, the gateway) are told by what is now, not by what happened: none can be left out, and a broker that comes back
//! is told all of them. Everything else is told once, and of what waits for a broker that is away [`WAITING`] are kept.

mod feed;
mod meters;
mod said;
mod teller;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::{mpsc, watch};

use crate::access::Listens;
use feed::Feed;
pub use meters::Meters;
use said::Said;
pub use teller::Teller;

/// Events that wait for a broker; newer ones are left out.
pub const WAITING: usize = 1024;

/// A future that [`Fleet`] gives.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An agent as it is told: site and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentName {
    /// Its site.
    pub site: String,
    /// Its name there.
    pub name: String,
}

/// Which agents there are.
pub trait Fleet: Send + Sync + 'static {
    /// Every agent that is known, linked or not; `None` when the store does not answer.
    fn known(&self) -> Answer<'_, Option<Vec<AgentName>>>;

    /// Those that are linked now.
    fn online(&self) -> BTreeSet<AgentName>;

    /// Changes whenever an agent comes or goes.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// A broker that is told.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What every topic begins with, without a slash at its end.
    pub prefix: String,
    /// How this gateway calls itself there.
    pub client_id: String,
    /// User and password.
    pub login: Option<(String, SecretString)>,
}

/// The end of a feed from which a broker is told.
#[derive(Debug)]
pub struct Source {
    broker: Broker,
    queue: mpsc::Receiver<Said>,
    meters: Meters,
}

/// For each broker what hears the audit, and what it is told from.
pub fn feeds(brokers: &[Broker], meters: &Meters) -> (Vec<Arc<dyn Listens>>, Vec<Source>) {
    let pair = |broker: &Broker| {
        let (sender, queue) = mpsc::channel(WAITING);
        let feed: Arc<dyn Listens> = Arc::new(Feed::new(sender, &broker.prefix, meters.clone()));
        let source = Source {
            broker: broker.clone(),
            queue,
            meters: meters.clone(),
        };
        (feed, source)
    };
    brokers.iter().map(pair).unzip()
}

#[cfg(test)]
mod tests;
