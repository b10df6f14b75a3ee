//! A gateway that is told to stop while it is used: nothing that can finish in time is cut, what cannot is told why, and the
//! agents are back on the next gateway at once (SECURITY.md R9, without a second process beside the first).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_tests::clients::{Running, asks_for_all};
use fairlead_tests::field::{digest, noise};
use fairlead_tests::programs::{AgentHome, DEVICE, DOMAIN, PATIENCE, Scene, account, free_port, until};
use fairlead_tests::upstream::Echo;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// SECURITY.md R9: agents are back within this.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// A busy machine, unoptimised.
const MARGIN: Duration = Duration::from_secs(3);
/// What a stream sends before it waits.
const PIECE: usize = 10_000;

#[tokio::test]
async fn streams_and_idle_sessions_finish_inside_the_drain_and_agents_come_back_at_once() {
    let (streams, sessions, piece_every) = if asks_for_all() {
        (100, 50, Duration::from_millis(10))
    } else {
        (20, 8, Duration::from_millis(100))
    };
    let lasts = Duration::from_secs(if asks_for_all() { 15 } else { 6 });
    let echo = Echo::start().await;
    let mut scene = Scene::with_endpoints(&AgentHome::tcp(DEVICE, echo.address.port())).await;
    let device = format!("{}@{DEVICE}.default.internal", account());
    let remote = format!("echo begun; sleep {}; echo finished", lasts.as_secs());
    let mut idle = Vec::new();
    for _ in 0..sessions {
        let mut session = Running::start(scene.alice.ssh_command(&[&device, &remote]));
        assert_eq!(session.line().await, "begun");
        idle.push(session);
    }
    let local = free_port();
    let forward = format!("127.0.0.1:{local}:{DEVICE}.default.internal:{}", echo.address.port());
    let mut forwarding = Running::start(scene.alice.ssh_command(&["-N", "-L", &forward, DOMAIN]));
    let address = SocketAddr::from(([127, 0, 0, 1], local));
    until("the forward listens", PATIENCE, async || {
        TcpStream::connect(address).await.ok()
    })
    .await;

    let tasks = TaskGroup::new("streams", &CancellationToken::new());
    let (ends, mut ended) = mpsc::channel(streams);
    let (ready, mut under_way) = mpsc::channel(streams);
    for seed in 1..=streams {
        let (ends, ready) = (ends.clone(), ready.clone());
        tasks.spawn("stream", async move {
            let end = stream(address, u64::try_from(seed).unwrap(), lasts, piece_every, ready).await;
            ends.send(end).await.unwrap();
        });
    }
    for _ in 0..streams {
        under_way.recv().await.unwrap();
    }
    let ordered = Instant::now();
    scene.gateway.signal(Signal::SIGTERM);
    until("the agent was told", PATIENCE, async || {
        scene.agent.log().contains("the gateway will stop").then_some(())
    })
    .await;
    let mut bytes = 0;
    for _ in 0..streams {
        let (length, sent, came_back) = ended.recv().await.unwrap();
        assert_eq!(sent, came_back, "a stream came back changed");
        bytes += length;
    }
    println!(
        "R9: {streams} streams, {} MB each way in all, checksums equal, the last {:.1?} after SIGTERM",
        bytes / 1_000_000,
        ordered.elapsed()
    );
    assert!(scene.gateway.is_alive(), "the gateway did not wait");
    for session in idle {
        assert_eq!(session.finish().await.succeeded().text().trim(), "finished");
    }
    println!("R9: {sessions} idle SSH sessions finished");
    assert!(
        forwarding.is_alive(),
        "the connection with nothing on it lives until the end of the drain"
    );
    assert_eq!(scene.gateway.ended(PATIENCE).await, Some(0));
    println!("R9: the gateway ended {:.1?} after SIGTERM", ordered.elapsed());

    let restarted = Instant::now();
    scene.gateway = scene.home.start().await;
    let ready = restarted.elapsed();
    scene.home.linked(1).await;
    let back = restarted.elapsed();
    println!("R9: gateway ready after {ready:.1?}, the agent back after {back:.1?} (goal 5 s)");
    assert!(back <= BACK_WITHIN + MARGIN, "{back:?}");
    let ends = scene.home.audit(&["\"session.end\""]);
    let cut: Vec<_> = ends.iter().filter(|line| !line.contains("\"finished\"")).collect();
    assert!(
        cut.is_empty() && ends.len() == sessions + streams + 1,
        "{} ends, cut: {cut:?}",
        ends.len()
    );
    tasks.stop(Duration::from_secs(1)).await;
    scene.is_sound().await;
}

/// Sends pieces for as long as it `lasts` and reads what comes back: how many bytes, and the digests of both.
async fn stream(
    address: SocketAddr,
    seed: u64,
    lasts: Duration,
    piece_every: Duration,
    ready: mpsc::Sender<()>,
) -> (usize, String, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let bytes = noise(PIECE * 64, seed);
    let sending = async {
        let (began, mut sent) = (Instant::now(), Vec::new());
        for piece in bytes.chunks(PIECE).cycle() {
            if began.elapsed() >= lasts {
                break;
            }
            write.write_all(piece).await.unwrap();
            sent.extend_from_slice(piece);
            tokio::time::sleep(piece_every).await;
        }
        write.shutdown().await.unwrap();
        sent
    };
    let reading = async {
        let mut came_back = vec![0; PIECE];
        read.read_exact(&mut came_back).await.unwrap();
        ready.send(()).await.unwrap();
        read.read_to_end(&mut came_back).await.unwrap();
        came_back
    };
    let (sent, came_back) = tokio::join!(sending, reading);
    (sent.len(), digest(&sent), digest(&came_back))
}

#[tokio::test]
async fn what_outlasts_the_drain_is_ended_at_its_deadline_with_a_reason_and_not_before() {
    let mut scene = Scene::set().await;
    scene.home.more = "drain: 4s\n".to_owned();
    scene.home.write();
    scene.gateway.kill().await;
    scene.gateway = scene.home.start().await;
    let device = format!("{}@{DEVICE}.default.internal", account());
    let mut session = Running::start(scene.alice.ssh_command(&[&device, "echo begun; sleep 600"]));
    assert_eq!(session.line().await, "begun");
    let ordered = Instant::now();
    scene.gateway.signal(Signal::SIGTERM);
    let finished = session.finish().await;
    let lasted = ordered.elapsed();
    println!("R9: a session without an end was ended {lasted:.1?} after SIGTERM (drain 4 s)");
    assert!(lasted >= Duration::from_secs(4), "cut before the deadline: {lasted:?}");
    assert!(lasted <= Duration::from_secs(4) + MARGIN, "{lasted:?}");
    finished.refused_as("gateway-stopping");
    assert_eq!(scene.gateway.ended(PATIENCE).await, Some(0));
    assert_eq!(scene.home.audit(&["\"session.end\"", "\"gateway-stopping\""]).len(), 1);
}

#[tokio::test]
async fn an_agent_told_to_stop_lets_a_session_finish_and_takes_no_new_one() {
    let mut scene = Scene::set().await;
    let device = format!("{}@{DEVICE}.default.internal", account());
    let mut short = Running::start(
        scene
            .alice
            .ssh_command(&[&device, "echo begun; sleep 3; echo finished"]),
    );
    assert_eq!(short.line().await, "begun");
    let mut long = Running::start(scene.alice.ssh_command(&[&device, "echo begun; sleep 600"]));
    assert_eq!(long.line().await, "begun");
    let ordered = Instant::now();
    scene.agent.signal(Signal::SIGTERM);
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.alice.on(DEVICE, "true").await.refused_as("agent-stopping");
    assert_eq!(short.finish().await.succeeded().text().trim(), "finished");
    assert!(!long.finish().await.status.success());
    let lasted = ordered.elapsed();
    println!("an agent that was told to stop ended its last session after {lasted:.1?} (its grace is 10 s)");
    assert!(lasted >= Duration::from_secs(9), "cut early: {lasted:?}");
    assert_eq!(scene.agent.ended(PATIENCE).await, Some(0));
}

#[tokio::test]
async fn a_killed_gateway_leaves_no_client_hanging_and_no_session_without_an_end() {
    let mut scene = Scene::set().await;
    let device = format!("{}@{DEVICE}.default.internal", account());
    let mut sessions = Vec::new();
    for _ in 0..5 {
        let mut session = Running::start(scene.alice.ssh_command(&[&device, "echo begun; sleep 600"]));
        assert_eq!(session.line().await, "begun");
        sessions.push(session);
    }
    // One that has ended needs no other end.
    scene.alice.on(DEVICE, "true").await.succeeded();
    until("its end is in the audit", PATIENCE, async || {
        (!scene.home.audit(&["\"session.end\"", "\"finished\""]).is_empty()).then_some(())
    })
    .await;
    let killed = Instant::now();
    scene.gateway.kill().await;
    for session in sessions {
        assert!(!session.finish().await.status.success());
    }
    let noticed = killed.elapsed();
    println!("R10: five clients had their end {noticed:.1?} after the kill (goal 2 s)");
    assert!(noticed <= Duration::from_secs(2) + MARGIN, "{noticed:?}");
    scene.gateway = scene.home.start().await;
    let crashed = scene.home.audit(&["\"session.end\"", "\"gateway-crash\"", "\"alice\""]);
    assert_eq!(crashed.len(), 5, "{crashed:?}");
    let audit = std::fs::File::open(scene.home.path("state/audit.jsonl")).unwrap();
    fairlead_runtime::audit::verify(std::io::BufReader::new(audit)).unwrap();
    println!("R10: 5 of 5 sessions have their end in the audit, reason gateway-crash");
    // Once is enough.
    scene.gateway.kill().await;
    scene.gateway = scene.home.start().await;
    assert_eq!(scene.home.audit(&["\"gateway-crash\""]).len(), 5);
}
