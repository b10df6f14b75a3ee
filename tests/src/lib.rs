//! The lab and the tests of the whole.
//!
//! The room exists because these tests need several programs at once, which no other room may import together:
//! [`lab`] starts a gateway, agents and people by the steps that operators take, [`clients`] runs the stock programs that
//! people use, [`programs`] runs ours as processes, [`devices`] enrol by the hundred, [`netns`] puts them elsewhere, [`field`] is a
//! device there with its gateway, [`depot`] takes and gives bytes by the megabyte, [`sshd`], [`desktop`] and [`upstream`] are what stands
//! behind an agent, [`name_server`] and [`hand_made`] are a name server and a gateway that lie.
//! Deliberately not here: tests of one room, which stand beside its code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, and this crate is nothing but tests and what they stand on"
)]

pub mod clients;
pub mod customer;
pub mod depot;
pub mod desktop;
pub mod devices;
pub mod field;
pub mod fuzz;
pub mod hand_made;
pub mod lab;
pub mod mosquitto;
pub mod mutated;
pub mod name_server;
pub mod netns;
pub mod postgres;
pub mod programs;
pub mod redis;
pub mod sshd;
pub mod upstream;
