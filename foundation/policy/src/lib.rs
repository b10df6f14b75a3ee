//! YAML and CEL rules compiled to one decision: may this caller use this endpoint now?
//!
//! The same language is enforced at both ends. [`AccessPolicy`] is the gateway's: sets of files, scoped by site, with tests.
//! [`LocalRules`] are the customer's: the rules of one endpoint in the agent's own file, which the gateway cannot change.
//! `docs/policy.md` describes the language.
//!
//! Everything here is a function of its arguments: no clock, no file, no socket. Text from people is hostile until compiled:
//! sizes are bounded before parsing, trees before checking, and what could not be understood denies.
//!
//! Deliberately absent: who the caller is (fairlead-identity), where labels and groups come from (the gateway's store),
//! reading files and keeping the last good set (the programs), and anything a protocol's code knows. A protocol's variables
//! are rows of one table here.
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

mod check;
mod decide;
mod document;
mod duration;
mod explain;
mod expression;
mod facts;
mod fields;
mod functions;
mod guard;
mod index;
mod mistake;
mod operators;
mod place;
mod policy;
mod request;
mod rule;
mod schema;
mod selftest;
mod shape;
mod suggest;
mod table;
mod topics;
mod yaml;

pub use document::{AccessDocument, RuleAsWritten, RuleOutline};
pub use explain::{Explanation, MAX_EXPLAINED_RULES, PartExplained, RuleExplained, Said, Seen};
pub use expression::{MAX_DEPTH, MAX_EXPRESSION_BYTES, MAX_NODES};
pub use mistake::{MAX_MISTAKES, Mistake, Warning};
pub use policy::{AccessPolicy, LocalRules, MAX_FILES, MAX_RULES, MAX_SET_BYTES, Source, policy_digest};
pub use request::{
    AgentFacts, Allowed, Caller, CallerKind, Conn, Decision, Denied, DenyReason, Effect, Enforcement, Limits,
    MAX_COMMAND_BYTES, MAX_FACT_BYTES, MAX_LIST_ITEMS, MAX_TOPIC_BYTES, MqttAct, MqttFacts, PostgresFacts, Request,
    RuleRef, ShadowMatch, SshFacts, TlsFacts,
};
pub use schema::Document;
