//! The dialling side of a conversation: each stream is dialled when it is opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Dial;
use super::socket::{Halves, Socket};
use super::state::{Given, Whole};
use crate::transport::Closed;

pub(super) struct Dialled {
    first: Given,
    dial: Arc<dyn Dial>,
    next: AtomicU64,
}

impl Dialled {
    pub(super) fn new(first: &Socket, dial: Arc<dyn Dial>) -> Self {
        Self {
            first: Given::new(first),
            dial,
            next: AtomicU64::new(1),
        }
    }

    pub(super) async fn open(&self, whole: &Arc<Whole>) -> Result<Halves, Closed> {
        if let Some(closed) = whole.over() {
            return Err(closed);
        }
        if let Some(halves) = self.first.take() {
            return Ok(halves);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let raw = self.dial.dial(number).await;
        let raw = raw.map_err(|error| Closed::Lost(error.to_string()))?;
        Ok(Socket::further(raw, whole, number, None).split())
    }
}

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialled").finish_non_exhaustive()
    }
}
