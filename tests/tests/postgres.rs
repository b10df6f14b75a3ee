//! Postgres through the gateway, by stock clients with ordinary connection strings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say aloud what they leave out"
)]

#[path = "postgres/bad_input.rs"]
mod bad_input;
#[path = "postgres/cancel.rs"]
mod cancel;
#[path = "postgres/copies.rs"]
mod copies;
#[path = "postgres/drivers.rs"]
mod drivers;
#[path = "postgres/sessions.rs"]
mod sessions;
#[path = "postgres/stage.rs"]
mod stage;
