//! What happens to a session, the same for every way.

use std::time::{Duration, Instant};

use fairlead_tests::clients::{Running, run_with};
use fairlead_tests::lab::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ways::{AGENT, Row, Stage, rows};

/// Within this a revoked caller is out (PRODUCT: 2 seconds) and a session that lost its agent is over.
const CUT_LIMIT: Duration = Duration::from_secs(2);
/// While one does not read; the gateway may have taken this much for it before it stops reading on.
const HELD_FOR_ONE: u64 = 16 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_allowed_gets_in_and_both_audits_have_the_session() {
    for row in rows() {
        let stage = Stage::set(row).await;
        let mut talk = stage.open().await;
        talk.says("allowed").await;
        let (gateway, agent) = (stage.lab.gateway_audit(), stage.lab.agent_audit(AGENT));
        assert_eq!(gateway.shown(&talk.session), ["session.permit"], "{row:?}");
        assert_eq!(agent.shown(&talk.session), ["session.permit"], "{row:?}");
        let session = talk.session.clone();
        drop(talk);
        gateway.awaited("session.end", Some(&session)).await;
        agent.awaited("session.end", Some(&session)).await;
        stage.strike().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_denied_is_told_so_and_nothing_reaches_the_agent() {
    for row in rows() {
        let stage = Stage::set(row).await;
        let bob = stage.lab.user("bob", &[]).await;
        let said = run_with(stage.talk(&bob), stage.line("denied").as_bytes()).await;
        stage.was_told(&said, "denied");
        let refused = stage.lab.gateway_audit().awaited("session.refuse", None).await;
        assert_eq!(
            (refused.text("caller"), refused.text("reason")),
            ("bob", "no-rule"),
            "{row:?}"
        );
        assert!(stage.lab.agent_audit(AGENT).sessions().is_empty(), "{row:?}");
        stage.strike().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_is_cut_within_two_seconds_and_does_not_come_back() {
    for row in rows() {
        let stage = Stage::set(row).await;
        let mut talk = stage.open().await;
        talk.says("still in").await;
        let (session, since) = (talk.session.clone(), Instant::now());
        stage.lab.disable_user("alice", true).await;
        talk.ends_cut(&["revoked"], since, CUT_LIMIT).await;
        let end = stage
            .lab
            .agent_audit(AGENT)
            .awaited("session.end", Some(&session))
            .await;
        assert_eq!(end.text("reason"), "revoked", "{row:?}");
        let again = run_with(stage.talk(&stage.alice), stage.line("again").as_bytes()).await;
        assert!(!again.text().contains("again"), "{row:?}: {}", again.text());
        stage.strike().await;
    }
}

async fn an_agent_goes(row: Row) {
    let mut stage = Stage::set(row).await;
    let mut talk = stage.open().await;
    talk.says("served").await;
    let (mut program, session) = (talk.program, talk.session);
    stage.lab.stop_agent(AGENT).await;
    let end = stage.lab.gateway_audit().awaited("session.end", Some(&session)).await;
    assert!(
        ["agent-stopping", "offline"].contains(&end.text("reason")),
        "{row:?}: {}",
        end.shown()
    );
    drop(program.stdin.take());
    program.finish().await;
    // In the first 15 s after its start a gateway waits for agents that are asked for.
    let said = run_with(stage.talk(&stage.alice), stage.line("again").as_bytes()).await;
    stage.was_told(&said, "offline");
    stage.lab.start_agent(AGENT).await;
    stage.open().await.says("served again").await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_goes_ends_its_sessions_and_is_offline_until_it_is_back() {
    // Side by side: each waits for the clock.
    let side_by_side = async {
        let mut all = tokio::task::JoinSet::new();
        for row in rows() {
            all.spawn_local(an_agent_goes(row));
        }
        all.join_all().await;
    };
    tokio::task::LocalSet::new().run_until(side_by_side).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_said_everything_hears_everything_and_the_session_is_finished() {
    for row in rows() {
        let stage = Stage::set(row).await;
        if row.kind == "tls" && row.protocol != "mqtt" {
            // No stock program ends one side of TLS and reads on.
            let mut stream = stage.alice.tls(&stage.lab, &stage.server_name()).await.unwrap();
            stream.write_all(b"all of it\n").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"all of it\n", "{row:?}");
        } else {
            let said = run_with(stage.talk(&stage.alice), stage.line("all of it").as_bytes()).await;
            assert_eq!(said.succeeded().text(), "all of it\n", "{row:?}");
        }
        let end = stage.lab.gateway_audit().awaited("session.end", None).await;
        assert_eq!(end.text("reason"), "finished", "{row:?}");
        let end = stage.lab.agent_audit(AGENT).awaited("session.end", None).await;
        assert_eq!(end.text("reason"), "finished", "{row:?}");
        stage.strike().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_holds_back_their_own_session_only() {
    for row in rows() {
        let stage = Stage::set(row).await;
        let mut command = stage.flood();
        command.stdin(std::process::Stdio::null());
        let slow = Running::start(command);
        // Nobody reads its output: the pipe fills, then it takes no more.
        let carried = async || stage.lab.sessions().await.first().map(|session| session.bytes_out);
        let mut before = 0;
        until("a session that stands still", async || {
            let now = carried().await.filter(|now| *now > 0)?;
            let stands_still = now == std::mem::replace(&mut before, now);
            tokio::time::sleep(Duration::from_millis(300)).await;
            stands_still.then_some(())
        })
        .await;
        assert!(before < HELD_FOR_ONE, "{row:?}: {before} bytes for nobody");
        let session = stage.lab.sessions().await[0].id.clone();
        let mut other = stage.open().await;
        for word in ["not", "held", "back"] {
            other.says(word).await;
        }
        assert_eq!(carried().await, Some(before), "{row:?}");
        // A permit that lapses ends it although nothing can be read or written.
        stage.lab.kill(&session).await;
        let end = stage.lab.gateway_audit().awaited("session.end", Some(&session)).await;
        assert_eq!(end.text("reason"), "killed", "{row:?}");
        let end = stage
            .lab
            .agent_audit(AGENT)
            .awaited("session.end", Some(&session))
            .await;
        assert_eq!(end.text("reason"), "killed", "{row:?}");
        other.says("still here").await;
        drop((slow, other));
        stage.strike().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_sessions_go_on_for_its_time_and_then_tells_them() {
    for row in rows() {
        let mut stage = Stage::set(row).await;
        let address = stage.lab.address();
        let gateway = stage.lab.take_gateway();
        let mut talk = stage.open().await;
        let during = async {
            until("a gateway that takes nobody new", async || {
                tokio::net::TcpStream::connect(address).await.is_err().then_some(())
            })
            .await;
            talk.says("during the drain").await;
            let since = Instant::now();
            talk.ends_cut(&["gateway-stopping"], since, Duration::from_secs(10))
                .await;
        };
        let ((), ()) = tokio::join!(during, gateway.stop(Duration::from_secs(3)));
        stage.strike().await;
    }
}
