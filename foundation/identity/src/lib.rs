//! Who a key, a certificate or a join string says you are.
//!
//! This room names things (`name`, `principal`), makes and reads keys (`keys`), issues
//! certificates (`authority`, `ssh`), accepts them (`verify`, `ssh`), carries the first
//! trust to a new machine (`join`), and is the only place that builds rustls settings (`tls`).
//!
//! Everything here is a function of its arguments: time is passed in, nothing reads a file or a
//! socket. Randomness is drawn in [`keys`] and where [`ssh`] creates keys, and nowhere else in our
//! code; the ECDSA signer of the provider draws its own nonces. The TLS settings use rustls's
//! clock, because rustls calls the verifiers while a handshake runs.
//!
//! Deliberately absent: what a caller may do (that is the policy), who is revoked (that is the
//! gateway's store, keyed by the serial and key digest that [`verify::Authenticated`] carries),
//! and every transport.
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

pub mod authority;
mod certificate;
pub mod chain;
pub mod join;
pub mod keys;
pub mod name;
pub mod principal;
pub mod ssh;
pub mod tls;
pub mod vendor;
pub mod verify;

#[cfg(test)]
mod lab;
