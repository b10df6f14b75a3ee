//! SSH through the gateway, with stock clients, to a real sshd behind an agent (a tunnel) and to the agent's own server
//! (`builtin:ssh`). What holds for both is tested on both.
//!
//! 64 MiB travel in the fast tier; with FAIRLEAD_TESTS_ALL=1 it is 1 GiB.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests fail by panicking; figures and what was skipped are for the reader"
)]

#[path = "ssh/stage.rs"]
#[macro_use]
mod stage;

#[path = "ssh/acts.rs"]
mod acts;
#[path = "ssh/denials.rs"]
mod denials;
#[path = "ssh/endings.rs"]
mod endings;
#[path = "ssh/forwards.rs"]
mod forwards;
#[path = "ssh/gateway_itself.rs"]
mod gateway_itself;
#[path = "ssh/logins.rs"]
mod logins;
#[path = "ssh/outages.rs"]
mod outages;
#[path = "ssh/people.rs"]
mod people;
#[path = "ssh/programs.rs"]
mod programs;
#[path = "ssh/reviews.rs"]
mod reviews;
#[path = "ssh/revocations.rs"]
mod revocations;
#[path = "ssh/transfers.rs"]
mod transfers;
