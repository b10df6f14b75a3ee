//! Goodput over a path that loses packets: 40 ms there and back, 1 and 5 % lost both ways, a device behind a router in namespaces of its
//! own. Packets wait in this process (NFQUEUE), as in the tests of bad networks, because `netem` need not be there. Plain TCP
//! sends by CUBIC, which is Debian's default.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fairlead_tests::clients::{Running, stock};
use fairlead_tests::field::Field;
use fairlead_tests::netns::{self, MIDDLE, NetworkPath};
use fairlead_tests::programs::{AgentHome, DEVICE, DOMAIN, PATIENCE, free_port, until};
use serde_json::{Map, Value};
use tokio::net::{TcpListener, TcpStream};

use crate::Effort;
use crate::load::{self, Target, together};
use crate::stats::{Column, Sheet, to};

const MIB: f64 = 1024.0 * 1024.0;
/// Loss in thousandths.
const LOSSES: [u32; 2] = [10, 50];
/// Of plain TCP.
const CUBIC: &str = "cubic";
const DELAY: Duration = Duration::from_millis(20);
const COLUMNS: [Column; 2] = [to("plain TCP", "up MiB/s", 2), to("plain TCP", "down MiB/s", 2)];

pub(crate) async fn measure(effort: Effort) -> Value {
    if effort.inside {
        return inside(&effort).await;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: loss: network namespaces need root");
        return Value::Null;
    }
    let dir = fairlead_tests::programs::throw_away();
    let json = dir.path().join("inside.json");
    let mut again = stock("unshare");
    again
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().expect("a program knows its own path"))
        .args([
            "--inside",
            "--only",
            "loss",
            "--rounds",
            &effort.rounds.to_string(),
            "--json",
        ])
        .arg(&json);
    if effort.quick {
        again.arg("--quick");
    }
    // Minutes: plain TCP hardly moves over the worst of these paths.
    let ended = again.kill_on_drop(true).status().await.expect("unshare runs");
    assert!(ended.success(), "the measurement inside has failed");
    let text = std::fs::read_to_string(json).expect("the figures inside");
    let figures: Value = serde_json::from_str(&text).expect("JSON");
    figures["measurements"]["loss"].clone()
}

async fn inside(effort: &Effort) -> Value {
    let port = free_port();
    let mut field = Field::set("", &AgentHome::tcp(DEVICE, port)).await;
    let _behind = Target::on(field.router.device.listen_on(port));
    let plain = TcpListener::bind((MIDDLE, 0)).await.expect("a free port");
    netns::send_by(&plain, CUBIC);
    let plain = Target::on(plain);
    let local = free_port();
    let forward = format!("127.0.0.1:{local}:{DEVICE}.default.internal:{port}");
    let _forwarding = Running::start(field.alice.ssh_command(&["-N", "-L", &forward, DOMAIN]));
    let ours = SocketAddr::from(([127, 0, 0, 1], local));
    until("the forward listens", PATIENCE, async || {
        TcpStream::connect(ours).await.ok().map(drop)
    })
    .await;
    let theirs: SocketAddr = format!("{MIDDLE}:{}", plain.port).parse().expect("an address");
    let mut all = Map::new();
    for loss in LOSSES {
        for streams in [1, 4] {
            let title = format!("loss of {} % both ways, 40 ms, {streams} stream(s)", loss / 10);
            let mut sheet = Sheet::new(title.clone(), &COLUMNS);
            field.router.become_as(&NetworkPath::lossy(loss, DELAY)).await;
            for _ in 0..effort.rounds {
                // A connection judges losses by its shortest round trip, which may be of another path.
                field.link_anew().await;
                let bytes: u64 = if effort.quick { 500_000 } else { 4_000_000 };
                // From the device's side the ways are the other way round.
                let plain = async |up: bool| {
                    let connect = |_| {
                        let stream = field.router.device.connect(theirs);
                        netns::send_by(&stream, CUBIC);
                        stream
                    };
                    let all = (0..streams).map(connect).collect();
                    rate(all, !up, bytes).await
                };
                sheet.add("plain TCP", vec![plain(true).await, plain(false).await]);
                let tunnel = async |up: bool| {
                    let mut all = Vec::new();
                    for _ in 0..streams {
                        all.push(TcpStream::connect(ours).await.expect("the forward is open"));
                    }
                    rate(all, up, bytes).await
                };
                sheet.add(
                    "fairlead (ssh -L to the gateway)",
                    vec![tunnel(true).await, tunnel(false).await],
                );
            }
            all.insert(title, sheet.show());
        }
    }
    field.is_sound().await;
    Value::Object(all)
}

/// MiB/s of all of them together, each with so many bytes.
async fn rate(streams: Vec<TcpStream>, up: bool, bytes: u64) -> f64 {
    let count = streams.len() as f64;
    let began = Instant::now();
    together(streams.into_iter().map(|mut stream| async move {
        if up {
            load::up(&mut stream, bytes).await;
        } else {
            load::down(&mut stream, bytes).await;
        }
    }))
    .await;
    count * bytes as f64 / MIB / began.elapsed().as_secs_f64()
}
