//! The second transport (docs/wire.md): everything that a link, an enrolment and a caller's conversation do over QUIC, over
//! WebSocket, with the real programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

#[path = "websocket/hostile.rs"]
mod hostile;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fairlead::profile::Profile;
use fairlead_agent::enroll;
use fairlead_agent::link::{Choice, Proxies, Ways, dial_by};
use fairlead_identity::join::JoinString;
use fairlead_identity::keys::PrivateKey;
use fairlead_identity::tls;
use fairlead_runtime::frame;
use fairlead_runtime::quic::Role;
use fairlead_runtime::relay::Sink as _;
use fairlead_runtime::transport::{Closed, Kind};
use fairlead_tests::clients;
use fairlead_tests::programs::{AgentHome, DEVICE, DOMAIN, Daemon, GatewayHome, PATIENCE, UserHome, throw_away, until};
use fairlead_wire::call::{CallAnswer, CallRequest, EndpointsRequest, Question};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME, MAX_PREAUTH_FRAME};
use fairlead_wire::version::{ALPN_CALL, VERSION_MAX, VERSION_MIN};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

const ONLINE: &str = "fairlead_agents_connected{transport=\"websocket\"}";

/// A gateway, a device that is linked over WebSocket alone, and a technician; each program a process.
struct Scene {
    home: GatewayHome,
    gateway: Daemon,
    device: AgentHome,
    agent: Daemon,
    alice: UserHome,
    dir: TempDir,
}

impl Scene {
    async fn set() -> Self {
        Self::with_endpoints("").await
    }

    async fn with_endpoints(more: &str) -> Self {
        let dir = throw_away();
        let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
        let gateway = home.start().await;
        let endpoints = AgentHome::builtin(DEVICE) + more;
        let device = home.agent(&dir.path().join("device"), DEVICE, &endpoints).await;
        let file = device.path("agent.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(
            &file,
            text.replacen("version: 1\n", "version: 1\ntransport: websocket\n", 1),
        )
        .unwrap();
        let agent = device.start();
        let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
        let scene = Self {
            home,
            gateway,
            device,
            agent,
            alice,
            dir,
        };
        scene.linked().await;
        scene
    }

    async fn linked(&self) {
        until("the agent is linked over WebSocket", PATIENCE, async || {
            (self.home.metric(ONLINE).await == Some(1)).then_some(())
        })
        .await;
    }

    async fn is_sound(&mut self) {
        assert!(self.gateway.is_alive() && self.agent.is_alive());
        assert!(!self.agent.log().contains("panicked"), "{}", self.agent.log());
        assert_eq!(self.home.metric("fairlead_panics_total").await, Some(0));
    }
}

#[tokio::test]
async fn stock_ssh_and_scp_reach_a_device_over_websocket() {
    let mut scene = Scene::set().await;
    scene.alice.on(DEVICE, "true").await.succeeded();
    assert!(!scene.alice.on(DEVICE, "exit 7").await.status.success());

    let bytes: Vec<u8> = (0..4 * 1024 * 1024_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0])
        .collect();
    let (there, back) = (scene.dir.path().join("there"), scene.dir.path().join("back"));
    let from = scene.dir.path().join("from");
    std::fs::write(&from, &bytes).unwrap();
    let remote = format!(
        "{}@{DEVICE}.default.internal:{}",
        fairlead_tests::programs::account(),
        there.display()
    );
    let began = Instant::now();
    for (source, target) in [
        (from.display().to_string(), remote.clone()),
        (remote, back.display().to_string()),
    ] {
        let mut scp = clients::stock("scp");
        scp.arg("-F").arg(scene.alice.dir().join("ssh_config"));
        scp.args(["-o", "BatchMode=yes", &source, &target]);
        clients::run(scp).await.succeeded();
    }
    println!("scp of 4 MiB there and back over WebSocket: {:.1?}", began.elapsed());
    assert!(std::fs::read(&back).unwrap() == bytes, "what came back is changed");

    let shown = scene.home.json(&["agents", "list"]).await;
    assert_eq!(shown["agents"][0]["online"]["transport"], "websocket", "{shown}");
    // Many at once: more than wait in the pool.
    let many = (0..12).map(|_| scene.alice.on(DEVICE, "echo here"));
    for finished in futures_of(many).await {
        assert_eq!(finished.succeeded().text().trim(), "here");
    }
    scene.is_sound().await;
}

async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(context)
            {
                *output = Some(done);
            }
        }
        if outputs.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_revoked_agent_loses_its_link_and_its_sessions_over_websocket() {
    let scene = Scene::set().await;
    let mut running = clients::Running::start({
        let mut ssh = scene.alice.ssh_command(&[
            &format!("{}@{DEVICE}.default.internal", fairlead_tests::programs::account()),
            "echo up; sleep 600",
        ]);
        ssh.stdin(Stdio::piped());
        ssh
    });
    assert_eq!(running.line().await, "up");
    let began = Instant::now();
    scene.home.fairlead(&["revoke", "agent", DEVICE]).await.succeeded();
    let finished = timeout(PATIENCE, running.finish()).await.expect("the session is cut");
    println!("P9 over WebSocket: cut after {:.2?}", began.elapsed());
    assert!(!finished.status.success());
    until("the link is gone", PATIENCE, async || {
        (scene.home.metric(ONLINE).await == Some(0)).then_some(())
    })
    .await;
    let again = scene.alice.on(DEVICE, "true").await;
    assert!(!again.status.success());
    assert_eq!(
        scene.home.metric("fairlead_sessions_active{protocol=\"ssh\"}").await,
        Some(0)
    );
}

#[tokio::test]
async fn a_restarted_gateway_is_found_again_over_websocket() {
    let mut scene = Scene::set().await;
    scene.gateway.kill().await;
    let began = Instant::now();
    scene.gateway = scene.home.start().await;
    scene.alice.reaches(DEVICE, PATIENCE).await;
    println!("R1 over WebSocket: back after {:.1?}", began.elapsed());
    scene.linked().await;
    scene.is_sound().await;
}

#[tokio::test]
async fn a_stopped_agent_is_offline_within_fifteen_seconds_over_websocket() {
    let scene = Scene::set().await;
    let pid = nix::unistd::Pid::from_raw(scene.agent.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    until("the agent is offline", PATIENCE, async || {
        (scene.home.metric(ONLINE).await == Some(0)).then_some(())
    })
    .await;
    let took = began.elapsed();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    println!("R4 over WebSocket: offline after {took:.1?} (goal 15 s)");
    assert!(took <= Duration::from_secs(16), "{took:?}");
    scene.alice.reaches(DEVICE, PATIENCE).await;
}

#[tokio::test]
async fn each_direction_of_a_tcp_session_ends_by_itself_over_websocket() {
    // The upstream reads to the end before it answers, as `nc` and HTTP/1.0 servers do.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut scene = Scene::with_endpoints(&AgentHome::tcp(DEVICE, port)).await;
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut heard)
            .await
            .unwrap();
        stream.write_all(&heard).await.unwrap();
        heard.len()
    };
    let bytes = vec![9; 300_000];
    let mut ssh = scene
        .alice
        .ssh_command(&["-W", &format!("{DEVICE}.default.internal:{port}"), DOMAIN]);
    ssh.stdin(Stdio::piped());
    let (echoed, served) = tokio::join!(
        timeout(PATIENCE, clients::run_with(ssh, &bytes)),
        timeout(PATIENCE, serving)
    );
    assert_eq!(served.expect("the upstream is reached"), bytes.len());
    assert!(echoed.unwrap().succeeded().stdout == bytes);
    scene.is_sound().await;
}

fn by_tcp_alone() -> Ways {
    Ways::new(Choice::WebSocket, Proxies::default())
}

#[tokio::test]
async fn enrolment_renewal_by_proof_and_questions_go_over_websocket_too() {
    let mut scene = Scene::set().await;
    let file = scene.dir.path().join("pump-8.join");
    let join = JoinString::parse(&scene.home.token(&file, &["--agent", "pump-8"]).await).unwrap();
    let key = PrivateKey::generate().unwrap();
    let ways = by_tcp_alone();
    let enrolled = enroll::exchange_by(&ways, &join, key.csr_der().unwrap(), BTreeMap::new(), "")
        .await
        .unwrap();
    assert!(enrolled.principal.ends_with("/agent/pump-8"), "{}", enrolled.principal);
    let again = enroll::exchange_by(
        &ways,
        &join,
        PrivateKey::generate().unwrap().csr_der().unwrap(),
        BTreeMap::new(),
        "",
    )
    .await;
    let told = again.unwrap_err().to_string();
    assert!(told.contains("token-spent"), "{told}");

    let roots = fairlead_identity::verify::Roots::from_der(&enroll::roots_of(&enrolled)).unwrap();
    let clock = std::sync::Arc::new(fairlead_runtime::clock::SystemClock);
    let renewed = enroll::renew_by_proof_by(&ways, &join.addresses, &join.domain, &roots, &key, clock.clone())
        .await
        .unwrap();
    assert_eq!(renewed.principal, enrolled.principal);
    let stranger = PrivateKey::generate().unwrap();
    let refused = enroll::renew_by_proof_by(&ways, &join.addresses, &join.domain, &roots, &stranger, clock).await;
    assert!(refused.is_err());

    // A caller's conversation: two questions, each on a connection of its own.
    let profile = Profile::at(scene.alice.dir());
    let (key, chain) = (profile.login_key().unwrap(), profile.chain().unwrap());
    let tls = tls::agent_quic(Some((chain, &key)), &profile.roots().unwrap(), ALPN_CALL).unwrap();
    let address = format!("127.0.0.1:{}", scene.home.port);
    let call = dial_by(&ways, &[address], DOMAIN, &tls, Role::Caller).await.unwrap();
    assert_eq!(call.kind(), Kind::WebSocket);
    for _ in 0..2 {
        let request = CallRequest {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            requires: Vec::new(),
            question: Some(Question::Endpoints(EndpointsRequest::default())),
        };
        let (mut send, mut receive) = call.open().await.unwrap();
        send.write_all(&codec::encode(&request, MAX_PREAUTH_FRAME).unwrap())
            .await
            .unwrap();
        send.finish().await.unwrap();
        let answer = frame::read_frame(&mut receive, MAX_CONTROL_FRAME)
            .await
            .unwrap()
            .unwrap();
        let answer: CallAnswer = codec::decode_body(&answer).unwrap();
        assert!(format!("{answer:?}").contains(DEVICE), "{answer:?}");
        assert!(
            frame::read_frame(&mut receive, MAX_CONTROL_FRAME)
                .await
                .unwrap()
                .is_none()
        );
    }
    call.close(0, "done");
    scene.is_sound().await;
}

#[tokio::test]
async fn who_has_no_business_on_a_link_is_told_so_over_websocket() {
    let scene = Scene::set().await;
    let profile = Profile::at(scene.alice.dir());
    let (key, chain) = (profile.login_key().unwrap(), profile.chain().unwrap());
    let address = format!("127.0.0.1:{}", scene.home.port);
    let roots = profile.roots().unwrap();
    for (identity, told) in [
        (Some((chain, &key)), "only agents link"),
        (None, "must present their certificate"),
    ] {
        let tls = tls::agent_quic(identity, &roots, fairlead_wire::version::ALPN_LINK).unwrap();
        let link = dial_by(
            &by_tcp_alone(),
            std::slice::from_ref(&address),
            DOMAIN,
            &tls,
            Role::Agent,
        )
        .await
        .unwrap();
        let (_send, mut receive) = link.open().await.unwrap();
        assert!(tokio::io::AsyncReadExt::read(&mut receive, &mut [0]).await.is_err());
        let closed = timeout(PATIENCE, link.closed()).await.unwrap();
        assert!(
            matches!(&closed, Closed::ByPeer { text, .. } if text.contains(told)),
            "{closed}"
        );
    }
    until("both are in the audit", PATIENCE, async || {
        let lines = scene.home.audit(&["auth.fail"]);
        (lines.iter().any(|line| line.contains("not-an-agent"))
            && lines.iter().any(|line| line.contains("no-certificate")))
        .then_some(())
    })
    .await;
}
