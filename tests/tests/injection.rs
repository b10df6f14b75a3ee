//! Credentials of the customer's file: callers reach a database whose password only the agent knows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "injection/logins.rs"]
mod logins;
#[path = "injection/nowhere.rs"]
mod nowhere;
#[path = "injection/records.rs"]
mod records;
#[path = "injection/stage.rs"]
mod stage;
