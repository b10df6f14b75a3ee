//! Mutual TLS with a server name on the one port: stock clients, real services behind plain and TLS upstreams, and what
//! is said to those who may not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/handshakes.rs"]
mod handshakes;
#[path = "tls/names.rs"]
mod names;
#[path = "tls/own_site.rs"]
mod own_site;
#[path = "tls/services.rs"]
mod services;
#[path = "tls/ways.rs"]
mod ways;
