//! One agent that nobody uses: its program, its memory, how soon it is linked, how often it wakes up.

use std::time::{Duration, Instant};

use fairlead_tests::clients::{run, stock};
use fairlead_tests::programs::{PATIENCE, program};
use serde_json::Value;

use crate::Effort;
use crate::cost;
use crate::load::{Target, down};
use crate::stats::{Column, Sheet, column};
use crate::ways::{Fairlead, Link};

const COLUMNS: [Column; 6] = [
    column("binary MiB, stripped", 2),
    column("linked after ms", 0),
    column("idle RSS MiB", 1),
    column("wake-ups/minute", 0),
    column("idle % of a core", 3),
    column("RSS MiB after 1 GiB", 1),
];
const GIB: u64 = 1024 * 1024 * 1024;

pub(crate) async fn measure(effort: Effort) -> Value {
    let target = Target::start().await;
    let mut sheet = Sheet::new("one agent (this build, not the packaged one)", &COLUMNS);
    for (name, link) in [("quic", Link::Quic), ("websocket", Link::WebSocket)] {
        sheet.add(name, one(link, &target, &effort).await);
    }
    sheet.show()
}

async fn one(link: Link, target: &Target, effort: &Effort) -> Vec<f64> {
    let mut fairlead = Fairlead::start(link, target.port).await;
    let size = stripped(&fairlead).await;
    let linked = start_again(&mut fairlead).await;
    // What a new link has to say and to find out is over by then.
    tokio::time::sleep(Duration::from_secs(if effort.quick { 3 } else { 20 })).await;
    let idle = Duration::from_secs(if effort.quick { 5 } else { 60 });
    let pid = fairlead.agent.id();
    let (waits, cpu) = (cost::waits(pid), cost::cpu(&[pid]));
    tokio::time::sleep(idle).await;
    let minutes = idle.as_secs_f64() / 60.0;
    let waits = (cost::waits(pid) - waits) / minutes;
    let cpu = (cost::cpu(&[pid]) - cpu) / idle.as_secs_f64() * 100.0;
    let rss = cost::rss(&[pid]);
    let entry = fairlead.entry().ready().await;
    down(&mut entry.connect().await, if effort.quick { GIB / 16 } else { GIB }).await;
    vec![size, linked, rss / 1024.0, waits, cpu, cost::rss(&[pid]) / 1024.0]
}

/// Milliseconds from the agent's start until the gateway has its link.
async fn start_again(fairlead: &mut Fairlead) -> f64 {
    fairlead.agent.signal(nix::sys::signal::Signal::SIGTERM);
    fairlead.agent.ended(PATIENCE).await;
    fairlead.home.linked(0).await;
    let began = Instant::now();
    fairlead.agent = fairlead.device.start();
    while fairlead.home.agents_linked().await != 1 {
        assert!(began.elapsed() < PATIENCE, "the agent does not link");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed().as_secs_f64() * 1e3
}

/// MiB of the agent's program without its symbols.
async fn stripped(fairlead: &Fairlead) -> f64 {
    let copy = fairlead.dir.path().join("stripped");
    let mut strip = stock("strip");
    strip.arg("-o").arg(&copy).arg(program("fairlead-agent"));
    run(strip).await.succeeded();
    std::fs::metadata(copy).expect("a program").len() as f64 / (1024.0 * 1024.0)
}
