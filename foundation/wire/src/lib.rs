//! The bytes that agents and gateways agree on: versions, frames, messages and refusals.
//!
//! The room exists so that both programs read one definition of the link and neither can reach for a socket, a clock or
//! a certificate while doing so. Everything here is a value or a pure function. Deliberately not here: reading and
//! writing streams (the runtime crate), what an endpoint URL or a principal means (the identity crate), and every
//! decision about who may do what.
//!
//! A message is taken in three steps: [`codec`] bounds and decodes the frame, the message's `check()` bounds each field,
//! and the receiver turns strings into its own types. docs/wire.md tells the flow on one page.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

pub mod call;
pub mod check;
pub mod codec;
pub mod control;
pub mod enroll;
pub mod id;
pub mod mqtt;
pub mod open;
pub mod refusal;
pub mod upgrade;
pub mod version;

pub use check::CheckError;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod samples;
