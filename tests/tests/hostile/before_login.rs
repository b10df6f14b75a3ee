//! SSH by somebody who keeps to no rule, and logins that fail again and again.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use fairlead_tests::clients::{self, Finished, asks_for_all, stock};
use fairlead_tests::programs::{AgentHome, DEVICE, PATIENCE, Scene, until};
use tokio::process::Command;

use super::memory::resident_kib;

/// Debian's, which has the SSH libraries.
const PYTHON: &str = "/usr/bin/python3";
const ATTACKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile/attacks.py");
/// Below it, what the allocator keeps; a queue that grows would show hundreds of MiB.
const GROWTH_KIB: u64 = 64 * 1024;

/// Attacks that the server survives by going on; all others must be answered by a close or a plain no.
const GOES_ON: &[(&str, &str)] = &[
    ("control_login", "opened"),
    ("control_login_afterwards", "opened"),
    ("strict_key_exchange_is_offered", "strict, safe"),
    ("user_changed_after_login", "ignored"),
    ("window_of_zero_stalls_only_itself", "others live"),
    ("window_overflow", "bounded"),
    ("a_thousand_channels", "bounded"),
    ("ext_info_after_login", "ignored"),
    ("rekeys_after_login", "done"),
];

#[tokio::test]
async fn ssh_that_keeps_to_no_rule_gets_nothing_and_ends_nothing() {
    // Accepts, in the kernel's queue, and never reads.
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let sink = (sink.local_addr().unwrap().port(), sink);
    let mut scene = Scene::with_endpoints(&AgentHome::tcp(DEVICE, sink.0)).await;
    scene.home.user(&scene.path("mallory"), "mallory", "nobody").await;
    let log_before = scene.gateway.log().lines().count();
    let rss_before = resident_kib(scene.gateway.id());
    let mut attacks = stock(PYTHON);
    attacks.arg(ATTACKS).arg(scene.home.port.to_string());
    attacks.arg(scene.path("alice/id")).arg(scene.path("mallory/id"));
    attacks
        .arg(if asks_for_all() { "1" } else { "0.02" })
        .arg(sink.0.to_string());
    let finished = clients::run(attacks).await.succeeded();
    let text = finished.text();
    print!("{text}");
    assert!(text.lines().count() > 70, "{text}{}", finished.stderr);
    for line in text.lines() {
        let (name, outcome) = line.split_once('\t').expect("a name and an outcome");
        let (outcome, _took) = outcome.rsplit_once('\t').expect("an outcome and a time");
        match GOES_ON.iter().find(|(known, _)| *known == name) {
            Some((_, wanted)) => assert_eq!(outcome, *wanted, "{name}"),
            None if name == "user_changed_after_offer" => {
                assert!(outcome.contains("fairlead: denied"), "{name}: {outcome}")
            }
            None => assert!(is_refused(outcome), "{name}: {outcome}"),
        }
    }
    let grown = resident_kib(scene.gateway.id()).saturating_sub(rss_before);
    println!("resident memory grew by {grown} KiB");
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    let lines = scene.gateway.log().lines().count() - log_before;
    assert!(lines <= 40, "{lines} log lines");
    scene.alice.on(DEVICE, "true").await.succeeded();
    scene.is_sound().await;
}

/// Nothing was given: closed, told no, or taken for nothing.
fn is_refused(outcome: &str) -> bool {
    outcome.starts_with("closed") || outcome.starts_with("message ") || outcome == "ignored" || outcome == "read"
}

#[tokio::test]
async fn a_source_whose_logins_fail_is_shut_out_for_half_a_minute_and_others_are_not() {
    let mut scene = Scene::set().await;
    scene.gateway.kill().await;
    scene.home.limits = "login_failures_per_source: 5".into();
    scene.home.write();
    scene.gateway = scene.home.start().await;
    scene.alice.reaches(DEVICE, PATIENCE).await;
    let wrong = scene.path("wrong");
    let mut make = stock("ssh-keygen");
    make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&wrong);
    clients::run(make).await.succeeded();
    let (good, wrong) = (scene.path("alice/id"), wrong);

    // Four failures and a success: the count begins again.
    for _ in 0..4 {
        failed(&clients::run(through(&scene, "127.0.3.1", &wrong)).await);
    }
    greeted(&clients::run(through(&scene, "127.0.3.1", &good)).await);
    for _ in 0..5 {
        failed(&clients::run(through(&scene, "127.0.3.1", &wrong)).await);
    }
    let shut_out = Instant::now();
    for key in [&wrong, &good] {
        let refused = clients::run(through(&scene, "127.0.3.1", key)).await;
        assert!(
            refused
                .stderr
                .contains("too many failed logins from this address; try again in"),
            "{}",
            refused.stderr
        );
    }
    greeted(&clients::run(through(&scene, "127.0.3.2", &good)).await);
    scene.alice.on(DEVICE, "true").await.succeeded();

    // Neither knocking nor waiting makes it longer.
    let back = until("the source is let in again", Duration::from_secs(60), async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let tried = clients::run(through(&scene, "127.0.3.1", &good)).await;
        tried.text().starts_with("SSH-2.0-").then(|| shut_out.elapsed())
    })
    .await;
    println!("shut out for {back:.1?}");
    assert!(back >= Duration::from_secs(28), "{back:?}");
    let audit = scene.home.audit(&["auth.fail", "127.0.3.1"]);
    assert_eq!(audit.len(), 9, "one line for each login that failed: {audit:?}");
    assert_eq!(
        audit.iter().filter(|line| line.contains("\"shut_out\":true")).count(),
        1,
        "{audit:?}"
    );
    assert!(
        audit.iter().all(|line| line.contains("\"reason\":\"unknown-key\"")),
        "{audit:?}"
    );
    scene.is_sound().await;
}

#[tokio::test]
async fn asyncssh_gets_in_with_a_certificate_and_not_without() {
    let mut scene = Scene::set().await;
    scene.home.user(&scene.path("mallory"), "mallory", "nobody").await;
    let mut libraries = stock(PYTHON);
    libraries.args([
        "-W",
        "ignore",
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile/by_asyncssh.py"),
    ]);
    libraries
        .arg(scene.home.port.to_string())
        .arg(scene.path("alice/id"))
        .arg(scene.path("mallory/id"));
    let finished = clients::run(libraries).await.succeeded();
    let text = finished.text();
    print!("{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "certificate: SSH-2.0-",
            "unknown key: refused",
            "another's certificate: refused",
            "password: refused",
        ],
        "{}",
        finished.stderr
    );
    scene.is_sound().await;
}

/// Stock ssh from `source` straight to the device's port: prints the device's greeting when it gets through.
fn through(scene: &Scene, source: &str, key: &std::path::Path) -> Command {
    let mut ssh = stock("ssh");
    ssh.args([
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "IdentitiesOnly=yes",
    ])
    .args([
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        &format!("BindAddress={source}"),
    ])
    .args(["-p", &scene.home.port.to_string(), "-l", "alice", "-i"])
    .arg(key)
    .args(["-W", "pump-7.default.internal:22", "127.0.0.1"])
    .stdin(std::process::Stdio::null());
    ssh
}

#[track_caller]
fn failed(finished: &Finished) {
    assert!(
        finished.stderr.contains("Permission denied (publickey)"),
        "{}",
        finished.stderr
    );
}

#[track_caller]
fn greeted(finished: &Finished) {
    assert!(
        finished.text().starts_with("SSH-2.0-"),
        "{}{}",
        finished.text(),
        finished.stderr
    );
}
