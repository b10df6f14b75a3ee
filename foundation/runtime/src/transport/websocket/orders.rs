//! What the gateway has ordered of an agent's transport.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::order::{MAX_DIALS, Order};
use super::socket::{Socket, WeakSocket};

/// Orders that wait for the link's driver, and the streams that one may cut.
#[derive(Debug, Default)]
pub(super) struct Orders {
    dials: AtomicU32,
    came: Notify,
    streams: Mutex<BTreeMap<u64, WeakSocket>>,
}

impl Orders {
    /// Carries out what can be, keeps the rest. Orders that this build does not know are skipped.
    pub(super) fn take(&self, text: &str) {
        match Order::parse(text) {
            Some(Order::Dial(count)) => {
                let more = |dials: u32| Some(dials.saturating_add(count).min(MAX_DIALS));
                // It never fails: `more` always gives a number.
                let _before = self.dials.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
                self.came.notify_one();
            }
            Some(Order::Cut { stream, code }) => {
                let found = self.streams().remove(&stream).and_then(|socket| socket.upgrade());
                if let Some(socket) = found {
                    socket.cut(code);
                }
            }
            None => {}
        }
    }

    /// How many further connections are asked for, taken.
    pub(super) fn dials(&self) -> u32 {
        self.dials.swap(0, Ordering::AcqRel)
    }

    /// Resolves when there may be more. Cancel safe.
    pub(super) async fn came(&self) {
        self.came.notified().await;
    }

    /// From now on this stream may be cut.
    pub(super) fn enlist(&self, number: u64, socket: &Socket) {
        let mut streams = self.streams();
        streams.retain(|_, socket| !socket.is_gone());
        streams.insert(number, socket.downgrade());
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<u64, WeakSocket>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
