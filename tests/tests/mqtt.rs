//! MQTT through the gateway, by stock clients and a real broker.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "mqtt/bad_input.rs"]
mod bad_input;
#[path = "mqtt/crowd.rs"]
mod crowd;
#[path = "mqtt/customer.rs"]
mod customer;
#[path = "mqtt/explain.rs"]
mod explain;
#[path = "mqtt/mutated.rs"]
mod mutated;
#[path = "mqtt/sessions.rs"]
mod sessions;
#[path = "mqtt/stage.rs"]
mod stage;
#[path = "mqtt/topics.rs"]
mod topics;
