//! The systemd units: what they promise is kept by the programs, and they give away no more than they must.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::path::{Path, PathBuf};

use fairlead_tests::clients::{run, stock};
use fairlead_tests::programs::{AgentHome, DEVICE, Daemon, GatewayHome, throw_away};

/// Binds TCP and UDP on one port, hands both over as systemd does (sd_listen_fds(3)), and becomes the program.
const ACTIVATE: &str = "
import os, socket, sys
port = int(sys.argv[1])
tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM); tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
tcp.bind(('127.0.0.1', port)); tcp.listen(64)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('127.0.0.1', port))
held = [os.dup(tcp.fileno()), os.dup(udp.fileno())]
wanted = [tcp, udp] if sys.argv[2] == 'both' else [tcp]
for number, one in enumerate(wanted): os.dup2(held[number], 3 + number, inheritable=True)
os.environ['LISTEN_FDS'] = str(len(wanted)); os.environ['LISTEN_PID'] = str(os.getpid())
os.execv(sys.argv[3], sys.argv[3:])
";

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

fn activated(home: &GatewayHome, sockets: &str, listen: u16) -> tokio::process::Command {
    let run = home.command("run");
    let mut python = stock("python3");
    python.args(["-c", ACTIVATE, &listen.to_string(), sockets]);
    python.arg(run.as_std().get_program()).args(run.as_std().get_args());
    python
}

#[tokio::test]
async fn the_gateway_takes_the_port_that_systemd_bound() {
    let dir = throw_away();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    // Its own file names a port that is taken: were it to bind, it would end.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = std::fs::read_to_string(home.config()).unwrap();
    let own = format!("listen: \"127.0.0.1:{}\"", home.port);
    let other = format!("listen: \"{}\"", taken.local_addr().unwrap());
    assert!(text.contains(&own));
    std::fs::write(home.config(), text.replace(&own, &other)).unwrap();

    let _gateway = Daemon::start(activated(&home, "both", home.port), &home.path("gateway.log"));
    // `token create` waits for the administration socket no longer than a moment: the metrics tell when all is up.
    fairlead_tests::programs::until("the gateway is up", fairlead_tests::programs::PATIENCE, async || {
        let address = (std::net::Ipv4Addr::LOCALHOST, home.metrics).into();
        fairlead_tests::programs::http_get(address, "/readyz").await.map(drop)
    })
    .await;
    let device = home
        .agent(&dir.path().join("device"), DEVICE, &AgentHome::builtin(DEVICE))
        .await;
    let _agent = device.start();
    let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
    home.linked(1).await;
    assert_eq!(alice.on(DEVICE, "echo through").await.succeeded().text(), "through\n");
}

#[tokio::test]
async fn half_a_port_is_refused_with_what_the_unit_lacks() {
    let dir = throw_away();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let refused = run(activated(&home, "tcp", home.port)).await;
    assert_eq!(refused.code(), Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("1 TCP and 0 UDP") && refused.stderr.contains("ListenDatagram="),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn the_sandbox_keeps_its_score() {
    // Goals of SECURITY.md P14, times ten.
    for (unit, goal) in [
        ("fairlead-agent.service", "15"),
        ("fairlead-agent@.service", "15"),
        ("fairlead-gateway.service", "20"),
    ] {
        let mut analyze = stock("systemd-analyze");
        analyze
            .args(["security", "--offline=true", "--no-pager", "--threshold", goal])
            .arg(units().join(unit));
        let finished = run(analyze).await;
        assert!(
            finished.status.success(),
            "{unit}: {}{}",
            finished.text(),
            finished.stderr
        );
        assert!(
            finished.text().contains("Overall exposure level"),
            "{}",
            finished.text()
        );
    }
}

/// Paths that the conditions of a unit name below `folder`.
fn awaited(unit: &str, folder: &str) -> Vec<String> {
    let text = std::fs::read_to_string(units().join(unit)).unwrap();
    let conditions = text
        .lines()
        .filter_map(|line| line.strip_prefix("ConditionPathExists="));
    let paths = conditions.map(|path| path.trim_start_matches('|'));
    paths
        .filter_map(|path| path.strip_prefix(folder))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn units_wait_for_what_setting_up_and_enrolling_make() {
    let dir = throw_away();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let _gateway = home.start().await;
    let device = home.agent(&dir.path().join("device"), DEVICE, "").await;
    let waits = |unit: &str, folder: &str, state: PathBuf| {
        let awaited = awaited(unit, folder);
        assert!(!awaited.is_empty(), "{unit} waits for nothing below {folder}");
        for name in awaited {
            assert!(
                state.join(&name).exists(),
                "{unit} waits for {name}, which nobody makes"
            );
        }
    };
    waits(
        "fairlead-gateway.service",
        "/var/lib/fairlead-gateway/",
        home.path("state"),
    );
    waits(
        "fairlead-agent.service",
        "/var/lib/fairlead-agent/",
        device.path("state"),
    );
    waits(
        "fairlead-agent@.service",
        "/var/lib/fairlead-agent-%i/",
        device.path("state"),
    );
}
