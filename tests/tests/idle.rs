//! What an agent costs that nobody uses: bytes on the wire, both ways (SECURITY.md S4). Ten minutes with FAIRLEAD_TESTS_ALL=1.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

use std::time::{Duration, Instant};

use fairlead_tests::clients::{asks_for_all, run, stock};
use fairlead_tests::netns::{self, Place};
use fairlead_tests::programs::{AgentHome, Daemon, GatewayHome, throw_away};

/// One way to be linked, and what a day of it may cost.
struct Way {
    what: &'static str,
    lines: &'static str,
    bytes_a_day: u64,
}

const WAYS: &[Way] = &[
    Way {
        what: "QUIC",
        lines: "transport: quic\n",
        bytes_a_day: 2_000_000,
    },
    Way {
        what: "QUIC, data_saver",
        lines: "transport: quic\ndata_saver: true\n",
        bytes_a_day: 500_000,
    },
    Way {
        what: "WebSocket",
        lines: "transport: websocket\n",
        bytes_a_day: 4_000_000,
    },
    Way {
        what: "WebSocket, data_saver",
        lines: "transport: websocket\ndata_saver: true\n",
        bytes_a_day: 1_500_000,
    },
];

const DAY: u64 = 86_400;

#[test]
fn an_agent_that_nobody_uses_costs_little_on_every_transport() {
    netns::alone(
        "an_agent_that_nobody_uses_costs_little_on_every_transport",
        nobody_comes(),
    );
}

async fn nobody_comes() {
    netns::be_the_middle().await;
    let dir = throw_away();
    let home = GatewayHome::in_the_middle(&dir.path().join("gateway")).await;
    let _gateway = home.start().await;
    let mut agents = Vec::new();
    for (number, way) in (1..).zip(WAYS) {
        let place = Place::new(number).await;
        let name = format!("pump-{number}");
        let device = home
            .agent(&dir.path().join(&name), &name, &AgentHome::builtin(&name))
            .await;
        device.add(way.lines);
        keep_neighbours(&place).await;
        let agent = Daemon::start(place.within(&device.command("run")), &device.path("agent.log"));
        agents.push((place, agent));
    }
    home.linked(WAYS.len().try_into().unwrap()).await;
    // What a new link has to say and to find out (the path's largest packet) is over by then.
    tokio::time::sleep(Duration::from_secs(if asks_for_all() { 60 } else { 15 })).await;

    let began = Instant::now();
    let mut before = Vec::new();
    for (place, _) in &agents {
        before.push(carried(place).await);
    }
    tokio::time::sleep(Duration::from_secs(if asks_for_all() { 600 } else { 30 })).await;
    for ((way, (place, agent)), before) in WAYS.iter().zip(&mut agents).zip(before) {
        let seconds = began.elapsed().as_secs().max(1);
        let bytes = carried(place).await - before;
        let a_day = bytes * DAY / seconds;
        println!(
            "S4: an idle agent, {}: {bytes} bytes in {seconds} s, {:.2} MB a day (goal {:.1})",
            way.what,
            a_day as f64 / 1e6,
            way.bytes_a_day as f64 / 1e6
        );
        assert!(
            agent.is_alive() && !agent.log().contains("link down"),
            "{}",
            agent.log()
        );
        // A short span may have several keep-alives more than its share.
        let margin = if asks_for_all() { 115 } else { 500 };
        assert!(
            a_day <= way.bytes_a_day * margin / 100,
            "{}: {a_day} bytes a day",
            way.what
        );
    }
}

/// Has neither end of a place's cable ask again who the other is (ARP): such questions cost nothing on the way to a gateway.
async fn keep_neighbours(place: &Place) {
    let known = |device: String| format!("echo 86400000 > /proc/sys/net/ipv4/neigh/{device}/base_reachable_time_ms");
    place.run("sh", &["-c", &known(place.far())]).await;
    let mut here = stock("sh");
    here.args(["-c", &known(place.near())]);
    run(here).await.succeeded();
}

/// IP bytes that have passed a place's way out, both ways.
async fn carried(place: &Place) -> u64 {
    let mut ip = stock("ip");
    ip.args(["-s", "-j", "link", "show", "dev", &place.near()]);
    let shown = run(ip).await.succeeded();
    let links: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let count = |way: &str, what: &str| links[0]["stats64"][way][what].as_u64().unwrap();
    let ethernet = 14 * (count("rx", "packets") + count("tx", "packets"));
    count("rx", "bytes") + count("tx", "bytes") - ethernet
}
