//! Certificates that end while people work: agents renew over the link and after an absence, people by their login key,
//! and whoever was shut out does not.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::{Duration, SystemTime};

use fairlead::login;
use fairlead::profile::Profile;
use fairlead_identity::chain;
use fairlead_tests::clients::{Running, run};
use fairlead_tests::lab::Lab;
use tokio::time::sleep;

const DEVICE: &str = "pump-7.default.internal";
const ENDPOINT: &str = "ssh://pump-7.default.internal";
/// Lives as short as a gateway's file may ask for.
const SHORT: &str = "certificates: { agent: 10s, user: 10s }\n";

/// When the agent's certificate on disk ends.
fn ends(lab: &Lab) -> SystemTime {
    let pem = std::fs::read_to_string(lab.path("agents/pump-7/state/chain.pem")).unwrap();
    chain::validity(&chain::from_pem(&pem).unwrap()).unwrap().1
}

fn account() -> String {
    fairlead_agent::sshd::Account::current().unwrap().name
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_renews_over_its_link_and_no_session_is_cut() {
    let mut lab = Lab::configured(SHORT).await;
    lab.agent("pump-7").endpoint(ENDPOINT, "builtin:ssh").start().await;
    let first_end = ends(&lab);
    let alice = lab.user("alice", &["field"]).await;
    let destination = format!("{}@{DEVICE}", account());
    // Longer than the certificate that it began under lives.
    let long = Running::start(alice.ssh(&[&destination, "sleep 14; echo still here"]));
    assert_eq!(long.finish().await.succeeded().text(), "still here\n");
    assert!(SystemTime::now() > first_end, "the first certificate has ended by now");
    assert!(ends(&lab) > SystemTime::now(), "and the agent has another");
    let links = lab.gateway_audit().lines();
    let events = |name: &str| links.iter().filter(|line| line.text("event") == name).count();
    assert_eq!(
        (events("link.up"), events("link.down")),
        (1, 0),
        "on one and the same link"
    );
    assert!(events("renew") >= 1);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_away_when_its_certificate_ended_proves_its_key() {
    let mut lab = Lab::configured(SHORT).await;
    lab.agent("pump-7").endpoint(ENDPOINT, "builtin:ssh").start().await;
    lab.stop_agent("pump-7").await;
    // The only thing that this test can wait for is the end of the certificate.
    let left = ends(&lab).duration_since(SystemTime::now()).unwrap_or_default();
    sleep(left + Duration::from_secs(1)).await;
    lab.start_agent("pump-7").await;
    assert!(ends(&lab) > SystemTime::now());
    let alice = lab.user("alice", &["field"]).await;
    run(alice.ssh(&[&format!("{}@{DEVICE}", account()), "true"]))
        .await
        .succeeded();
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_key_earns_new_certificates_until_its_user_is_shut_out() {
    let mut lab = Lab::configured(SHORT).await;
    lab.agent("pump-7").endpoint(ENDPOINT, "builtin:ssh").start().await;
    let alice = lab.user("alice", &["field"]).await;
    let destination = format!("{}@{DEVICE}", account());
    sleep(Duration::from_secs(11)).await;
    let ended = run(alice.ssh(&[&destination, "true"])).await;
    assert!(!ended.status.success(), "the certificate has ended");
    let profile = Profile::at(alice.path(""));
    login::again(&profile).await.unwrap();
    run(alice.ssh(&[&destination, "true"])).await.succeeded();
    lab.disable_user("alice", true).await;
    let refused = login::again(&profile).await.unwrap_err();
    assert_eq!(refused.code(), 77, "{refused}");
    assert!(refused.to_string().contains("revoked"), "{refused}");
    lab.stop().await;
}
