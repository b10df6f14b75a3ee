//! CancelRequests: whoever shows the key of a live session has cancelled what it does. Nobody is told how it went.
//!
//! The key is the proof: 31 and 32 random bits at the least, new for each session, worth nothing after it. Sources that show
//! wrong ones again and again are not listened to for a while, unless a certificate says who they are.

use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_protocol::postgres::CancelKey;

use crate::access::Caller;
use crate::admission::Failures;
use crate::endpoint::Door;

/// Wrong keys in a row that shut a source out of this for 30 s. Some are honest: the session may have ended meanwhile.
const WRONG_KEYS: u32 = 32;

/// Takes CancelRequests.
pub(super) struct Cancelling {
    door: Arc<Door>,
    failures: Arc<Failures>,
}

impl Cancelling {
    pub(super) fn new(door: Arc<Door>) -> Self {
        Self {
            door,
            failures: Failures::new(WRONG_KEYS),
        }
    }

    /// Returns once the database was asked, or at once where the key leads nowhere.
    pub(super) async fn cancel(&self, key: &CancelKey, who: Option<&Caller>, client: SocketAddr) {
        if who.is_none() && self.failures.penalty(client.ip()).is_some() {
            tracing::debug!(%client, "too many wrong cancel keys; not looked at");
            return;
        }
        match self.door.cancel(key, who, client).await {
            Ok(()) => self.failures.succeeded(client.ip()),
            Err(why) => {
                let shut_out = self.failures.failed(client.ip());
                tracing::debug!(%client, why, shut_out, "nothing was cancelled");
            }
        }
    }
}
