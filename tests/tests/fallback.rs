//! Networks that let no UDP pass, at once or all of a sudden, and networks with nothing but a proxy (SECURITY.md R5).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use fairlead_tests::clients::{Running, run, stock};
use fairlead_tests::field::{Chat, Field};
use fairlead_tests::netns::{self, MIDDLE, NatRouter, NetworkPath};
use fairlead_tests::programs::{AgentHome, DEVICE, Daemon, GatewayHome, PATIENCE, throw_away, until};
use tokio::time::{sleep, timeout};

/// SECURITY.md R5.
const FROM_START: Duration = Duration::from_secs(5);
const MID_SESSION: Duration = Duration::from_secs(12);
const BACK: Duration = Duration::from_secs(60);
/// Unoptimised cryptography on a busy machine, beside other tests.
const MARGIN: Duration = Duration::from_secs(6);

#[test]
fn without_udp_new_sessions_come_by_websocket_and_the_link_goes_back_with_nothing_cut() {
    netns::alone(
        "without_udp_new_sessions_come_by_websocket_and_the_link_goes_back_with_nothing_cut",
        falls_back_and_returns(),
    );
}

async fn falls_back_and_returns() {
    let mut field = Field::set("", "").await;
    field.alice.on(DEVICE, "true").await.succeeded();

    field.router.become_as(&NetworkPath::WITHOUT_UDP).await;
    let took = first_session(&field).await;
    println!("R5: UDP blocked mid-session: a new session after {took:.1?} (goal {MID_SESSION:?})");
    assert!(took <= MID_SESSION + MARGIN, "{took:?}");
    assert_eq!(transport(&field).await, "websocket");
    let mut chat = Chat::start(&field).await;

    field.router.become_as(&NetworkPath::GOOD).await;
    let began = Instant::now();
    until("the link is back on QUIC", BACK + MARGIN, async || {
        (transport(&field).await == "quic").then_some(())
    })
    .await;
    println!(
        "R5: back on QUIC {:.1?} after UDP passes again (goal {BACK:?})",
        began.elapsed()
    );
    for word in ["still", "the", "same", "session"] {
        chat.echoes(word).await;
        sleep(Duration::from_millis(1500)).await;
    }
    field.alice.on(DEVICE, "true").await.succeeded();
    chat.echoes("after a new one").await;
    chat.end().await;
    until("the link by WebSocket has ended", PATIENCE, async || {
        // The first went down with UDP.
        (field.gateway.log().matches("link down").count() >= 2).then_some(())
    })
    .await;
    assert_eq!(transport(&field).await, "quic");

    field.agent.kill().await;
    field.router.become_as(&NetworkPath::WITHOUT_UDP).await;
    until("the agent is offline", PATIENCE, async || {
        (!field.alice.on(DEVICE, "true").await.status.success()).then_some(())
    })
    .await;
    field.start_agent();
    let took = first_session(&field).await;
    println!("R5: UDP blocked at the start: a session {took:.1?} after it (goal {FROM_START:?})");
    assert!(took <= FROM_START + MARGIN, "{took:?}");
    field.is_sound().await;
}

#[test]
fn an_endpoint_that_asks_for_websocket_is_served_over_it_beside_a_link_by_quic() {
    netns::alone(
        "an_endpoint_that_asks_for_websocket_is_served_over_it_beside_a_link_by_quic",
        beside_quic(),
    );
}

async fn beside_quic() {
    let mut field = Field::set("", "").await;
    let mut by_quic = Chat::start(&field).await;
    field.device.change("upstream:", "transport: websocket, upstream:");
    field.agent.signal(nix::sys::signal::Signal::SIGHUP);
    until("a side link", PATIENCE, async || {
        let mut command = field.device.command("status");
        command.arg("--json");
        let shown = run(field.router.device.within(&command)).await;
        let status: serde_json::Value = serde_json::from_slice(&shown.stdout).ok()?;
        let links = status["links"].as_array()?.iter();
        let transports: Vec<&str> = links.filter_map(|link| link["transport"].as_str()).collect();
        (transports == ["quic", "websocket"]).then_some(())
    })
    .await;
    // To everybody the agent is linked by QUIC; the endpoint's sessions go the other way.
    assert_eq!(transport(&field).await, "quic");
    let mut by_websocket = Chat::start(&field).await;
    by_quic.echoes("a session that was there goes on").await;

    field.router.become_as(&NetworkPath::WITHOUT_UDP).await;
    for word in ["not", "held", "up"] {
        let echo = timeout(Duration::from_secs(5), by_websocket.echoes(word)).await;
        println!("over the side link, without UDP: {:.1?}", echo.unwrap());
    }
    field.router.become_as(&NetworkPath::GOOD).await;
    by_quic.echoes("late, and whole").await;
    by_quic.end().await;

    field.device.change("transport: websocket, upstream:", "upstream:");
    field.agent.signal(nix::sys::signal::Signal::SIGHUP);
    until("the endpoint is offered without it", PATIENCE, async || {
        let reloads = field.device.audit(&["\"config.reload\""]);
        (reloads.len() >= 2).then_some(())
    })
    .await;
    by_websocket.echoes("to its own end").await;
    by_websocket.end().await;
    field.is_sound().await;
}

/// How long until a session succeeds, tried anew each half second: one that was begun on a dead path must not hold up
/// the measurement.
async fn first_session(field: &Field) -> Duration {
    let began = Instant::now();
    let attempt = async |delay: Duration| {
        sleep(delay).await;
        if !field.alice.on(DEVICE, "true").await.status.success() {
            std::future::pending::<()>().await;
        }
        began.elapsed()
    };
    let mut attempts: Vec<_> = (0..60_u64)
        .map(|at| Box::pin(attempt(Duration::from_millis(at * 500))))
        .collect();
    let first = std::future::poll_fn(|context| {
        for attempt in &mut attempts {
            if let std::task::Poll::Ready(took) = attempt.as_mut().poll(context) {
                return std::task::Poll::Ready(took);
            }
        }
        std::task::Poll::Pending
    });
    timeout(Duration::from_secs(40), first)
        .await
        .expect("a session succeeds")
}

/// By which transport the device is linked; nothing while it is not.
async fn transport(field: &Field) -> String {
    let list = field.home.json(&["agents", "list"]).await;
    let shown = list["agents"][0]["online"]["transport"].as_str();
    shown.unwrap_or_default().to_owned()
}

#[test]
fn behind_nothing_but_a_proxy_an_agent_enrols_and_serves() {
    netns::alone(
        "behind_nothing_but_a_proxy_an_agent_enrols_and_serves",
        behind_a_proxy(),
    );
}

async fn behind_a_proxy() {
    netns::be_the_middle().await;
    let router = NatRouter::new(1).await;
    let dir = throw_away();
    let home = GatewayHome::in_the_middle(&dir.path().join("gateway")).await;
    let gateway = home.start().await;
    let proxy = tinyproxy(dir.path()).await;
    // From the device nothing is reached but the proxy's port.
    router
        .place
        .nft(&format!(
            "table ip fence {{\n    chain through {{\n        type filter hook forward priority 1\n        ip daddr {MIDDLE} tcp dport 3128 accept\n        ip saddr {MIDDLE} tcp sport 3128 accept\n        counter drop\n    }}\n}}\n"
        ))
        .await;

    let device = AgentHome::plan(&dir.path().join("device"), &AgentHome::builtin(DEVICE));
    let join = device.path("join.txt");
    home.token(&join, &["--agent", DEVICE]).await;
    let enrol = async || run(router.device.within(&device.enroll_command(&join))).await;
    let without = enrol().await;
    assert!(!without.status.success(), "the fence holds");
    device.add(&format!(
        "proxy: http://pump@{MIDDLE}:3128\nproxy_password_file: \"{}\"\n",
        device.path("proxy.pw").display()
    ));
    std::fs::write(device.path("proxy.pw"), "wrong\n").unwrap();
    private(&device);
    let refused = enrol().await;
    assert!(
        !refused.status.success() && refused.stderr.contains("does not take this user and password"),
        "{}",
        refused.stderr
    );
    std::fs::write(device.path("proxy.pw"), "secret-word\n").unwrap();
    let began = Instant::now();
    enrol().await.succeeded();
    println!("R5: enrolled through a proxy in {:.1?}", began.elapsed());

    let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
    let began = Instant::now();
    let agent = Daemon::start(router.device.within(&device.command("run")), &device.path("agent.log"));
    alice.reaches(DEVICE, PATIENCE).await;
    println!(
        "R5: behind a proxy only: a session {:.1?} after the start",
        began.elapsed()
    );
    let list = home.json(&["agents", "list"]).await;
    assert_eq!(list["agents"][0]["online"]["transport"], "websocket", "{list}");
    for text in [agent.log(), gateway.log(), without.stderr, refused.stderr] {
        assert!(!text.contains("secret-word"), "the password is told: {text}");
    }
    drop(proxy);
}

fn private(device: &AgentHome) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(device.path("proxy.pw"), std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// tinyproxy on the middle's port 3128, with a user and a password.
async fn tinyproxy(dir: &std::path::Path) -> Running {
    let config = dir.join("tinyproxy.conf");
    std::fs::write(
        &config,
        format!(
            "Port 3128\nListen {MIDDLE}\nTimeout 600\nMaxClients 100\nBasicAuth pump secret-word\nLogLevel Warning\n"
        ),
    )
    .unwrap();
    let mut command = stock("tinyproxy");
    command.arg("-d").arg("-c").arg(&config).stdin(Stdio::null());
    let running = Running::start(command);
    until("the proxy listens", PATIENCE, async || {
        tokio::net::TcpStream::connect((MIDDLE, 3128)).await.ok().map(drop)
    })
    .await;
    running
}
