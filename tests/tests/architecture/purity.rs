//! What pure code may read, and who may start a task.

use crate::breach::{Breach, assert_none};
use crate::source::SourceFile;
use crate::tree;

/// Same inputs, same outputs: time, files and seeds come in as arguments.
const PURE: &[&str] = &[
    "fairlead_wire",
    "fairlead_protocol",
    "fairlead_identity",
    "fairlead_policy",
    "fairlead_gateway::link::state",
    "fairlead_agent::link::state",
];

const CLOCKS: &[&[&str]] = &[
    &["SystemTime", "now"],
    &["Instant", "now"],
    &["OffsetDateTime", "now_utc"],
    &["OffsetDateTime", "now_local"],
    &["UtcDateTime", "now"],
    &["Utc", "now"],
    &["Local", "now"],
];

const OUTSIDE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::process",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os::unix::net",
    "tokio",
];

const RANDOMNESS: &[&str] = &["rand", "getrandom", "aws_lc_rs::rand", "rustls::crypto::SecureRandom"];

/// The one pure room whose product is randomness.
const KEYS: &str = "fairlead_identity::keys";

fn check_pure(file: &SourceFile) -> Vec<Breach> {
    if !PURE.iter().any(|room| file.is_in(room)) {
        return Vec::new();
    }
    let breach = |line, found, rule: &str| Breach {
        file: file.name.clone(),
        line,
        found,
        rule: rule.to_owned(),
    };
    let mut breaches = Vec::new();
    for mention in file.shipped() {
        if CLOCKS.iter().any(|clock| mention.ends_with(clock)) {
            breaches.push(breach(
                mention.line,
                mention.text(),
                "pure code reads no clock: take `now` as an argument",
            ));
        } else if OUTSIDE.iter().any(|place| mention.reaches(place)) {
            breaches.push(breach(
                mention.line,
                mention.text(),
                "pure code opens nothing: take the bytes as an argument",
            ));
        } else if !file.is_in(KEYS) && RANDOMNESS.iter().any(|place| mention.reaches(place)) {
            breaches.push(breach(
                mention.line,
                mention.text(),
                "pure code draws nothing at random: take the bytes as an argument, or ask fairlead_identity::keys",
            ));
        }
    }
    let elapsed = file.shipped_calls().filter(|c| c.name == "elapsed");
    breaches.extend(elapsed.map(|c| {
        breach(
            c.line,
            "`.elapsed()`".into(),
            "pure code reads no clock: subtract from `now`",
        )
    }));
    breaches
}

/// Ways to start a task or thread that nobody owns. `spawn_blocking` and named threads stay possible: their starter holds
/// the handle.
const SPAWNS: &[&str] = &[
    "tokio::spawn",
    "tokio::runtime::Handle",
    "tokio::task::Builder",
    "tokio::task::JoinSet",
    "tokio::task::LocalSet",
    "tokio::task::spawn",
    "tokio::task::spawn_local",
    "tokio_util::task::TaskTracker",
    "std::thread::spawn",
];

fn check_spawns(file: &SourceFile) -> Vec<Breach> {
    if file.is_in("fairlead_runtime::tasks") {
        return Vec::new();
    }
    let rule = "every task has an owner that awaits it: spawn through fairlead_runtime::tasks::TaskGroup";
    let found = file.shipped().filter(|m| SPAWNS.iter().any(|spawn| m.reaches(spawn)));
    found
        .map(|m| Breach {
            file: file.name.clone(),
            line: m.line,
            found: m.text(),
            rule: rule.into(),
        })
        .collect()
}

#[test]
fn pure_code_reads_no_clock_file_socket_or_chance() {
    assert_none(&tree::product().iter().flat_map(check_pure).collect::<Vec<_>>());
}

#[test]
fn only_the_task_group_spawns() {
    assert_none(&tree::product().iter().flat_map(check_spawns).collect::<Vec<_>>());
}

#[cfg(test)]
mod proofs {
    use super::{SourceFile, check_pure, check_spawns};

    #[test]
    fn impure_code_is_found() {
        for text in [
            "fn f() { std::time::SystemTime::now(); }",
            "use std::time::Instant as Clock; fn f() { Clock::now(); }",
            "fn f() { time::OffsetDateTime::now_utc(); }",
            "fn f(since: T) { since.elapsed(); }",
            "fn f() { std::fs::read(p); }",
            "fn f() { std::net::UdpSocket::bind(a); }",
            "fn f() { tokio::time::sleep(d); }",
            "fn f() { rand::random::<u8>(); }",
        ] {
            let file = SourceFile::parse("foundation/policy/src/decide.rs", "fairlead_policy", text).unwrap();
            assert!(!check_pure(&file).is_empty(), "{text}");
        }
    }

    #[test]
    fn pure_code_may_know_times_and_addresses() {
        let text =
            "use std::{net::IpAddr, time::{Duration, SystemTime}}; fn f(now: SystemTime) { now.duration_since(t); }";
        let file = SourceFile::parse("foundation/policy/src/decide.rs", "fairlead_policy", text).unwrap();
        assert_eq!(check_pure(&file), []);
    }

    #[test]
    fn clocks_are_free_elsewhere_but_not_in_a_state_machine() {
        let text = "fn f() { std::time::Instant::now(); }";
        let found = |name: &str| check_pure(&SourceFile::parse(name, "fairlead_gateway", text).unwrap()).len();
        assert_eq!(found("gateway/src/link/accept.rs"), 0);
        assert_eq!(found("gateway/src/link/state.rs"), 1);
    }

    #[test]
    fn a_task_without_an_owner_is_found() {
        for text in [
            "fn f() { tokio::spawn(x); }",
            "use tokio::task; fn f() { task::spawn_local(x); }",
            "use tokio::task::JoinSet;",
            "fn f() { tokio::runtime::Handle::current().spawn(x); }",
            "fn f() { std::thread::spawn(x); }",
            "fn f() { tokio::select! { _ = a => { tokio::spawn(x); } } }",
        ] {
            let file = SourceFile::parse("gateway/src/link/accept.rs", "fairlead_gateway", text).unwrap();
            assert!(!check_spawns(&file).is_empty(), "{text}");
            let owner = SourceFile::parse("foundation/runtime/src/tasks.rs", "fairlead_runtime", text).unwrap();
            assert_eq!(check_spawns(&owner), [], "{text}");
        }
    }
}
