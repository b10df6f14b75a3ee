//! How the links stand, for people and for tests.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_runtime::transport::Connection;
use fairlead_wire::check::FIRST_SIDE_LINK;
use tokio::sync::watch;

/// What went wrong is remembered so often.
const ERRORS: usize = 5;

/// How the links stand together.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Callers can reach this agent by at least one of them.
    pub up: bool,
    /// Endpoints the gateway accepted.
    pub accepted: Vec<String>,
    /// Endpoints it refused, with the reason's name.
    pub refused: Vec<(String, String)>,
    /// What went wrong last; empty while there is a link.
    pub last_error: String,
    /// What went wrong of late on any of them, the oldest first.
    pub errors: VecDeque<(SystemTime, String)>,
    /// Each link by its number.
    pub links: BTreeMap<u32, LinkStatus>,
}

/// How one link stands.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// The connection; it knows its round trip and its losses.
    pub connection: Connection,
    /// Since when.
    pub since: SystemTime,
    /// The gateway will stop: sessions on it finish, no further one begins.
    pub draining: bool,
}

/// Publishes [`Status`].
pub type StatusSender = watch::Sender<Status>;

/// Where one link writes how it stands.
#[derive(Clone, Debug)]
pub(super) struct Board {
    status: Arc<StatusSender>,
    number: u32,
}

impl Board {
    pub(super) fn new(status: Arc<StatusSender>, number: u32) -> Self {
        Self { status, number }
    }

    /// The gateway has answered the offer; it may do so again.
    pub(super) fn up(&self, connection: &Connection, accepted: Vec<String>, refused: Vec<(String, String)>) {
        self.status.send_modify(|status| {
            let link = status.links.entry(self.number).or_insert_with(|| LinkStatus {
                connection: connection.clone(),
                since: SystemTime::now(),
                draining: false,
            });
            link.connection = connection.clone();
            status.up = true;
            (status.accepted, status.refused) = (accepted, refused);
            status.last_error = String::new();
        });
    }

    /// Where the other links go that callers can use: one to each gateway is enough, and a side link beside it.
    pub(super) fn taken(&self) -> Vec<SocketAddr> {
        if self.number >= FIRST_SIDE_LINK {
            return Vec::new();
        }
        let status = self.status.borrow();
        let main = status.links.range(..FIRST_SIDE_LINK);
        let others = main.filter(|(number, _)| **number != self.number);
        others.map(|(_, link)| link.connection.remote_address()).collect()
    }

    /// The gateway said that it will stop.
    pub(super) fn draining(&self) {
        self.status.send_modify(|status| {
            if let Some(link) = status.links.get_mut(&self.number) {
                link.draining = true;
            }
        });
    }

    /// There is no link, and why.
    pub(super) fn down(&self, why: String) {
        self.status.send_modify(|status| {
            status.links.remove(&self.number);
            status.errors.push_back((SystemTime::now(), why.clone()));
            let excess = status.errors.len().saturating_sub(ERRORS);
            status.errors.drain(..excess);
            if status.links.is_empty() {
                status.up = false;
                status.accepted = Vec::new();
                status.refused = Vec::new();
                status.last_error = why;
            }
        });
    }

    /// Nobody makes this link any longer.
    pub(super) fn gone(&self) {
        self.status.send_modify(|status| {
            status.links.remove(&self.number);
            status.up = !status.links.is_empty();
        });
    }
}
