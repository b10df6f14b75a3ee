//! The links that stand over WebSocket, by the name that their further connections give.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fairlead_runtime::transport::websocket::WebSocket;
use fairlead_wire::upgrade::LinkId;

/// At most as many as there are links.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<BTreeMap<LinkId, ([u8; 32], WebSocket)>>);

impl Standing {
    pub(super) fn enter(&self, id: LinkId, spki: [u8; 32], connection: WebSocket) {
        self.lock().insert(id, (spki, connection));
    }

    pub(super) fn leave(&self, id: LinkId) {
        self.lock().remove(&id);
    }

    /// The link of this name, if it stands by this key.
    pub(super) fn find(&self, id: LinkId, spki: &[u8; 32]) -> Option<WebSocket> {
        let lock = self.lock();
        let (of, connection) = lock.get(&id)?;
        (of == spki).then(|| connection.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LinkId, ([u8; 32], WebSocket)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
