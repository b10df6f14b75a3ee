//! `fairlead connect` and its kin: clients that cannot present a certificate, by the real programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "connect/bytes.rs"]
mod bytes;
#[path = "connect/databases.rs"]
mod databases;
#[path = "connect/explain.rs"]
mod explain;
#[path = "connect/outages.rs"]
mod outages;
#[path = "connect/pools.rs"]
mod pools;
#[path = "connect/shells.rs"]
mod shells;
#[path = "connect/stage.rs"]
mod stage;
