//! Several gateways of one authority, gateways that names do not lead to, and what a device says about why it does not link.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

use std::time::Instant;

use fairlead_tests::clients;
use fairlead_tests::field::{Chat, Field};
use fairlead_tests::netns::{self, NetworkPath};
use fairlead_tests::programs::{AgentHome, DEVICE, GatewayHome, PATIENCE, ended_with, throw_away, until};
use serde_json::Value;

#[tokio::test]
async fn an_agent_serves_by_two_gateways_at_once_and_loses_nothing_with_one_of_them() {
    let dir = throw_away();
    let first = GatewayHome::set_up(&dir.path().join("first")).await;
    let mut running = first.start().await;
    let device = first
        .agent(&dir.path().join("device"), DEVICE, &AgentHome::builtin(DEVICE))
        .await;
    let alice = first.user(&dir.path().join("alice"), "alice", "field").await;
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.ended(PATIENCE).await;

    // The other gateway has the same authority and knows the same agents and people: a copy of the state.
    let second = GatewayHome::plan(&dir.path().join("second"));
    let mut cp = clients::stock("cp");
    cp.arg("--archive").arg(first.path("state")).arg(second.path("state"));
    clients::run(cp).await.succeeded();
    let mut one = first.start().await;
    let other = second.start().await;
    device.add(&format!(
        "gateway: [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\n",
        first.port, second.port
    ));
    let mut agent = device.start();
    first.linked(1).await;
    second.linked(1).await;
    for home in [&first, &second] {
        assert_eq!(home.metric("fairlead_identity_conflicts_total").await.unwrap_or(0), 0);
    }
    let status = status(&device).await;
    assert_eq!(status["links"].as_array().unwrap().len(), 2, "{status:#}");
    alice.on(DEVICE, "true").await.succeeded();

    // With one of them gone the other serves on, and the link to it is the one that was.
    let before = link_to(&status, second.port);
    one.kill().await;
    until("the agent has seen it", PATIENCE, async || {
        (self::status(&device).await["links"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let after = self::status(&device).await;
    assert_eq!(link_to(&after, second.port)["since"], before["since"], "{after:#}");
    assert_eq!(after["linked"], true);
    assert!(!after["errors"].as_array().unwrap().is_empty(), "{after:#}");
    let began = Instant::now();
    one = first.start().await;
    first.linked(1).await;
    println!("back on the gateway that was killed after {:.1?}", began.elapsed());
    until("both links stand", PATIENCE, async || {
        (self::status(&device).await["links"].as_array()?.len() == 2).then_some(())
    })
    .await;
    alice.on(DEVICE, "true").await.succeeded();
    drop((one, other));
    assert!(agent.is_alive() && !agent.log().contains("panicked"));
}

/// What `fairlead-agent status --json` says.
async fn status(device: &AgentHome) -> Value {
    let mut command = device.command("status");
    command.arg("--json");
    serde_json::from_slice(&clients::run(command).await.succeeded().stdout).unwrap()
}

fn link_to(status: &Value, port: u16) -> Value {
    let links = status["links"].as_array().unwrap();
    let end = format!(":{port}");
    let link = links
        .iter()
        .find(|link| link["gateway"].as_str().unwrap().ends_with(&end));
    link.unwrap_or_else(|| panic!("no link to {port}: {status:#}")).clone()
}

#[test]
fn a_device_boots_before_its_network_and_without_a_name_server() {
    netns::alone("a_device_boots_before_its_network_and_without_a_name_server", boots());
}

async fn boots() {
    let mut field = Field::set("", "").await;
    // The address is kept now. A name that nobody answers takes its place in the file, and the network is away.
    field.agent.kill().await;
    assert!(field.device.path("state/gateway_addresses").is_file());
    field.device.add("gateway: gw.no-such-name.invalid:443\n");
    field
        .router
        .device
        .ip(&["link", "set", &field.router.device.far(), "down"])
        .await;
    field.start_agent();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(field.agent.is_alive(), "it gave up: {}", field.agent.log());
    let device = &field.router.device;
    device.ip(&["link", "set", &device.far(), "up"]).await;
    device.ip(&["route", "replace", "default", "via", &device.gate]).await;
    let began = Instant::now();
    until(
        "the agent links by the address that it has kept",
        PATIENCE,
        async || (field.agent.log().matches("link up").count() >= 2).then_some(()),
    )
    .await;
    println!(
        "booted without a network or a name server: linked {:.1?} after the network came",
        began.elapsed()
    );
    let chat = Chat::start(&field).await;
    chat.end().await;
    field.is_sound().await;
}

#[test]
fn the_doctor_says_what_blocks_a_link_and_what_to_do() {
    netns::alone("the_doctor_says_what_blocks_a_link_and_what_to_do", doctor());
}

async fn doctor() {
    let field = Field::set("", "").await;
    let examined = |json: bool| {
        let mut command = field.device.command("doctor");
        if json {
            command.arg("--json");
        }
        clients::run(field.router.device.within(&command))
    };
    let well = examined(false).await;
    println!("{}", well.text());
    ended_with(&well, 0, &[]);
    assert!(well.text().contains("The agent can link."), "{}", well.text());
    let report: Value = serde_json::from_slice(&examined(true).await.stdout).unwrap();
    for step in [
        "identity",
        "clock",
        "dns",
        "udp",
        "tls",
        "mtu",
        "tcp",
        "websocket",
        "agent",
    ] {
        assert_eq!(verdict(&report, step), "good", "{step}: {report:#}");
    }
    assert_eq!(
        (report["can_link"].as_bool(), report["code"].as_u64()),
        (Some(true), Some(0))
    );

    field.router.become_as(&NetworkPath::WITHOUT_UDP).await;
    let blocked = examined(true).await;
    let report: Value = serde_json::from_slice(&blocked.stdout).unwrap();
    for (step, due) in [("udp", "bad"), ("tcp", "good"), ("websocket", "good")] {
        assert_eq!(verdict(&report, step), due, "{report:#}");
    }
    // It links over WebSocket.
    assert_eq!(blocked.code(), Some(0));
    let text = examined(false).await.text();
    assert!(text.contains("UDP port") && text.contains("let through"), "{text}");
    println!("{text}");

    field.router.become_as(&NetworkPath::DEAD).await;
    let dead = examined(true).await;
    let report: Value = serde_json::from_slice(&dead.stdout).unwrap();
    for (step, due) in [("udp", "bad"), ("tcp", "poor"), ("websocket", "poor")] {
        assert_eq!(verdict(&report, step), due, "{report:#}");
    }
    assert_eq!(dead.code(), Some(69));
    field.router.become_as(&NetworkPath::GOOD).await;

    field.device.add("gateway: gw.no-such-name.invalid:443\n");
    let unnamed = examined(true).await;
    let report: Value = serde_json::from_slice(&unnamed.stdout).unwrap();
    assert_eq!(verdict(&report, "dns"), "bad", "{report:#}");
    assert_eq!(unnamed.code(), Some(69));

    let stranger = AgentHome::plan(&field.path("stranger"), &AgentHome::builtin("pump-9"));
    let unknown = clients::run(stranger.command("doctor")).await;
    assert_eq!(unknown.code(), Some(78));
    assert!(unknown.text().contains("enroll --token-file"), "{}", unknown.text());
}

fn verdict(report: &Value, step: &str) -> String {
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["step"] == step);
    finding.unwrap_or_else(|| panic!("no step {step}: {report:#}"))["verdict"]
        .as_str()
        .unwrap()
        .to_owned()
}
