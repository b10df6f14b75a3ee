//! Cancel keys: what a caller shows, on another connection, to have cancelled what a session of theirs does.
//!
//! The upstream's own key never reaches the caller. They get one of the gateway's making, random in number and secret and
//! good for as long as the session lives: an entry holds its permit weakly, so that the leave to cancel is the session's
//! own leave and ends with it. A key that is not found leads nowhere, whoever shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use fairlead_protocol::postgres::CancelKey;
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::open::Sessions;
use crate::access::{CallerId, Permit};

/// Bytes of a secret that the gateway makes; the face shows as many of them as the protocol's version takes.
const SECRET_BYTES: usize = 32;
/// Cancellations of one session at once; one more comes back with each [`REGAIN`].
const BURST: u32 = 8;
const REGAIN: Duration = Duration::from_millis(500);

/// The keys of live sessions. Bounded by the sessions that there may be: each has at most one.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    rows: Mutex<BTreeMap<u32, Row>>,
}

struct Row {
    shown: Vec<u8>,
    upstream: CancelKey,
    permit: Weak<Permit>,
    credit: u32,
    credited: Instant,
}

/// A session's place among the keys; left when dropped.
#[derive(Debug)]
pub struct CancelSeat {
    cancels: Arc<Cancels>,
    permit: Weak<Permit>,
    process: Option<u32>,
}

/// Why nothing was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCancelled {
    /// No live session has this key.
    #[error("unknown-cancel-key")]
    Unknown,
    /// The key is of a session of somebody else than the one who is known to show it.
    #[error("other-caller")]
    OtherCaller,
    /// The session was cancelled too often in too short a time.
    #[error("cancel-pace")]
    Pace,
    /// The audit could not be written, or the agent did not do it.
    #[error("cancel-failed")]
    Failed,
}

impl NotCancelled {
    /// The stable name, for audit and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown-cancel-key",
            Self::OtherCaller => "other-caller",
            Self::Pace => "cancel-pace",
            Self::Failed => "cancel-failed",
        }
    }
}

impl Cancels {
    pub(super) fn seat(self: &Arc<Self>, permit: &Arc<Permit>) -> CancelSeat {
        CancelSeat {
            cancels: Arc::clone(self),
            permit: Arc::downgrade(permit),
            process: None,
        }
    }

    /// The leave and the upstream's key behind `key`, if it is that of a live session, of the caller `who` where that is
    /// known.
    fn find(&self, key: &CancelKey, who: Option<&CallerId>) -> Result<(Arc<Permit>, CancelKey), NotCancelled> {
        let mut rows = self.rows();
        let row = rows.get_mut(&key.process).ok_or(NotCancelled::Unknown)?;
        if !bool::from(row.shown.ct_eq(&key.secret)) {
            return Err(NotCancelled::Unknown);
        }
        let permit = row.permit.upgrade().ok_or(NotCancelled::Unknown)?;
        if permit.lapse().reason().is_some() {
            return Err(NotCancelled::Unknown);
        }
        if who.is_some_and(|who| *who != permit.caller().id()) {
            return Err(NotCancelled::OtherCaller);
        }
        if !row.has_credit() {
            return Err(NotCancelled::Pace);
        }
        Ok((permit, row.upstream.clone()))
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<u32, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn has_credit(&mut self) -> bool {
        let passed = self.credited.elapsed().as_millis() / REGAIN.as_millis();
        let regained = u32::try_from(passed).unwrap_or(u32::MAX);
        if regained > 0 {
            self.credit = self.credit.saturating_add(regained).min(BURST);
            self.credited = Instant::now();
        }
        let has_credit = self.credit > 0;
        self.credit = self.credit.saturating_sub(1);
        has_credit
    }
}

impl CancelSeat {
    /// A key to show to the caller in place of the upstream's. It is good for nothing before [`CancelSeat::keep`].
    pub fn offer(&self) -> CancelKey {
        CancelKey {
            // Drivers keep it as a signed number of 32 bits.
            process: rand::random_range(1..=i32::MAX.unsigned_abs()),
            secret: rand::random::<[u8; SECRET_BYTES]>().to_vec(),
        }
    }

    /// From here on `shown`, as the caller was shown it, stands for the key that the upstream gave. Where another live
    /// session has the same number already, once in two thousand million, this one cannot be cancelled.
    pub fn keep(&mut self, shown: &CancelKey, upstream: &CancelKey) {
        if self.process.is_some() {
            return;
        }
        let mut rows = self.cancels.rows();
        if rows.contains_key(&shown.process) {
            return;
        }
        self.process = Some(shown.process);
        let row = Row {
            shown: shown.secret.clone(),
            upstream: upstream.clone(),
            permit: self.permit.clone(),
            credit: BURST,
            credited: Instant::now(),
        };
        rows.insert(shown.process, row);
    }
}

impl Drop for CancelSeat {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            self.cancels.rows().remove(&process);
        }
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}

impl Sessions {
    /// Has the upstream of the session with this key cancel what it does, on behalf of `client`, and of `who` where a
    /// certificate says so. Returns once the upstream has been asked. The audit has the session's id.
    ///
    /// # Errors
    /// Why not; the peer learns nothing of it.
    pub async fn cancel(
        &self,
        key: &CancelKey,
        who: Option<&CallerId>,
        client: SocketAddr,
    ) -> Result<(), NotCancelled> {
        let (permit, upstream) = self.cancels.find(key, who)?;
        self.trail.cancel(&permit, client).map_err(|_| NotCancelled::Failed)?;
        let asked = tokio::select! {
            asked = self.roster.cancel(&permit, upstream) => asked,
            _ = permit.lapse().cancelled() => return Err(NotCancelled::Unknown),
        };
        asked.map_err(|error| {
            let (session, reason, detail) = (permit.session(), error.reason, error.detail);
            tracing::info!(%session, %reason, detail, "a session's work could not be cancelled");
            NotCancelled::Failed
        })
    }
}

#[cfg(test)]
mod tests;
