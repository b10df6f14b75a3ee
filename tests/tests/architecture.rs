//! Holds the layout: who may import whom, what pure code may read, what files may be called.
//!
//! The rules are those of docs/ARCHITECTURE.md ("Who may import whom"). Manifests are read through `cargo tree`, so that
//! features and renames are seen as cargo sees them; sources are parsed by `syn`, so that comments, strings and aliases do
//! not mislead. Code under `#[cfg(test)]` may build the neighbours it needs and is left out, except where a rule says so.
//!
//! Every rule is a function from parsed input to breaches, run twice: over the tree, and over a snippet made to break it.
//!
//! Not here: what the compiler already holds (private constructors, `unsafe_code = "forbid"` for code it compiles) and what
//! `cargo deny` holds (licences, sources, advisories' floors).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "architecture/breach.rs"]
mod breach;
#[path = "architecture/crates.rs"]
mod crates;
#[path = "architecture/documents.rs"]
mod documents;
#[path = "architecture/house.rs"]
mod house;
#[path = "architecture/purity.rs"]
mod purity;
#[path = "architecture/rooms.rs"]
mod rooms;
#[path = "architecture/source.rs"]
mod source;
#[path = "architecture/tree.rs"]
mod tree;
