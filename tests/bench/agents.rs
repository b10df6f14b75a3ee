//! What linked agents cost the gateway that nobody uses, and what it costs to have them all back at once. 1,000 of them, by QUIC and
//! by WebSocket, in a process of their own.

use std::time::{Duration, Instant};

use fairlead_tests::programs::{Daemon, PATIENCE, throw_away};
use serde_json::Value;

use crate::Effort;
use crate::cost;
use crate::crowd::{Crowd, linked};
use crate::stats::{Column, Sheet, column};
use crate::ways::gateway_home;

pub(crate) const COLUMNS: [Column; 7] = [
    column("agents", 0),
    column("KiB/agent", 1),
    column("gateway MiB", 1),
    column("idle % of a core", 2),
    column("all back s", 1),
    column("gateway CPU-s for it", 2),
    column("handshakes/core-s", 0),
];

pub(crate) async fn measure(effort: Effort) -> Value {
    let count = if effort.quick { 100 } else { 1_000 };
    let idle = Duration::from_secs(if effort.quick { 5 } else { 30 });
    let mut sheet = Sheet::new("linked agents at one gateway", &COLUMNS);
    for transport in ["quic", "websocket"] {
        sheet.add(transport, linked_agents(count, transport, idle).await);
    }
    sheet.show()
}

/// One row: links so many, leaves them alone for `idle`, then kills the gateway and waits until they are back.
pub(crate) async fn linked_agents(count: u64, transport: &str, idle: Duration) -> Vec<f64> {
    let dir = throw_away();
    let home = gateway_home(&dir).await;
    let mut gateway = home.start().await;
    let empty = cost::rss(&[gateway.id()]);
    let mut crowd = Crowd::start(&home, dir.path(), count, transport).await;
    linked(&home, &mut gateway, &mut crowd, count).await;
    // Enrolment has filled buffers that a gateway which has been up for long does not have: what counts is after a restart.
    let (gateway, back, spent) = again(&home, gateway, &mut crowd, count).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, began) = (cost::cpu(&[gateway.id()]), Instant::now());
    tokio::time::sleep(idle).await;
    let share = (cost::cpu(&[gateway.id()]) - before) / began.elapsed().as_secs_f64() * 100.0;
    let full = cost::rss(&[gateway.id()]);
    let count = count as f64;
    vec![
        count,
        (full - empty) / count,
        full / 1024.0,
        share,
        back,
        spent,
        count / spent,
    ]
}

/// Kills the gateway and starts it again: with how long it took until everybody was linked, and what the gateway computed in
/// that time, its own start included.
async fn again(
    home: &fairlead_tests::programs::GatewayHome,
    mut gateway: Daemon,
    crowd: &mut Crowd,
    count: u64,
) -> (Daemon, f64, f64) {
    gateway.signal(nix::sys::signal::Signal::SIGKILL);
    gateway.ended(PATIENCE).await;
    let began = Instant::now();
    let mut gateway = home.start().await;
    linked(home, &mut gateway, crowd, count).await;
    let (back, spent) = (began.elapsed().as_secs_f64(), cost::cpu(&[gateway.id()]));
    (gateway, back, spent)
}
