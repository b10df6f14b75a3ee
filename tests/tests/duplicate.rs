//! A device's state directory is copied into another machine (SECURITY.md P8): the copy is noticed, the first keeps
//! serving, and the operator is told.
//!
//! Topology: the gateway in the middle, the device and its copy in network namespaces of their own, each behind a pair of
//! virtual interfaces. Which of the two serves is asked of the sessions themselves: `readlink /proc/self/ns/net`.
//!
//! With FAIRLEAD_TESTS_ALL=1 the test goes on until the place has changed hands twice, which takes more than a minute.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and a skip is loud"
)]

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fairlead_tests::clients::{self, Running, asks_for_all};
use fairlead_tests::netns::{self, Place};
use fairlead_tests::programs::{
    AgentHome, DEVICE, Daemon, GatewayHome, PATIENCE, UserHome, account, throw_away, until,
};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

const REPORTED_WITHIN: Duration = Duration::from_secs(5);
/// While a conflict stands, the place changes hands at most once in this.
const SWITCH_EVERY: Duration = Duration::from_secs(60);

#[test]
fn a_copied_device_is_reported_within_five_seconds_and_the_first_keeps_serving() {
    netns::alone(
        "a_copied_device_is_reported_within_five_seconds_and_the_first_keeps_serving",
        inside(),
    );
}

async fn inside() {
    netns::be_the_middle().await;
    let dir = throw_away();
    let home = GatewayHome::in_the_middle(&dir.path().join("gateway")).await;
    let _gateway = home.start().await;
    let (here, elsewhere) = (Place::new(1).await, Place::new(2).await);
    let device = home
        .agent(&dir.path().join("device"), DEVICE, &AgentHome::builtin(DEVICE))
        .await;
    let mut first = start_in(&here, &device);
    home.linked(1).await;
    let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
    assert_eq!(serving(&alice).await, here.name());
    let mut session = Session::start(&alice).await;

    let copy = copy_of(&device, &dir.path().join("copy")).await;
    let began = Instant::now();
    let mut second = start_in(&elsewhere, &copy);
    let conflict = until("the conflict is listed", REPORTED_WITHIN, async || listed(&home).await).await;
    let reported = began.elapsed();
    println!("reported {} ms after the copy was started", reported.as_millis());
    assert!(
        conflict["serving"].as_str().unwrap().starts_with(&here.address),
        "{conflict}"
    );
    assert!(
        conflict["other"].as_str().unwrap().starts_with(&elsewhere.address),
        "{conflict}"
    );
    assert!(conflict["since"].as_i64().unwrap() > 0, "{conflict}");
    assert!(home.metric("fairlead_identity_conflicts_total").await.unwrap() >= 1);
    let lines = home.audit(&["\"identity.conflict\"", &elsewhere.address]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let shown = home.fairlead(&["agents", "show", DEVICE]).await.succeeded().text();
    assert!(shown.contains("CONFLICT") && shown.contains("--replace"), "{shown}");
    assert!(
        second.log().contains("--replace"),
        "the copy does not say what to do: {}",
        second.log()
    );

    // The first serves on, whatever the copy tries; the copy stays visible and fills no log.
    session.echoes("still here").await;
    let tried_again = async || {
        let tries = listed(&home).await.unwrap()["tries"].as_u64().unwrap();
        (tries >= 2).then_some(tries)
    };
    until("the copy tries again", PATIENCE, tried_again).await;
    assert_eq!(serving(&alice).await, here.name());
    session.echoes("and now").await;
    session.end().await;
    assert_eq!(home.audit(&["\"identity.conflict\""]).len(), 1);

    // Once the first is dead, the copy may serve, and the audit says so.
    let died = Instant::now();
    first.kill().await;
    serves(&alice, &elsewhere).await;
    println!(
        "the copy serves {} s after the first has died",
        died.elapsed().as_secs()
    );
    assert_eq!(home.audit(&["\"identity.switch\"", &elsewhere.address]).len(), 1);
    let switched = Instant::now();
    if asks_for_all() {
        let mut first = start_in(&here, &device);
        until("the first is the other one", PATIENCE, async || {
            let other = listed(&home).await?["other"].as_str()?.to_owned();
            other.starts_with(&here.address).then_some(())
        })
        .await;
        assert_eq!(serving(&alice).await, elsewhere.name());
        second.kill().await;
        serves(&alice, &here).await;
        assert!(
            switched.elapsed() + Duration::from_secs(5) >= SWITCH_EVERY,
            "it changed hands again after {:?}",
            switched.elapsed()
        );
        assert_eq!(home.audit(&["\"identity.switch\""]).len(), 2);
        assert!(first.is_alive());
    }
    // The operator chooses by deleting or replacing the identity; then nothing is marked.
    home.fairlead(&["agents", "delete", DEVICE]).await.succeeded();
    let agents = home.json(&["agents", "list"]).await;
    assert_eq!(agents["agents"].as_array().unwrap().len(), 0);
    assert_eq!(home.metric("fairlead_panics_total").await, Some(0));
}

fn start_in(place: &Place, device: &AgentHome) -> Daemon {
    Daemon::start(place.within(&device.command("run")), &device.path("agent.log"))
}

/// Another machine's directory with the same state.
async fn copy_of(device: &AgentHome, dir: &Path) -> AgentHome {
    let copy = AgentHome::plan(dir, &AgentHome::builtin(DEVICE));
    let mut cp = clients::stock("cp");
    cp.arg("--archive").arg(device.path("state")).arg(copy.path("state"));
    clients::run(cp).await.succeeded();
    copy
}

/// The device's conflict, as the list shows it.
async fn listed(home: &GatewayHome) -> Option<Value> {
    let list = home.json(&["agents", "list"]).await;
    let conflict = list["agents"][0]["conflict"].clone();
    (!conflict.is_null()).then_some(conflict)
}

/// Where a new session ends up.
async fn serving(alice: &UserHome) -> String {
    alice
        .on(DEVICE, "readlink /proc/self/ns/net")
        .await
        .succeeded()
        .text()
        .trim()
        .to_owned()
}

/// Waits until sessions end up in `place`.
async fn serves(alice: &UserHome, place: &Place) {
    let limit = SWITCH_EVERY * 3;
    until("the other machine serves", limit, async || {
        let looked = alice.on(DEVICE, "readlink /proc/self/ns/net").await;
        (looked.text().trim() == place.name()).then_some(())
    })
    .await;
}

/// A session that stays open.
struct Session {
    ssh: Running,
}

impl Session {
    async fn start(alice: &UserHome) -> Self {
        let device = format!("{}@{DEVICE}.default.internal", account());
        let mut command = alice.ssh_command(&[&device, "cat"]);
        command.stdin(Stdio::piped());
        let mut session = Self {
            ssh: Running::start(command),
        };
        session.echoes("hello").await;
        session
    }

    async fn echoes(&mut self, text: &str) {
        let stdin = self.ssh.stdin.as_mut().unwrap();
        stdin.write_all(format!("{text}\n").as_bytes()).await.unwrap();
        assert_eq!(self.ssh.line().await, text);
    }

    async fn end(mut self) {
        drop(self.ssh.stdin.take());
        self.ssh.finish().await.succeeded();
    }
}
