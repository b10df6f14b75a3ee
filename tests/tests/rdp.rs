//! Desktops through the gateway, by stock clients: RDP by a routing token, by a local port and by `ssh -L`; VNC as plain
//! TCP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

#[path = "rdp/bad_input.rs"]
mod bad_input;
#[path = "rdp/flood.rs"]
mod flood;
#[path = "rdp/mutated.rs"]
mod mutated;
#[path = "rdp/pictures.rs"]
mod pictures;
#[path = "rdp/stage.rs"]
mod stage;
#[path = "rdp/tokens.rs"]
mod tokens;
