//! 64 bytes there and back: one connection, 64 connections that ask again as soon as they are answered (closed loop), and 64
//! connections that ask 2,000 times a second whatever the answers do (open loop; counted from the moment of sending, so that a slow
//! answer does not hide those behind it).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Effort;
use crate::load::{self, MESSAGE, Target, together};
use crate::stats::{Column, Sheet, at, column, to};
use crate::ways::{self, Way};

const CONNECTIONS: u32 = 64;
/// Of all connections together.
const A_SECOND: u32 = 2_000;

pub(crate) async fn measure(effort: Effort) -> Value {
    let target = Target::start().await;
    let ways = ways::start(&target, &effort).await;
    let seconds = Duration::from_secs(effort.seconds_or(4).into());
    let columns = |first: Column| {
        [
            first,
            to("direct", "p50 us", 0),
            to("direct", "p99 us", 0),
            column("p99.9 us", 0),
            column("CPU-us/request", 1),
        ]
    };
    let rate = to("direct", "requests/s", 0);
    let mut lone = Sheet::new("echo, 64 B, 1 connection, closed loop", &columns(rate.clone()));
    let mut many = Sheet::new("echo, 64 B, 64 connections, closed loop", &columns(rate));
    let mut paced = Sheet::new(
        "echo, 64 B, 64 connections, 2,000 requests/s, open loop",
        &columns(column("requests/s", 0)),
    );
    for _ in 0..effort.rounds {
        for way in &ways {
            lone.add(way.name, costed(way, closed(way, 1, seconds)).await);
        }
        for way in &ways {
            many.add(way.name, costed(way, closed(way, CONNECTIONS, seconds)).await);
        }
        for way in &ways {
            paced.add(way.name, costed(way, open(way, seconds)).await);
        }
    }
    json!({ "lone": lone.show(), "many": many.show(), "paced": paced.show() })
}

/// Requests/s, p50, p99, p99.9 in microseconds, and processor microseconds of the tunnel for each.
async fn costed(way: &Way, load: impl Future<Output = Vec<Vec<Duration>>>) -> Vec<f64> {
    let (before, began) = (way.cpu(), Instant::now());
    let taken = load.await;
    let took = began.elapsed().as_secs_f64();
    let cpu = if way.has_tunnel() { way.cpu() - before } else { f64::NAN };
    let mut taken = taken.concat();
    let count = taken.len() as f64;
    let mut row = vec![count / took];
    row.extend(at(&mut taken, &[500, 990, 999]));
    row.push(cpu * 1e6 / count);
    row
}

async fn closed(way: &Way, connections: u32, time: Duration) -> Vec<Vec<Duration>> {
    let entry = way.entry().await;
    let one = |_| {
        let entry = entry.clone();
        async move {
            let mut stream = entry.connect().await;
            load::hello(&mut stream).await;
            let (mut taken, began) = (Vec::new(), Instant::now());
            while began.elapsed() < time {
                taken.push(load::ping(&mut stream).await);
            }
            taken
        }
    };
    together((0..connections).map(one)).await
}

async fn open(way: &Way, time: Duration) -> Vec<Vec<Duration>> {
    let entry = way.entry().await;
    let pause = Duration::from_secs(1) * CONNECTIONS / A_SECOND;
    let one = |number: u32| {
        let entry = entry.clone();
        async move {
            let mut stream = entry.connect().await;
            load::hello(&mut stream).await;
            tokio::time::sleep(pause * number / CONNECTIONS).await;
            let count = time.as_micros() / pause.as_micros();
            let (mut read, mut write) = stream.into_split();
            let sent = Arc::new(Mutex::new(VecDeque::new()));
            let asked = Arc::clone(&sent);
            let ask = async move {
                let mut tick = tokio::time::interval(pause);
                for _ in 0..count {
                    tick.tick().await;
                    asked.lock().unwrap().push_back(Instant::now());
                    write.write_all(&[7; MESSAGE]).await.expect("the message is taken");
                }
                write
            };
            let hear = async {
                let (mut taken, mut answer) = (Vec::new(), [0; MESSAGE]);
                for _ in 0..count {
                    read.read_exact(&mut answer).await.expect("the answer comes");
                    let sent = sent.lock().unwrap().pop_front().expect("an answer to what was asked");
                    taken.push(sent.elapsed());
                }
                taken
            };
            tokio::join!(hear, ask).0
        }
    };
    together((0..CONNECTIONS).map(one)).await
}
