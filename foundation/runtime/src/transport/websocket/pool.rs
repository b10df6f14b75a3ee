//! The gateway's side of a link: connections that the agent has dialled for sessions to come.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::order::Order;
use super::socket::{Halves, Socket};
use super::state::{Given, Whole};
use crate::transport::Closed;

/// Connections that may wait, of one link.
const MAX_PARKED: usize = 64;
/// A connection that has waited for so long is closed: what lies between may have forgotten it.
pub(super) const PARKED_LIMIT: Duration = Duration::from_secs(3600);
/// An order that brought nothing within this is given again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Pool {
    control: Given,
    parked: Mutex<VecDeque<(Instant, Socket)>>,
    arrived: Notify,
}

impl Pool {
    pub(super) fn new(first: &Socket) -> Self {
        Self {
            control: Given::new(first),
            parked: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    pub(super) fn control(&self) -> Option<Halves> {
        self.control.take()
    }

    pub(super) fn park(&self, socket: Socket) {
        let mut parked = self.parked();
        parked.retain(|(since, socket)| since.elapsed() < PARKED_LIMIT && socket.is_fresh());
        if parked.len() < MAX_PARKED {
            parked.push_back((Instant::now(), socket));
            self.arrived.notify_one();
        }
    }

    /// A connection of the pool, or of a new one that the agent is asked for; waits as long as it is let. Cancel safe.
    pub(super) async fn open(&self, whole: &Whole, first: &Socket) -> Result<Halves, Closed> {
        let opening = async {
            let mut ask = true;
            loop {
                if let Some(socket) = self.take() {
                    return socket.split();
                }
                if ask {
                    first.order(Order::Dial(1));
                }
                // One that has come may be for somebody who waits as well: that is no reason to ask once more.
                ask = timeout(ASK_AGAIN, self.arrived.notified()).await.is_err();
            }
        };
        tokio::select! {
            biased; // a link that has ended opens nothing, whatever waits
            () = whole.token().cancelled() => Err(whole.reason()),
            halves = opening => Ok(halves),
        }
    }

    fn take(&self) -> Option<Socket> {
        loop {
            let (since, socket) = self.parked().pop_front()?;
            if since.elapsed() < PARKED_LIMIT && socket.is_fresh() {
                return Some(socket);
            }
        }
    }

    fn parked(&self) -> MutexGuard<'_, VecDeque<(Instant, Socket)>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
