//! What both programs stand on while they run: tasks with an owner, an ordered stop, configuration files, the audit
//! file, the byte relay, transports and their settings, metrics and logs.
//!
//! The room exists so that each of these is decided once. It knows no wire message, no identity and no policy: it moves
//! bytes, lines and signals whose meaning belongs to others. Nothing here reads a peer's bytes before a limit.
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

pub mod account;
pub mod activation;
pub mod audit;
pub mod channel;
pub mod clock;
pub mod config_file;
pub mod frame;
pub mod lane;
pub mod metrics;
pub mod notify;
pub mod process;
pub mod quic;
pub mod relay;
pub mod socket_file;
pub mod stop;
pub mod tasks;
pub mod telemetry;
pub mod transport;

#[cfg(test)]
mod own_process;
