//! The opening bytes of foreign protocols, read by pure parsers.
//!
//! The room exists so that reading a stranger's bytes needs no socket, no clock and no other room of the house, and can
//! be fuzzed alone. Deliberately not here: waiting for bytes, deadlines, what to do with silence, and every answer that
//! depends on who the caller is.

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

pub mod first_bytes;
pub mod mqtt;
pub mod postgres;
pub mod rdp;

pub use first_bytes::{FirstBytes, classify};
