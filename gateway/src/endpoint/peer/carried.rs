//! The sessions that one conversation carries: what they are granted of its connection, and when it may end.

use std::sync::Arc;
use std::time::Duration;

use fairlead_runtime::quic::{CONNECTION_WINDOW, STREAM_WINDOW};
use fairlead_runtime::transport::Connection;
use tokio::sync::watch;
use tokio::time::sleep;

/// Streams that a caller may have open once they have asked for a session; beyond it they wait for one to end. Above what a
/// user may have by default, so that it is the limit with a name which is met.
const STREAMS: u32 = 512;

/// The sessions of one conversation. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    connection: Connection,
    count: Arc<watch::Sender<Count>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    live: u32,
    /// Whether there was ever one. A caller who only asks is let go when they ask no more; one who carries sessions over
    /// the conversation keeps it between two.
    any: bool,
}

/// A session's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Sessions);

impl Sessions {
    pub(super) fn of(connection: Connection) -> Self {
        Self {
            connection,
            count: Arc::default(),
        }
    }

    /// Counts a session in.
    pub(super) fn enter(&self) -> Place {
        let mut is_first = false;
        self.count.send_modify(|count| {
            is_first = !count.any;
            count.any = true;
            count.live = count.live.saturating_add(1);
        });
        if is_first {
            self.connection.permit_streams(STREAMS);
        }
        self.widen();
        Place(self.clone())
    }

    /// Completes when the conversation has carried nothing, and nothing was asked, for so long; asked anew after each
    /// question.
    pub(super) async fn silent_for(&self, limit: Duration) {
        sleep(limit).await;
        if self.count.borrow().any {
            std::future::pending::<()>().await;
        }
    }

    /// Completes when no session is left.
    pub(super) async fn over(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let mut count = self.count.subscribe();
        let _sender_gone = count.wait_for(|count| count.live == 0).await;
    }

    /// Each session has a stream's window of its own beside what the questions share: one whose upstream does not read
    /// holds up no other.
    fn widen(&self) {
        let live = self.count.borrow().live;
        let window = live.saturating_mul(STREAM_WINDOW).saturating_add(CONNECTION_WINDOW);
        self.connection.permit_bytes(window);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0
            .count
            .send_modify(|count| count.live = count.live.saturating_sub(1));
        self.0.widen();
    }
}
