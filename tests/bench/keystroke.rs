//! Keystrokes of one session while another on the same link fetches as fast as it can: how long each takes to come back.

use std::time::Duration;

use serde_json::Value;

use crate::Effort;
use crate::bulk;
use crate::load::{self, Target};
use crate::stats::{Sheet, at, column, to};
use crate::ways::{self, Way};

/// Between two keystrokes; nobody types faster.
const PAUSE: Duration = Duration::from_millis(20);
/// More than any way moves while keys are typed.
const ENDLESS: u64 = 1 << 40;

pub(crate) async fn measure(effort: Effort) -> Value {
    let target = Target::start().await;
    let ways = ways::start(&target, &effort).await;
    let keys = effort.seconds_or(4) * 50;
    let mut sheet = Sheet::new(
        "keystrokes (64 B every 20 ms) beside one download on the same link",
        &[
            to("direct", "p50 us", 0),
            to("direct", "p99 us", 0),
            column("max us", 0),
            column("alone p50 us", 0),
        ],
    );
    for _ in 0..effort.rounds {
        for way in &ways {
            sheet.add(way.name, turn(way, keys).await);
        }
    }
    sheet.show()
}

async fn turn(way: &Way, keys: u32) -> Vec<f64> {
    let entry = way.entry().await;
    let mut stream = entry.connect().await;
    load::hello(&mut stream).await;
    let alone = typed(&mut stream, keys / 4).await;
    let mut row = tokio::select! {
        () = bulk::one(entry, false, ENDLESS) => panic!("the download has ended"),
        row = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            typed(&mut stream, keys).await
        } => row,
    };
    row.push(alone[0]);
    row
}

async fn typed(stream: &mut tokio::net::TcpStream, keys: u32) -> Vec<f64> {
    let mut taken = Vec::new();
    for _ in 0..keys {
        tokio::time::sleep(PAUSE).await;
        taken.push(load::ping(stream).await);
    }
    at(&mut taken, &[500, 990, 1000])
}
