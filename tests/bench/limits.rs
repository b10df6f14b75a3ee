//! Limits that hold (SECURITY.md): 10,000 agents (S1), 5,000 sessions (S2), a slow reader (S5) and a noisy neighbour (S6) at one
//! gateway.

use std::time::{Duration, Instant};

use fairlead_tests::programs::Daemon;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Effort;
use crate::agents::{COLUMNS as AGENTS, linked_agents};
use crate::bulk;
use crate::cost;
use crate::load::{self, Target, together};
use crate::memory::crowd;
use crate::stats::{Sheet, at, column};
use crate::ways::{Entry, Fairlead, Link};

/// Sessions of S2 by one agent, which takes 1,024.
const OF_AN_AGENT: u32 = 1_000;
/// The quiet sessions of S5.
const QUIET: usize = 200;
/// Between two messages of each of them.
const PAUSE: Duration = Duration::from_millis(100);
/// More than anybody reads here.
const ENDLESS: u64 = 1 << 40;
/// Who opens sessions in S6, and how often each does: 2,000 in a second.
const OPENERS: usize = 40;
const OPENS: Duration = Duration::from_millis(20);

pub(crate) async fn measure(effort: Effort) -> Value {
    let target = Target::start().await;
    json!({
        "sessions": sessions(&effort, &target).await,
        "slow reader": slow_reader(&effort, &target).await,
        "noisy neighbour": noisy(&effort, &target).await,
        "agents": agents(&effort).await,
    })
}

async fn agents(effort: &Effort) -> Value {
    let count = if effort.quick { 200 } else { 10_000 };
    let mut sheet = Sheet::new(
        "S1: idle agents at one gateway (goal: 48 KiB each, 500 MiB, 5 % of a core; all back in 3 CPU-s)",
        &AGENTS,
    );
    sheet.add("quic", linked_agents(count, "quic", Duration::from_secs(20)).await);
    sheet.show()
}

async fn sessions(effort: &Effort, target: &Target) -> Value {
    let count: u32 = if effort.quick { 200 } else { 5_000 };
    let fairlead = Fairlead::start(Link::Quic, target.port).await;
    let mut ways = vec![fairlead.entry()];
    let mut neighbours = Vec::new();
    while (ways.len() as u32) < count.div_ceil(OF_AN_AGENT) {
        let (agent, entry) = fairlead
            .neighbour(&format!("other-{}", ways.len()), ways.len() as u64 + 1)
            .await;
        neighbours.push(agent);
        ways.push(entry);
    }
    let agents: Vec<u32> = neighbours.iter().map(Daemon::id).chain([fairlead.agent.id()]).collect();
    let rss = || [cost::rss(&[fairlead.gateway.id()]), cost::rss(&agents)];
    let (empty, began) = (rss(), Instant::now());
    let mut held = Vec::new();
    for way in &ways {
        held.extend(crowd(way, count / ways.len() as u32).await);
    }
    let took = began.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let full = rss();
    let active = fairlead.home.metric("fairlead_sessions_active").await;
    let each = |side: usize| (full[side] - empty[side]) / f64::from(count);
    let mut sheet = Sheet::new(
        "S2: sessions at one gateway, 1,000 by each agent (goal: 60 s, no failure, 150 KiB each)",
        &[
            column("sessions", 0),
            column("set up in s", 1),
            column("KiB/session gateway", 1),
            column("KiB/session agent", 1),
        ],
    );
    sheet.add("fairlead", vec![held.len() as f64, took, each(0), each(1)]);
    println!("sessions that the gateway counts: {active:?}");
    sheet.show()
}

/// Messages of quiet sessions, each every [`PAUSE`], for so long: p50, p99 and the most in microseconds.
async fn quiet(held: Vec<TcpStream>, time: Duration) -> (Vec<TcpStream>, Vec<f64>) {
    let each = held.into_iter().enumerate().map(|(number, mut stream)| async move {
        tokio::time::sleep(PAUSE * u32::try_from(number % 100).expect("below 100") / 100).await;
        let (mut taken, began) = (Vec::new(), Instant::now());
        while began.elapsed() < time {
            taken.push(load::ping(&mut stream).await);
            tokio::time::sleep(PAUSE).await;
        }
        (stream, taken)
    });
    let (held, taken): (Vec<_>, Vec<_>) = together(each).await.into_iter().unzip();
    (held, at(&mut taken.concat(), &[500, 990, 1000]))
}

async fn slow_reader(effort: &Effort, target: &Target) -> Value {
    let fairlead = Fairlead::start(Link::Quic, target.port).await;
    let pids = [fairlead.gateway.id(), fairlead.agent.id()];
    let rss = || pids.iter().map(|pid| cost::rss(&[*pid])).sum::<f64>() / 1024.0;
    let time = Duration::from_secs(if effort.quick { 2 } else { 8 });
    let mut sheet = Sheet::new(
        "S5: 200 sessions beside one that fetches and does not read (goal: 20 ms worse, 1 MiB held)",
        &[
            column("p50 us", 0),
            column("p99 us", 0),
            column("max us", 0),
            column("MiB of both programs", 1),
        ],
    );
    let mut held = crowd(&fairlead.entry(), QUIET as u32).await;
    for _ in 0..effort.rounds {
        let figures;
        (held, figures) = quiet(held, time).await;
        sheet.add("alone", [figures, vec![rss()]].concat());
        let mut slow = fairlead.entry().ready().await.connect().await;
        slow.write_u8(b'd').await.expect("the order is taken");
        slow.write_u64(ENDLESS).await.expect("the length is taken");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let figures;
        (held, figures) = quiet(held, time).await;
        sheet.add("beside the slow reader", [figures, vec![rss()]].concat());
    }
    sheet.show()
}

async fn noisy(effort: &Effort, target: &Target) -> Value {
    let fairlead = Fairlead::start(Link::Quic, target.port).await;
    let (_agent, neighbour) = fairlead.neighbour("noisy", 2).await;
    let time = Duration::from_secs(if effort.quick { 2 } else { 6 });
    let mut sheet = Sheet::new(
        "S6: 20 sessions beside another agent at full rate and with 2,000 opens a second (goal: p99 twice as long)",
        &[
            column("p50 us", 0),
            column("p99 us", 0),
            column("max us", 0),
            column("noisy opens/s", 0),
        ],
    );
    let mut held = crowd(&fairlead.entry(), 20).await;
    for _ in 0..effort.rounds {
        let figures;
        (held, figures) = quiet(held, time).await;
        sheet.add("alone", [figures, vec![f64::NAN]].concat());
        let entry = neighbour.ready().await;
        let noise = async {
            tokio::select! {
                () = bulk::one(entry.clone(), false, ENDLESS) => panic!("the download has ended"),
                opened = together((0..OPENERS).map(|_| opens(entry.clone(), time))) => opened,
            }
        };
        let (calm, opened) = tokio::join!(quiet(held, time), noise);
        held = calm.0;
        let rate = opened.iter().sum::<usize>() as f64 / time.as_secs_f64();
        let figures = [calm.1, vec![rate]].concat();
        sheet.add("beside the noise", figures);
    }
    sheet.show()
}

/// Sessions that end at once, one every [`OPENS`]; how many worked.
async fn opens(entry: Entry, time: Duration) -> usize {
    let (mut count, began) = (0, Instant::now());
    let mut tick = tokio::time::interval(OPENS);
    while began.elapsed() < time {
        tick.tick().await;
        let mut stream = entry.connect().await;
        // One that is refused for a limit is what the limit is for.
        if stream.write_all(b"c1").await.is_ok() && stream.read_u8().await.is_ok() {
            count += 1;
        }
    }
    count
}
