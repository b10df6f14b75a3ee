//! The end of sessions that a crash cut: whoever reads the audit finds an end for every permit.

use std::path::Path;

use fairlead_runtime::audit::{self, Record};

use super::trail::Trail;

/// What ended them. No refusal of the wire: nobody was there to tell anybody.
const REASON: &str = "gateway-crash";

/// Writes a `session.end` for every session that the log at `path` permitted and does not end. Before the first new one.
pub fn settle(trail: &Trail, path: &Path) {
    let cut = match audit::unended(path, "session.permit", "session.end") {
        Ok(cut) => cut,
        Err(error) => return tracing::error!(%error, "sessions of before this start stay without an end in the audit"),
    };
    if !cut.is_empty() {
        tracing::warn!(
            sessions = cut.len(),
            "the gateway ended before without an order; these sessions were cut"
        );
    }
    for permit in cut {
        // A disk that is full now has its own alarm, and no session is permitted on it.
        if trail.event(&end_of(permit)).is_err() {
            return;
        }
    }
}

/// How many bytes went, nobody knows.
fn end_of(permit: Record) -> Record {
    Record {
        event: "session.end".into(),
        act: None,
        decision: None,
        rule: None,
        policy: None,
        reason: Some(REASON.into()),
        facts: None,
        ..permit
    }
}
