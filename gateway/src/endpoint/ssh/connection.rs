//! What the handler and the tasks of one SSH connection share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairlead_runtime::channel::{Flow, Intake};
use fairlead_runtime::stop::CancellationToken;
use russh::ChannelId;

/// Channels that one connection may have open or opening.
const CHANNELS_PER_CONNECTION: usize = 128;

/// One connection.
pub(super) struct Connection {
    pub(super) client: SocketAddr,
    /// Cancelled by the first authentication request: somebody is there.
    pub(super) asked: CancellationToken,
    /// Cancelled once the caller has proved who they are.
    pub(super) proven: CancellationToken,
    /// Cancelled when the connection is over.
    pub(super) ended: CancellationToken,
    /// Cuts the connection, whatever the protocol is waiting for.
    pub(super) cut: CancellationToken,
    /// How the windows of all channels stand.
    pub(super) flow: Arc<Flow>,
    /// The channels that carry a session, by their id.
    carriers: Mutex<BTreeMap<ChannelId, Carrier>>,
    /// The last refused attempt, for the audit.
    refused: Mutex<Option<Refused>>,
    channels: AtomicUsize,
    served: AtomicBool,
}

impl Connection {
    pub(super) fn new(client: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            client,
            asked: CancellationToken::new(),
            proven: CancellationToken::new(),
            ended: CancellationToken::new(),
            cut: CancellationToken::new(),
            flow: Arc::default(),
            carriers: Mutex::default(),
            refused: Mutex::default(),
            channels: AtomicUsize::new(0),
            served: AtomicBool::new(false),
        })
    }

    /// Counts a channel in; `None` at the limit.
    pub(super) fn enter(self: &Arc<Self>) -> Option<ChannelPlace> {
        let place = ChannelPlace(Arc::clone(self));
        let before = self.channels.fetch_add(1, Ordering::AcqRel);
        (before < CHANNELS_PER_CONNECTION).then_some(place)
    }

    /// Whether this connection has no more than one channel.
    pub(super) fn has_one_channel(&self) -> bool {
        self.channels.load(Ordering::Acquire) <= 1
    }

    /// Whether this connection has no channel.
    pub(super) fn is_idle(&self) -> bool {
        self.channels.load(Ordering::Acquire) == 0
    }

    /// Notes that a channel was opened.
    pub(super) fn note_served(&self) {
        self.served.store(true, Ordering::Release);
    }

    /// Whether a channel was ever opened.
    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Acquire)
    }

    /// Begins to take what the client sends on a channel; ends when the result is dropped.
    pub(super) fn carry(self: &Arc<Self>, id: ChannelId) -> Taken {
        let carrier = Carrier {
            intake: Arc::new(Intake::new(Arc::clone(&self.flow))),
            closed: CancellationToken::new(),
        };
        self.carriers().insert(id, carrier.clone());
        Taken {
            carrier,
            id,
            connection: Arc::clone(self),
        }
    }

    /// The channel of that id, if it carries a session. Ids that were never opened, or are closed, have none.
    pub(super) fn carrier(&self, id: ChannelId) -> Option<Carrier> {
        self.carriers().get(&id).cloned()
    }

    fn carriers(&self) -> MutexGuard<'_, BTreeMap<ChannelId, Carrier>> {
        self.carriers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a refused attempt and the stable name of its reason; user names are bounded by what SSH lets through and
    /// cut here.
    pub(super) fn note_refused(&self, login: &str, why: &'static str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        // An offer says less than a signature that was refused.
        if why == "unknown-key" && refused.as_ref().is_some_and(|before| before.why != why) {
            return;
        }
        let login = login.chars().filter(|c| !c.is_control()).take(64).collect();
        *refused = Some(Refused { login, why });
    }

    /// The last refused attempt, once.
    pub(super) fn take_refused(&self) -> Option<Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// An attempt to log in that was refused.
pub(super) struct Refused {
    /// The user name that was asked for.
    pub(super) login: String,
    /// The stable name of the reason.
    pub(super) why: &'static str,
}

/// The client's side of a channel that carries a session.
#[derive(Clone)]
pub(super) struct Carrier {
    pub(super) intake: Arc<Intake>,
    /// Cancelled when the client has closed the channel (not merely its sending direction).
    pub(super) closed: CancellationToken,
}

/// A [`Carrier`] in its connection's table; leaves it when dropped.
pub(super) struct Taken {
    pub(super) carrier: Carrier,
    id: ChannelId,
    connection: Arc<Connection>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.connection.carriers().remove(&self.id);
        self.carrier.intake.refuse();
    }
}

/// A channel's place in its connection's count.
pub(super) struct ChannelPlace(Arc<Connection>);

impl Drop for ChannelPlace {
    fn drop(&mut self) {
        self.0.channels.fetch_sub(1, Ordering::AcqRel);
    }
}
