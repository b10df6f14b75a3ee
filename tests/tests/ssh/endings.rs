//! Sessions that are ended from outside while bytes are in flight: the caller is told why, and both audits know.

use std::process::Stdio;
use std::time::{Duration, Instant};

use fairlead_tests::clients::{Finished, Running, run};
use fairlead_tests::lab::{DOMAIN, Lab};
use fairlead_tests::upstream::{Echo, Flood};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::forwards::{Forwarding, talk};
use crate::stage::{AGENT, DEVICE, Stage};

/// How soon a session is over for its caller once somebody with the power to end it has said so.
const END_LIMIT: Duration = Duration::from_secs(2);

/// A session in full flow: a program that talks without end, of which the first line has arrived.
async fn in_flight(stage: &Stage) -> (Running, String) {
    let mut command = stage.ssh(&["echo begun; exec yes"]);
    command.stdin(Stdio::piped());
    let mut ssh = Running::start(command);
    assert_eq!(ssh.line().await, "begun");
    let session = stage.live_session().await;
    (ssh, session)
}

/// Checks that ssh failed with this reason for this session, in time.
#[track_caller]
fn was_ended(said: &Finished, reason: &str, session: &str) {
    assert_eq!(said.refused_as(reason), session);
    assert!(said.took < END_LIMIT, "the end took {:?}", said.took);
}

on_both_servers! {
    a_killed_session_ends_at_once_with_the_reason(stage) {
        let (ssh, session) = in_flight(&stage).await;
        stage.lab.kill(&session).await;
        was_ended(&ssh.finish().await, "killed", &session);
        assert_eq!(stage.lab.gateway_audit().shown(&session), ["session.permit", "session.kill", "session.end killed"]);
        let at_agent = stage.lab.agent_audit("pump-7").awaited("session.end", Some(&session)).await;
        assert_eq!(at_agent.text("reason"), "killed");
        run(stage.ssh(&["true"])).await.succeeded();
        stage.strike().await;
    }

    the_sessions_of_a_user_who_is_shut_out_end_at_once(stage) {
        let (ssh, session) = in_flight(&stage).await;
        stage.lab.disable_user("alice", true).await;
        was_ended(&ssh.finish().await, "revoked", &session);
        let at_agent = stage.lab.agent_audit("pump-7").awaited("session.end", Some(&session)).await;
        assert_eq!(at_agent.text("reason"), "revoked");
        stage.strike().await;
    }

    an_idle_shell_is_killed_as_well(stage) {
        let mut command = stage.ssh(&["echo $$; exec cat"]);
        command.stdin(Stdio::piped());
        let mut ssh = Running::start(command);
        let program: u32 = ssh.line().await.parse().unwrap();
        let session = stage.live_session().await;
        stage.lab.kill(&session).await;
        was_ended(&ssh.finish().await, "killed", &session);
        let proc = format!("/proc/{program}");
        fairlead_tests::lab::until("the end of the program", async || (!std::fs::exists(&proc).unwrap()).then_some(())).await;
        stage.strike().await;
    }

    a_gateway_that_stops_ends_what_outlasts_its_grace(stage) {
        let mut stage = stage;
        let (ssh, session) = in_flight(&stage).await;
        let grace = Duration::from_millis(700);
        let began = Instant::now();
        // Output is drained meanwhile, or the caller could not be told anything.
        let (said, ()) = tokio::join!(ssh.finish(), stage.lab.stop_gateway(grace));
        assert_eq!(said.refused_as("gateway-stopping"), session);
        assert!(said.took >= grace, "the session was ended within its grace");
        assert!(began.elapsed() < Duration::from_secs(10), "the stop took {:?}", began.elapsed());
        assert_eq!(stage.lab.gateway_audit().shown(&session), ["session.permit", "session.end gateway-stopping"]);
        stage.strike().await;
    }

    a_gateway_that_stops_lets_a_session_finish_within_its_grace(stage) {
        let mut stage = stage;
        let mut command = stage.ssh(&["echo begun; read line; echo $line; exit 5"]);
        command.stdin(Stdio::piped());
        let mut ssh = Running::start(command);
        assert_eq!(ssh.line().await, "begun");
        let address = stage.lab.address();
        let other = stage.alice.clone();
        let finishing = async {
            fairlead_tests::lab::until("a gateway that takes nobody new", async || {
                tokio::net::TcpStream::connect(address).await.is_err().then_some(())
            }).await;
            let refused = run(other.ssh(&[DOMAIN])).await;
            assert!(refused.stderr.contains("Connection refused"), "{}", refused.stderr);
            ssh.stdin.take().unwrap().write_all(b"to the end\n").await.unwrap();
            ssh.finish().await
        };
        let (said, ()) = tokio::join!(finishing, stage.lab.stop_gateway(Duration::from_secs(60)));
        assert_eq!((said.text().as_str(), said.code()), ("to the end\n", Some(5)), "{}", said.stderr);
        stage.strike().await;
    }

    an_agent_that_stops_ends_its_sessions_with_the_reason(stage) {
        let mut stage = stage;
        let (ssh, session) = in_flight(&stage).await;
        let (said, ()) = tokio::join!(ssh.finish(), stage.lab.stop_agent("pump-7"));
        assert_eq!(said.code(), Some(255), "{}", said.stderr);
        let told = said.stderr.contains(&format!("fairlead: agent-stopping (session {session})"))
            || said.stderr.contains("fairlead: the agent is stopping");
        assert!(told, "{}{:?}", said.stderr, stage.lab.gateway_audit().lines().iter().rev().take(3).collect::<Vec<_>>());
        let at_agent = stage.lab.agent_audit("pump-7").awaited("session.end", Some(&session)).await;
        assert_eq!(at_agent.text("reason"), "agent-stopping");
        stage.lab.gateway_audit().awaited("session.end", Some(&session)).await;
        stage.lab.start_agent("pump-7").await;
        run(stage.ssh(&["true"])).await.succeeded();
        stage.strike().await;
    }

    a_session_that_is_over_its_time_is_ended(stage) {
        stage.lab.policy("version: 1\nrules:\n  - { name: r, sites: ['*'], effect: allow, limits: { session: 2s } }\n").await;
        let (ssh, session) = in_flight(&stage).await;
        let said = ssh.finish().await;
        assert_eq!(said.refused_as("session-limit"), session);
        stage.strike().await;
    }

    a_session_without_a_byte_is_ended(stage) {
        stage.lab.policy("version: 1\nrules:\n  - { name: r, sites: ['*'], effect: allow, limits: { idle: 2s } }\n").await;
        let mut command = stage.ssh(&["echo begun; sleep 60"]);
        command.stdin(Stdio::piped());
        let mut ssh = Running::start(command);
        assert_eq!(ssh.line().await, "begun");
        let session = stage.live_session().await;
        let said = ssh.finish().await;
        assert_eq!(said.refused_as("idle-limit"), session);
        stage.strike().await;
    }

    a_deleted_agent_is_cut_off(stage) {
        let (ssh, session) = in_flight(&stage).await;
        stage.lab.admin().delete("/v1/agents/default/pump-7").await.unwrap();
        was_ended(&ssh.finish().await, "revoked", &session);
        let gone = run(stage.ssh(&["true"])).await.refused_as("denied");
        assert_eq!(stage.lab.gateway_audit().shown(&gone), ["session.refuse unknown-endpoint"]);
        stage.strike().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_forwards_is_killed_and_the_other_goes_on() {
    let (echo, flood) = (Echo::start().await, Flood::start().await);
    let mut lab = Lab::start().await;
    let plan = lab
        .agent(AGENT)
        .endpoint("tcp://pump-7:7007", &format!("tcp://{}", echo.address));
    plan.endpoint("tcp://pump-7:7009", &format!("tcp://{}", flood.address))
        .start()
        .await;
    let alice = lab.user("alice", &["field"]).await;
    let (echo_at, flood_at) = (format!("{DEVICE}:7007"), format!("{DEVICE}:7009"));
    let mut ssh = Forwarding::start(&lab, &alice, &[("echo", &echo_at), ("flood", &flood_at)]);
    let (mut healthy, mut flooded) = (ssh.connect("echo").await, ssh.connect("flood").await);
    talk(&mut healthy, "before").await;
    let mut bytes = vec![0; 1024 * 1024];
    flooded.read_exact(&mut bytes).await.unwrap();
    let sessions = lab.sessions().await;
    let killed = sessions
        .iter()
        .find(|session| session.endpoint.ends_with(":7009"))
        .unwrap()
        .id
        .clone();
    let began = Instant::now();
    lab.kill(&killed).await;
    let mut rest = Vec::new();
    drop(flooded.read_to_end(&mut rest).await);
    assert!(began.elapsed() < END_LIMIT, "the end took {:?}", began.elapsed());
    talk(&mut healthy, "and afterwards").await;
    assert_eq!(lab.sessions().await.len(), 1);
    assert_eq!(
        lab.agent_audit(AGENT)
            .awaited("session.end", Some(&killed))
            .await
            .text("reason"),
        "killed"
    );
    drop((healthy, ssh));
    lab.stop().await;
}
