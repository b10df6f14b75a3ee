//! Hostile peers before and around authentication, against the shipped programs as processes of their own: the
//! certificate matrix (SECURITY.md A9), SSH before a login (advisories 8 to 12, 19, 20, 55 to 58, A7), and floods
//! (A1 to A6).
//!
//! Certificates are made with the `openssl` program and presented by a QUIC peer that checks nothing; SSH is spoken by
//! asyncssh (Debian's python3-asyncssh) and by raw bytes. Figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

#[path = "hostile/before_login.rs"]
mod before_login;
#[path = "hostile/certificates_at_agent.rs"]
mod certificates_at_agent;
#[path = "hostile/certificates_at_gateway.rs"]
mod certificates_at_gateway;
#[path = "hostile/floods.rs"]
mod floods;
#[path = "hostile/forge.rs"]
mod forge;
#[path = "hostile/initials.rs"]
mod initials;
#[path = "hostile/memory.rs"]
mod memory;
#[path = "hostile/middlebox.rs"]
mod middlebox;
#[path = "hostile/peer.rs"]
mod peer;
#[path = "hostile/streams.rs"]
mod streams;
#[path = "hostile/vendors.rs"]
mod vendors;
#[path = "hostile/watch.rs"]
mod watch;
