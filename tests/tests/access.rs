//! The access matrix: whatever the gateway has a face for is allowed, denied, revoked, left by its agent, half closed, read
//! slowly and drained in the same way, each by a real program.
//!
//! The cases run over the gateway's own table of kinds. A kind that has no row in [`ways::ROWS`] fails all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "access/cases.rs"]
mod cases;
#[path = "access/ways.rs"]
mod ways;
