//! Who is shut out is cut within 2 s, by whatever they came in, and everybody else notices nothing.

use std::time::{Duration, Instant};

use fairlead_identity::join::JoinString;
use fairlead_tests::clients::{run, run_with};
use fairlead_tests::lab::{DOMAIN, Lab, Person, until};
use fairlead_tests::upstream::Echo;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::forwards::{Forwarding, talk};
use crate::reviews::Shell;
use crate::stage::{AGENT, DEVICE, ENDPOINT, account, device};

const CUT_LIMIT: Duration = Duration::from_secs(2);
/// Forwards of one ssh.
const CHANNELS: usize = 10;

async fn revoke(lab: &Lab, what: Value) -> Value {
    let revoked: Result<Value, _> = lab.admin().send(Method::POST, "/v1/revocations", &what).await;
    revoked.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// As many forwards as wanted, on ssh processes of their own.
async fn forwards(lab: &Lab, person: &Person, processes: usize) -> (Vec<Forwarding>, Vec<UnixStream>) {
    let target = format!("{DEVICE}:7007");
    let (mut running, mut streams) = (Vec::new(), Vec::new());
    for process in 0..processes {
        let names: Vec<String> = (0..CHANNELS).map(|channel| format!("{process}-{channel}")).collect();
        let targets: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), target.as_str())).collect();
        let mut ssh = Forwarding::start(lab, person, &targets);
        for name in &names {
            let mut stream = ssh.connect(name).await;
            talk(&mut stream, "live").await;
            streams.push(stream);
        }
        running.push(ssh);
    }
    (running, streams)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_user_loses_two_hundred_sessions_and_nobody_else_loses_one() {
    let echo = Echo::start().await;
    let mut lab = Lab::start().await;
    let plan = lab
        .agent(AGENT)
        .endpoint("tcp://pump-7:7007", &format!("tcp://{}", echo.address));
    plan.start().await;
    let (alice, bob) = (lab.user("alice", &["field"]).await, lab.user("bob", &["field"]).await);
    let (mut kept_ssh, mut kept) = forwards(&lab, &bob, 5).await;
    let (lost_ssh, lost) = forwards(&lab, &alice, 20).await;
    assert_eq!(lab.sessions().await.len(), 250);
    let began = Instant::now();
    let revoking = revoke(&lab, json!({ "user": "alice" }));
    let cuts = async {
        let ends = lost.into_iter().map(|mut stream| async move {
            let mut rest = Vec::new();
            // An end or a reset: either is one.
            drop(stream.read_to_end(&mut rest).await);
            began.elapsed()
        });
        let mut took = Vec::new();
        let mut ends: Vec<_> = ends.map(Box::pin).collect();
        while !ends.is_empty() {
            let (one, rest) = first(ends).await;
            took.push(one);
            ends = rest;
        }
        took
    };
    let (revoked, mut took) = tokio::join!(revoking, cuts);
    assert_eq!(revoked["sessions"], 200);
    took.sort();
    let (p50, p99, max) = (took[100], took[197], took[199]);
    eprintln!("200 sessions of a revoked user cut: p50 {p50:?}, p99 {p99:?}, max {max:?}");
    assert!(p99 < CUT_LIMIT, "p99 {p99:?}");
    for stream in &mut kept {
        talk(stream, "still live").await;
    }
    until("an end of every session of hers", async || {
        (lab.sessions().await.len() == 50).then_some(())
    })
    .await;
    // Not by the connections that stand, nor by a new one, nor by a renewed certificate.
    for ssh in lost_ssh {
        let said = ssh.ssh.finish().await;
        assert!(said.stderr.contains("fairlead: revoked"), "{}", said.stderr);
    }
    let refused = run_with(alice.ssh(&["-W", &format!("{DEVICE}:7007"), DOMAIN]), b"").await;
    assert!(
        refused.stderr.contains("Permission denied (publickey)."),
        "{}",
        refused.stderr
    );
    assert!(alice.log_in_again().await.unwrap_err().contains("not known here"));
    assert!(kept_ssh.iter_mut().all(|ssh| ssh.ssh.is_alive()));
    drop((kept, kept_ssh));
    lab.stop().await;
}

/// The first of several to end, and the others.
async fn first<F: Future + Unpin>(futures: Vec<F>) -> (F::Output, Vec<F>) {
    let mut futures = futures;
    std::future::poll_fn(move |context| {
        for at in 0..futures.len() {
            if let std::task::Poll::Ready(output) = std::pin::Pin::new(&mut futures[at]).poll(context) {
                drop(futures.swap_remove(at));
                return std::task::Poll::Ready((output, std::mem::take(&mut futures)));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_login_key_takes_its_certificates_with_it_and_the_other_machine_goes_on() {
    let mut lab = Lab::start().await;
    lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh").start().await;
    let laptop = lab.user("alice", &["field"]).await;
    let keys: Value = lab.admin().get("/v1/users/alice/keys").await.unwrap();
    let fingerprint = keys["keys"][0]["fingerprint"].as_str().unwrap().to_owned();
    assert_eq!(keys["keys"][0]["kind"], "login");
    assert_eq!(keys["keys"][0]["algorithm"], "ecdsa-sha2-nistp256");
    assert!(
        !keys["keys"][0]["label"].as_str().unwrap().is_empty(),
        "the machine's name: {keys}"
    );
    let other = lab.another_machine("alice").await;
    let (lost, mut kept) = (
        Shell::open(&lab, &laptop, AGENT).await,
        Shell::open(&lab, &other, AGENT).await,
    );
    let cause = Instant::now();
    let revoked = revoke(&lab, json!({ "login_key": fingerprint[..14] })).await;
    assert_eq!((&revoked["id"], &revoked["sessions"]), (&json!(fingerprint), &json!(1)));
    let end = lost.ends_cut(&lab, "revoked", cause).await;
    assert!(cause.elapsed() < CUT_LIMIT, "{:?}", cause.elapsed());
    assert_eq!(end.fact("decided"), "shut-out");
    let refused = run(laptop.ssh(&[&device(), "true"])).await;
    assert!(
        refused.stderr.contains("Permission denied (publickey)."),
        "{}",
        refused.stderr
    );
    assert!(laptop.log_in_again().await.unwrap_err().contains("not known here"));
    kept.answers().await;
    drop(kept);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_agent_is_cut_off_and_its_name_stays_taken() {
    let mut lab = Lab::start().await;
    lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh").start().await;
    lab.agent("pump-8")
        .endpoint("ssh://pump-8", "builtin:ssh")
        .start()
        .await;
    let alice = lab.user("alice", &["field"]).await;
    let (lost, mut kept) = (
        Shell::open(&lab, &alice, AGENT).await,
        Shell::open(&lab, &alice, "pump-8").await,
    );
    let cause = Instant::now();
    assert_eq!(revoke(&lab, json!({ "agent": "pump-7" })).await["sessions"], 1);
    lost.ends_cut(&lab, "revoked", cause).await;
    assert!(cause.elapsed() < CUT_LIMIT, "{:?}", cause.elapsed());
    lab.wait_offline(AGENT).await;
    let refused = run(alice.ssh(&[&device(), "true"])).await;
    refused.refused_as("denied");
    let shown: Value = lab.admin().get("/v1/agents/default/pump-7").await.unwrap();
    assert_eq!(shown["disabled"], true);
    let again: Result<Value, _> = lab
        .admin()
        .send(Method::POST, "/v1/tokens", &json!({ "agent": AGENT }))
        .await;
    assert!(again.unwrap_err().to_string().contains("is disabled"));
    kept.answers().await;
    drop(kept);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_comes_by_a_join_string_is_no_user_and_is_shut_out_by_its_own_name() {
    let mut lab = Lab::start().await;
    lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh").start().await;
    lab.policy(
        "version: 1\nrules:\n  - { name: programs, sites: ['*'], effect: allow, expressions: [\"caller.kind == 'workload' && caller.labels['app'] == 'billing'\"] }\n",
    )
    .await;
    let created: Value = lab
        .admin()
        .send(
            Method::POST,
            "/v1/tokens",
            &json!({ "workload": "etl", "labels": { "app": "billing" } }),
        )
        .await
        .unwrap();
    let join = JoinString::parse(created["join"].as_str().unwrap()).unwrap();
    let etl = lab.log_in("etl", &join).await;
    let certificate = run({
        let mut keygen = fairlead_tests::clients::stock("ssh-keygen");
        keygen.arg("-Lf").arg(etl.path("id-cert.pub"));
        keygen
    })
    .await;
    assert!(certificate.text().contains("/workload/etl"), "{}", certificate.text());
    let live = Shell::open(&lab, &etl, AGENT).await;
    assert_eq!(lab.sessions().await[0].kind, "workload");
    let permit = lab.gateway_audit().awaited("session.permit", Some(&live.session)).await;
    assert_eq!((permit.text("caller"), permit.fact("caller_kind")), ("etl", "workload"));
    etl.log_in_again().await.unwrap();
    // A user of the same name there is not, and cannot be.
    let user: Result<Value, _> = lab
        .admin()
        .send(Method::POST, "/v1/tokens", &json!({ "user": "etl" }))
        .await;
    assert!(user.unwrap_err().to_string().contains("is the name of a workload"));
    let nobody: Result<Value, _> = lab
        .admin()
        .send(Method::POST, "/v1/revocations", &json!({ "user": "etl" }))
        .await;
    assert!(nobody.is_err());
    let cause = Instant::now();
    revoke(&lab, json!({ "workload": "etl" })).await;
    live.ends_cut(&lab, "revoked", cause).await;
    let target = format!("{}@{DEVICE}", account());
    let refused = run(etl.ssh(&[&target, "true"])).await;
    assert!(
        refused.stderr.contains("Permission denied (publickey)."),
        "{}",
        refused.stderr
    );
    assert!(etl.log_in_again().await.is_err());
    lab.stop().await;
}
