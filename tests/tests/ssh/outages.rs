//! What is away or broken: told to whoever may use it, waited for after a gateway's start, and noticed in time.

use std::time::Duration;

use fairlead_tests::clients::{Running, run, run_with};
use fairlead_tests::lab::{DOMAIN, Lab};
use fairlead_tests::upstream::Refusing;
use tokio::time::{Instant, sleep_until};

use crate::stage::{AGENT, DEVICE, ENDPOINT, Server, Stage, device};

/// For this long after its start a gateway waits for agents that callers ask for.
const START_GRACE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_away_is_offline_to_the_permitted_and_denied_to_others() {
    let mut lab = Lab::start().await;
    let started = Instant::now();
    lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh").start().await;
    let (alice, mallory) = (
        lab.user("alice", &["field"]).await,
        lab.user("mallory", &["strangers"]).await,
    );
    lab.stop_agent(AGENT).await;
    run(mallory.ssh(&[&device(), "true"])).await.refused_as("denied");
    // The only thing that this test can wait for is the clock.
    sleep_until(started + START_GRACE).await;
    let said = run(alice.ssh(&[&device(), "true"])).await;
    let session = said.refused_as("offline");
    assert!(
        said.took < Duration::from_secs(5),
        "past the start nobody waits for an agent: {:?}",
        said.took
    );
    assert_eq!(
        lab.gateway_audit().shown(&session),
        ["session.permit", "session.end offline"]
    );
    assert!(lab.agent_audit(AGENT).of(&session).is_empty());
    lab.start_agent(AGENT).await;
    run(alice.ssh(&[&device(), "true"])).await.succeeded();
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soon_after_the_start_a_request_waits_for_its_agent() {
    let mut stage = Stage::set(Server::Builtin).await;
    stage.lab.stop_agent(AGENT).await;
    let waiting = Running::start(stage.ssh(&["echo waited"]));
    let lab = &mut stage.lab;
    lab.gateway_audit().awaited("session.permit", None).await;
    lab.start_agent(AGENT).await;
    assert_eq!(waiting.finish().await.succeeded().text(), "waited\n");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_refuses_is_upstream_failed_to_the_permitted() {
    let refusing = Refusing::bind();
    let mut lab = Lab::start().await;
    let upstream = format!("tcp://{}", refusing.address);
    lab.agent(AGENT)
        .endpoint(ENDPOINT, &upstream)
        .endpoint("tcp://pump-7:7007", "tcp://no-such-name.invalid:7")
        .start()
        .await;
    let (alice, mallory) = (
        lab.user("alice", &["field"]).await,
        lab.user("mallory", &["strangers"]).await,
    );
    for port in [22, 7007] {
        let target = format!("{DEVICE}:{port}");
        let said = run_with(alice.ssh(&["-W", &target, DOMAIN]), b"").await;
        let session = said.refused_as("upstream-failed");
        assert_eq!(
            lab.gateway_audit().shown(&session),
            ["session.permit", "session.end upstream-failed"]
        );
        let at_agent = lab.agent_audit(AGENT);
        if port == 22 {
            at_agent.awaited("session.end", Some(&session)).await;
            let lines = ["session.permit", "session.end upstream-failed"];
            assert_eq!(at_agent.shown(&session), lines);
        } else {
            // Without an address there is nothing to permit.
            assert_eq!(at_agent.shown(&session), ["session.refuse lookup-failed"]);
        }
        // The customer's log has the addresses, and nobody else.
        let detail = |line: &fairlead_tests::lab::Line| line.fact("detail").to_owned();
        let (ours, theirs) = (
            detail(&lab.gateway_audit().of(&session)[1]),
            at_agent.of(&session).last().map(detail).unwrap_or_default(),
        );
        let secret = if port == 22 {
            refusing.address.to_string()
        } else {
            "no-such-name.invalid".to_owned()
        };
        assert!(
            theirs.contains(&secret) && !ours.contains(&secret) && !said.stderr.contains(&secret),
            "{ours} {theirs}"
        );
        run_with(mallory.ssh(&["-W", &target, DOMAIN]), b"")
            .await
            .refused_as("denied");
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_resets_is_told_apart_from_a_plain_end() {
    let mut lab = Lab::start().await;
    let resetting = fairlead_tests::upstream::Resetting::start().await;
    lab.agent(AGENT)
        .endpoint("tcp://pump-7:7007", &format!("tcp://{}", resetting.address))
        .start()
        .await;
    let alice = lab.user("alice", &["field"]).await;
    let said = run_with(alice.ssh(&["-W", &format!("{DEVICE}:7007"), DOMAIN]), b"hello").await;
    let session = said.refused_as("upstream-failed");
    assert_eq!(
        lab.agent_audit(AGENT)
            .awaited("session.end", Some(&session))
            .await
            .text("reason"),
        "upstream-failed"
    );
    lab.stop().await;
}
