//! Clocks that are months ahead, in 1970, or jump: who renews, who does not, and how often is tried (SECURITY.md P17, R14).

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fairlead_identity::chain;
use fairlead_runtime::clock::{Clock, ManualClock, SystemClock};
use fairlead_tests::clients::{Running, run};
use fairlead_tests::lab::{Lab, until};
use tokio::time::sleep;

const DEVICE: &str = "pump-7.default.internal";
const ENDPOINT: &str = "ssh://pump-7.default.internal";
const DAY: Duration = Duration::from_secs(86_400);

/// A clock that runs, and can be set.
#[derive(Clone)]
struct Skewed(Arc<std::sync::Mutex<i64>>);

impl Skewed {
    fn right() -> Self {
        Self(Arc::default())
    }

    /// Sets it to so many seconds beside the right time.
    fn set(&self, seconds: i64) {
        *self.0.lock().unwrap() = seconds;
    }
}

impl Clock for Skewed {
    fn now(&self) -> SystemTime {
        let skew = *self.0.lock().unwrap();
        let by = Duration::from_secs(skew.unsigned_abs());
        let now = SystemClock.now();
        if skew < 0 {
            now.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH)
        } else {
            now + by
        }
    }
}

/// When the agent's certificate on disk begins and ends.
fn validity(lab: &Lab) -> (SystemTime, SystemTime) {
    let pem = std::fs::read_to_string(lab.path("agents/pump-7/state/chain.pem")).unwrap();
    chain::validity(&chain::from_pem(&pem).unwrap()).unwrap()
}

fn account() -> String {
    fairlead_agent::sshd::Account::current().unwrap().name
}

fn renewals(lab: &Lab) -> usize {
    let lines = lab.gateway_audit().lines();
    let of_device =
        |line: &&fairlead_tests::lab::Line| line.text("event") == "renew" && line.text("decision") == "allow";
    lines.iter().filter(of_device).count()
}

/// A gateway and a device that share a clock; the device has been off for so long when this returns.
async fn after(absence: Duration) -> (Lab, ManualClock) {
    let clock = ManualClock::new(SystemTime::now());
    let mut lab = Lab::at("", Arc::new(clock.clone())).await;
    let plan = lab.agent("pump-7").clock(Arc::new(clock.clone()));
    plan.endpoint(ENDPOINT, "builtin:ssh").start().await;
    lab.stop_agent("pump-7").await;
    clock.advance(absence);
    // As a gateway does by itself within half a minute: its own certificate is past its time too.
    lab.gateway().reload_authority().await.unwrap();
    (lab, clock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_back_after_80_days_renews_by_proof_of_its_key_and_links() {
    let (mut lab, clock) = after(80 * DAY).await;
    assert!(
        validity(&lab).1 < clock.now() - 60 * DAY,
        "its certificate ended long ago"
    );
    lab.start_agent("pump-7").await;
    let (begins, ends) = validity(&lab);
    assert!(begins < clock.now() && clock.now() < ends);
    assert_eq!(renewals(&lab), 1);
    // And over the link from there on, as if it had never been away.
    let links = lab.gateway_audit().lines();
    assert_eq!(links.iter().filter(|line| line.text("event") == "link.up").count(), 2);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_deleted_while_it_was_away_gets_nothing() {
    let (mut lab, _clock) = after(80 * DAY).await;
    lab.admin().delete("/v1/agents/default/pump-7").await.unwrap();
    let before = validity(&lab);
    lab.start_agent_in_vain("pump-7", "revoked").await;
    assert_eq!(validity(&lab), before);
    assert_eq!(renewals(&lab), 0);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_certificate_ended_91_days_ago_is_told_expired() {
    let (mut lab, _clock) = after(14 * DAY + 91 * DAY).await;
    lab.start_agent_in_vain("pump-7", "expired: this agent was away for too long")
        .await;
    assert_eq!(renewals(&lab), 0);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_boots_in_1970_links_and_renews() {
    let gateways = ManualClock::new(SystemTime::now());
    let devices = ManualClock::new(SystemTime::now());
    let mut lab = Lab::at("", Arc::new(gateways.clone())).await;
    let plan = lab.agent("pump-7").clock(Arc::new(devices.clone()));
    plan.endpoint(ENDPOINT, "builtin:ssh").start().await;

    // A day later, with a certificate of the gateway that begins after the device's own.
    lab.stop_agent("pump-7").await;
    devices.set(SystemTime::UNIX_EPOCH);
    gateways.advance(DAY);
    lab.gateway().reload_authority().await.unwrap();
    lab.start_agent("pump-7").await;

    // Weeks later: the device cannot know that its certificate has ended, and is told.
    lab.stop_agent("pump-7").await;
    gateways.advance(40 * DAY);
    lab.gateway().reload_authority().await.unwrap();
    devices.set(SystemTime::UNIX_EPOCH + Duration::from_secs(60));
    lab.start_agent("pump-7").await;
    assert!(validity(&lab).1 > gateways.now());
    assert_eq!(renewals(&lab), 1);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_cuts_no_session_and_starts_no_storm_of_renewals() {
    let devices = Skewed::right();
    // A third of this life is 20 minutes: every renewal in this test comes of a jump.
    let mut lab = Lab::configured("certificates: { agent: 1h }\n").await;
    let plan = lab.agent("pump-7").clock(Arc::new(devices.clone()));
    plan.endpoint(ENDPOINT, "builtin:ssh").start().await;
    let alice = lab.user("alice", &["field"]).await;
    let destination = format!("{}@{DEVICE}", account());
    let long = Running::start(alice.ssh(&[&destination, "for i in $(seq 14); do echo $i; sleep 1; done; echo over"]));
    let day = 86_400;
    for skew in [-day, 10 * 365 * day, 0, -40 * 365 * day, 0] {
        devices.set(skew);
        run(alice.ssh(&[&destination, "true"])).await.succeeded();
        sleep(Duration::from_secs(2)).await;
    }
    let finished = long.finish().await.succeeded();
    assert!(finished.text().ends_with("\nover\n"), "{}", finished.text());
    let lines = lab.gateway_audit().lines();
    let events = |name: &str| lines.iter().filter(|line| line.text("event") == name).count();
    assert_eq!((events("link.up"), events("link.down"), events("renew")), (1, 0, 0));
    // Started by a clock that says the certificate is old: the new one looks as old, and is left alone.
    lab.stop_agent("pump-7").await;
    devices.set(1800);
    lab.start_agent("pump-7").await;
    until("it renews at once", async || (renewals(&lab) == 1).then_some(())).await;
    sleep(Duration::from_secs(25)).await;
    assert_eq!(renewals(&lab), 1);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_years_ahead_links_once_its_clock_is_set() {
    let devices = Skewed::right();
    let mut lab = Lab::start().await;
    let plan = lab.agent("pump-7").clock(Arc::new(devices.clone()));
    plan.endpoint(ENDPOINT, "builtin:ssh").start().await;
    lab.stop_agent("pump-7").await;
    devices.set(10 * 365 * 86_400);
    lab.start_agent_in_vain("pump-7", "is not the gateway").await;
    devices.set(0);
    until("the device links again", async || {
        let online = lab.gateway().roster().online();
        (!online.is_empty()).then_some(())
    })
    .await;
    lab.stop().await;
}
