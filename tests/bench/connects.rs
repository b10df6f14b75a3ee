//! A connection, one byte there and back, and its end, which the target begins: 32 at a time, 3,072 in a turn.
//!
//! Not more: an agent lets 8,192 sessions that it permits begin at once and 1,024 a second from then on. Between turns
//! everybody waits, so that as many may begin again.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Effort;
use crate::load::{Target, together};
use crate::stats::{Sheet, at, column, to};
use crate::ways::{self, Entry, Way};

const AT_A_TIME: usize = 32;
/// Of each of them, one after the other.
const EACH: usize = 96;
/// After which an agent lets a whole turn begin at once again.
const PAUSE: Duration = Duration::from_secs(3);

pub(crate) async fn measure(effort: Effort) -> Value {
    let target = Target::start().await;
    let ways = ways::start(&target, &effort).await;
    let mut sheet = Sheet::new(
        "connections set up, 32 at a time",
        &[
            to("direct", "connections/s", 0),
            column("p50 ms", 1),
            column("p99 ms", 1),
            column("CPU-us/connection", 0),
        ],
    );
    for _ in 0..effort.rounds {
        for way in &ways {
            sheet.add(way.name, turn(way).await);
            tokio::time::sleep(PAUSE).await;
        }
    }
    sheet.show()
}

async fn turn(way: &Way) -> Vec<f64> {
    let entry = way.entry().await;
    let (before, began) = (way.cpu(), Instant::now());
    let each = together((0..AT_A_TIME).map(|_| again_and_again(entry.clone()))).await;
    let took = began.elapsed().as_secs_f64();
    let cpu = if way.has_tunnel() { way.cpu() - before } else { f64::NAN };
    let mut taken = each.concat();
    let count = taken.len() as f64;
    let spread = at(&mut taken, &[500, 990]);
    vec![count / took, spread[0] / 1e3, spread[1] / 1e3, cpu * 1e6 / count]
}

async fn again_and_again(entry: Entry) -> Vec<Duration> {
    let mut taken = Vec::new();
    for _ in 0..EACH {
        let start = Instant::now();
        let mut stream = entry.connect().await;
        stream.write_all(b"c1").await.expect("the byte is taken");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.expect("the byte comes back");
        assert_eq!(heard, b"1");
        taken.push(start.elapsed());
    }
    taken
}
