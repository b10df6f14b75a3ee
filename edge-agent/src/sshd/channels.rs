//! The connection's own table of channels: what russh calls us about is looked up here, and a miss ends the connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use fairlead_runtime::stop::CancellationToken;
use nix::sys::signal::Signal;
use russh::server::Msg;
use russh::{ChannelId, ChannelWriteHalf};
use tokio::sync::{mpsc, watch};

use super::environment::Environment;
use super::terminal::{Description, Size};
use fairlead_runtime::channel::{Flow, Intake};

/// Channels open at once on a connection; programs that are still being hung up count.
const MAX_OPEN: usize = 10;
/// Channels over a connection's life: russh keeps about 4 KiB of each one that this side closed first.
const MAX_EVER: u32 = 8192;
/// Signals from the client that wait for a program; more are dropped.
const MAX_SIGNALS: usize = 16;
/// Ended channels that are still known, because the client may have written before it heard of the end.
const REMEMBERED: usize = 64;

/// One connection's channels, by russh's number for them (given out in rising order).
pub(super) struct Channels {
    entries: BTreeMap<u32, Entry>,
    opened: u32,
    connection: CancellationToken,
    flow: Arc<Flow>,
}

/// Why a channel is not opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoChannel {
    /// Too many are open; others may close.
    Now,
    /// The connection is used up.
    Ever,
    /// The caller is not proven.
    Stranger,
}

/// One channel, from its opening until nothing of it is left.
pub(super) struct Entry {
    pub(super) intake: Arc<Intake>,
    /// Ends what runs on the channel.
    pub(super) ending: Ending,
    pub(super) signals: mpsc::Sender<Signal>,
    pub(super) size: watch::Sender<Size>,
    over: Arc<AtomicBool>,
    prepared: Option<Prepared>,
}

/// The end of a channel from our side, with a reason where the client is to be told one.
#[derive(Clone)]
pub(super) struct Ending {
    token: CancellationToken,
    reason: Arc<OnceLock<&'static str>>,
}

impl Ending {
    /// Ends the channel; the first reason counts.
    pub(super) fn end(&self, reason: Option<&'static str>) {
        if let Some(reason) = reason {
            self.reason.get_or_init(|| reason);
        }
        self.token.cancel();
    }

    /// Resolves at the end, with what the client is to be told. Cancel-safe.
    pub(super) async fn ended(&self) -> Option<&'static str> {
        self.token.cancelled().await;
        self.reason.get().copied()
    }
}

/// What an act needs to start; taken by the first one.
pub(super) struct Prepared {
    pub(super) half: ChannelWriteHalf<Msg>,
    pub(super) environment: Environment,
    pub(super) terminal: Option<Description>,
    pub(super) signals: mpsc::Receiver<Signal>,
    pub(super) size: watch::Receiver<Size>,
    pub(super) occupancy: Occupancy,
}

/// Held by whatever runs on a channel; dropped, it says that nothing is left of it.
pub(super) struct Occupancy {
    over: Arc<AtomicBool>,
    intake: Arc<Intake>,
}

impl Drop for Occupancy {
    fn drop(&mut self) {
        self.intake.refuse();
        self.over.store(true, Ordering::Release);
    }
}

impl Channels {
    pub(super) fn new(connection: CancellationToken, flow: Arc<Flow>) -> Self {
        Self {
            entries: BTreeMap::new(),
            opened: 0,
            connection,
            flow,
        }
    }

    /// Makes room for a channel, or says why there is none.
    pub(super) fn open(&mut self, half: ChannelWriteHalf<Msg>) -> Result<(), NoChannel> {
        if self.opened >= MAX_EVER {
            return Err(NoChannel::Ever);
        }
        if self.entries.values().filter(|entry| !entry.is_over()).count() >= MAX_OPEN {
            return Err(NoChannel::Now);
        }
        self.opened += 1;
        self.forget_oldest();
        let id = half.id().into();
        let (signals, signalled) = mpsc::channel(MAX_SIGNALS);
        let (size, sized) = watch::channel(Size::default());
        let (over, intake) = (
            Arc::<AtomicBool>::default(),
            Arc::new(Intake::new(Arc::clone(&self.flow))),
        );
        let occupancy = Occupancy {
            over: Arc::clone(&over),
            intake: Arc::clone(&intake),
        };
        let prepared = Prepared {
            half,
            environment: Environment::default(),
            terminal: None,
            signals: signalled,
            size: sized,
            occupancy,
        };
        let ending = Ending {
            token: self.connection.child_token(),
            reason: Arc::default(),
        };
        self.entries.insert(
            id,
            Entry {
                intake,
                ending,
                signals,
                size,
                over,
                prepared: Some(prepared),
            },
        );
        Ok(())
    }

    pub(super) fn get(&mut self, id: ChannelId) -> Option<&mut Entry> {
        self.entries.get_mut(&id.into())
    }

    /// The client closed the channel: what runs on it ends.
    pub(super) fn close(&mut self, id: ChannelId) -> bool {
        let Some(entry) = self.entries.get_mut(&id.into()) else {
            return false;
        };
        entry.ending.end(None);
        entry.prepared = None;
        true
    }

    /// Channels whose program has taken nothing for long while `waiting`, another one, could go on.
    pub(super) fn stuck_beside(&self, waiting: ChannelId) -> impl Iterator<Item = &Entry> {
        let waiting = u32::from(waiting);
        self.entries
            .iter()
            .filter(move |(id, entry)| **id != waiting && entry.intake.is_stuck())
            .map(|(_, entry)| entry)
    }

    fn forget_oldest(&mut self) {
        let over: Vec<u32> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_over())
            .map(|(id, _)| *id)
            .collect();
        for id in over.iter().take(over.len().saturating_sub(REMEMBERED)) {
            self.entries.remove(id);
        }
    }
}

impl Entry {
    /// What an act needs, once: a channel runs one program (RFC 4254, section 6.5).
    pub(super) fn take_prepared(&mut self) -> Option<Prepared> {
        self.prepared.take()
    }

    /// What an act will need, as long as none has started.
    pub(super) fn prepared(&mut self) -> Option<&mut Prepared> {
        self.prepared.as_mut()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}
