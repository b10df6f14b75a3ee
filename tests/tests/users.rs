//! `builtin:ssh` as other local users, with stock clients and the system's own `su` and PAM. The users are made for a test: the
//! files of accounts are copies, bound over the machine's own in a mount namespace. The agent has exactly the capabilities
//! that the shipped drop-in gives it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "users/stage.rs"]
mod stage;

#[path = "users/refusals.rs"]
mod refusals;
#[path = "users/sessions.rs"]
mod sessions;
