//! Postgres through the gateway, by stock clients with ordinary connection strings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "postgres/cancel.rs"]
mod cancel;
#[path = "postgres/sessions.rs"]
mod sessions;
#[path = "postgres/stage.rs"]
mod stage;
