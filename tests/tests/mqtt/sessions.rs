//! Connections and how they end: other ways in, wills, revocation, a broker that goes.

use std::time::{Duration, Instant};

use fairlead_tests::clients::{Running, run, stock};
use fairlead_tests::lab::until;

use crate::stage::Stage;

/// Waits until the program says a line with this in it.
async fn awaits(program: &mut Running, part: &str) -> String {
    loop {
        let line = program.line().await;
        if line.contains(part) {
            return line;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paho_speaks_through_a_websocket() {
    let stage = Stage::set().await;
    let said = run(stage.paho(include_str!("websocket.py"), &stage.valve, &[])).await;
    assert_eq!(said.succeeded().text().trim(), "done");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paho_speaks_both_versions_at_every_quality_of_service() {
    let stage = Stage::set().await;
    for transport in ["tcp", "websockets"] {
        for version in ["4", "5"] {
            let said = run(stage.paho(include_str!("flows.py"), &stage.valve, &[transport, version])).await;
            assert_eq!(said.succeeded().text().trim(), "done", "{transport} {version}");
        }
    }
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_of_stock_ssh_is_read_like_any_other_way() {
    let stage = Stage::set().await;
    let port = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let forward = format!("127.0.0.1:{port}:device.default.internal:1883");
    let ssh = Running::start(stage.valve.ssh(&["-N", "-L", &forward, fairlead_tests::lab::DOMAIN]));
    until("the forward", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
            .then_some(())
    })
    .await;
    let publish = async |topic: &str| {
        let mut publish = stock("mosquitto_pub");
        publish.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", "5", "-q", "1", "-d"]);
        publish.args(["-i", "valve", "-t", topic, "-m", "word"]);
        let said = run(publish).await;
        format!("{}{}", said.text(), said.stderr)
    };
    for (topic, code) in [("devices/valve/x", "RC:16)"), ("devices/pump/x", "RC:135)")] {
        let said = publish(topic).await;
        assert!(said.contains(code), "{topic}: {said}");
    }
    ssh.interrupt();
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_will_of_a_client_that_is_lost_is_published_and_of_one_that_leaves_is_not() {
    let stage = Stage::set().await;
    let hears = [
        "-h",
        "127.0.0.1",
        "-p",
        &stage.broker.port.to_string(),
        "-t",
        "devices/#",
        "-v",
        "-d",
    ];
    let mut straight = Stage::by_lines("mosquitto_sub");
    straight.args(hears);
    let mut straight = Running::start(straight);
    awaits(&mut straight, "received SUBACK").await;
    let listen = [
        "-t",
        "news/#",
        "-i",
        "valve",
        "-d",
        "--will-topic",
        "devices/valve/gone",
        "--will-payload",
        "lost",
    ];
    let mut lost = Running::start(stage.mosquitto("mosquitto_sub", &stage.valve, "311", &listen));
    awaits(&mut lost, "received SUBACK").await;
    // Its process group is killed: no DISCONNECT.
    drop(lost);
    assert!(awaits(&mut straight, "devices/valve/gone lost").await.ends_with("lost"));
    straight.interrupt();
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_revoked_is_told_and_cut_within_two_seconds() {
    let stage = Stage::set().await;
    let listen = ["-t", "news/#", "-i", "valve", "-d"];
    let mut hears = Running::start(stage.mosquitto("mosquitto_sub", &stage.valve, "5", &listen));
    awaits(&mut hears, "received SUBACK").await;
    let session = stage.lab.sessions().await[0].id.clone();
    let since = Instant::now();
    stage.lab.disable_user("valve", true).await;
    let end = stage.lab.gateway_audit().awaited("session.end", Some(&session)).await;
    assert_eq!(end.text("reason"), "revoked");
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    let said = hears.finish().await;
    assert!(said.text().contains("Received DISCONNECT (135)"), "{}", said.text());
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_come_back_after_their_broker() {
    let mut stage = Stage::set().await;
    let listen = ["-t", "news/#", "-i", "valve", "-d"];
    let mut hears = Running::start(stage.mosquitto("mosquitto_sub", &stage.valve, "5", &listen));
    awaits(&mut hears, "received SUBACK").await;
    stage.broker.restart().await;
    awaits(&mut hears, "received SUBACK").await;
    hears.interrupt();
    stage.strike().await;
}
