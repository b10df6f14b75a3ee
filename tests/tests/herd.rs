//! A whole fleet whose gateway goes away and comes back: how soon everybody is back, and what that costs the gateway
//! (SECURITY.md R2, R3). 1,000 agents with FAIRLEAD_TESTS_ALL=1, in this process; the gateway is a program of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_agent::{Agent, config, enroll};
use fairlead_identity::join::JoinString;
use fairlead_runtime::config_file::private_dir;
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_tests::clients::asks_for_all;
use fairlead_tests::programs::{DEVICE, Daemon, GatewayHome, PATIENCE, Scene, throw_away, until};
use nix::sys::signal::Signal;
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc};

/// SECURITY.md R3.
const ALL_BACK: Duration = Duration::from_secs(15);
/// A busy machine, unoptimised, with the fleet itself on it.
const MARGIN: Duration = Duration::from_secs(15);
/// Agents that enrol at a time.
const AT_A_TIME: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_is_back_soon_after_its_gateway() {
    let size = if asks_for_all() { 1_000 } else { 50 };
    fairlead_runtime::process::raise_file_limit().unwrap();
    let dir = throw_away();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let mut gateway = home.start_as(|| telling(&home)).await;
    let stop = CancellationToken::new();
    let _agents = fleet(&home, dir.path(), size, &stop).await;
    back(&home, size).await;
    for (how, signal) in [("killed", Signal::SIGKILL), ("told to stop", Signal::SIGTERM)] {
        gateway.signal(signal);
        gateway.ended(PATIENCE).await;
        gateway = home.start_as(|| telling(&home)).await;
        let (half, all) = back(&home, size).await;
        let peak = memory(&gateway, "VmHWM");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let steady = memory(&gateway, "VmRSS");
        let timeouts = gateway.log().matches("did not end within 10 s").count();
        println!(
            "R3: {size} agents, gateway {how} and started again: half back after {half:.1?} (goal 6 s), all after {all:.1?} \
             (goal 15 s), {timeouts} handshake timeouts (goal 0), memory peak {peak} KiB, steady {steady} KiB, {:.2} times (goal 2)",
            peak as f64 / steady as f64
        );
        assert!(all <= ALL_BACK + MARGIN, "{all:?}");
        assert_eq!(timeouts, 0, "handshakes timed out");
        assert!(peak <= steady * 2, "{peak} KiB at the peak, {steady} KiB steady");
    }
    assert_eq!(home.metric("fairlead_panics_total").await, Some(0));
    stop.cancel();
}

/// The gateway's program, which says of each handshake that did not end.
fn telling(home: &GatewayHome) -> Command {
    let mut command = home.command("run");
    command.env("FAIRLEAD_LOG", "info,fairlead_gateway::link::accept=debug");
    command
}

/// Enrols and starts agents in this process.
async fn fleet(home: &GatewayHome, dir: &Path, size: usize, stop: &CancellationToken) -> Vec<Agent> {
    let uses = size.to_string();
    let file = dir.join("fleet.join");
    let text = home
        .token(&file, &["--agents", "pump-*", "--uses", &uses, "--no-approval"])
        .await;
    let join = Arc::new(JoinString::parse(&text).unwrap());
    let tasks = TaskGroup::new("fleet", stop);
    let (started, mut all) = mpsc::channel(size);
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    for number in 0..size {
        let (join, started, stop) = (Arc::clone(&join), started.clone(), stop.clone());
        let (place, dir) = (Arc::clone(&places), dir.join(format!("pump-{number}")));
        tasks.spawn("agent", async move {
            let _place = place.acquire_owned().await.unwrap();
            started.send(agent(number, &dir, &join, &stop).await).await.unwrap();
        });
    }
    drop(started);
    let mut agents = Vec::new();
    while let Some(agent) = all.recv().await {
        agents.push(agent);
    }
    assert_eq!(agents.len(), size);
    agents
}

async fn agent(number: usize, dir: &Path, join: &JoinString, stop: &CancellationToken) -> Agent {
    private_dir(dir).unwrap();
    let name = format!("pump-{number}");
    let text = format!(
        "version: 1\nstate_dir: \"{0}/state\"\ncontrol_socket: \"{0}/control.sock\"\nendpoints:\n  - {{ url: \"tcp://{name}.default.internal:9\", upstream: {{ url: \"tcp://127.0.0.1:9\" }} }}\n",
        dir.display()
    );
    let config = config::check("agent.yaml", &text).unwrap();
    let name = name.parse().unwrap();
    // The gateway lets so many strangers in at a time; who is late asks again, as a device does.
    for _ in 0..20 {
        if enroll::enroll_agent_as(join, &config.state_dir, Some(&name), &config.ways)
            .await
            .is_ok()
        {
            break;
        }
    }
    Agent::start(config, stop).await.unwrap()
}

/// Waits until everybody is linked: when half of them were, and when all.
async fn back(home: &GatewayHome, size: usize) -> (Duration, Duration) {
    let began = Instant::now();
    let size = u64::try_from(size).unwrap();
    let mut half = None;
    until("everybody is linked", Duration::from_secs(90), async || {
        let count = home.agents_linked().await;
        if count * 2 >= size {
            half.get_or_insert(began.elapsed());
        }
        (count == size).then_some(())
    })
    .await;
    (half.unwrap(), began.elapsed())
}

/// A line of proc(5) status, in KiB.
fn memory(program: &Daemon, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn an_agent_whose_gateway_was_away_for_long_is_back_within_ten_seconds() {
    let away = Duration::from_secs(if asks_for_all() { 600 } else { 20 });
    let mut scene = Scene::set().await;
    scene.gateway.kill().await;
    tokio::time::sleep(away).await;
    scene.gateway = scene.home.start().await;
    let began = Instant::now();
    scene.alice.on(DEVICE, "true").await.succeeded();
    println!(
        "R2: after {away:?} without a gateway a session works {:.1?} after its start (goal 10 s)",
        began.elapsed()
    );
    assert!(
        began.elapsed() <= Duration::from_secs(10) + Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    scene.is_sound().await;
}
