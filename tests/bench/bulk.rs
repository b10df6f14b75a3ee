//! Many bytes by one and by eight connections, up and down: how fast, and what the tunnel's processes compute for a GiB.

use std::time::Instant;

use serde_json::{Map, Value};

use crate::load::{self, Target, together};
use crate::stats::{Sheet, column, to};
use crate::ways::{self, Way};
use crate::{Effort, ways::Entry};

const MIB: u64 = 1024 * 1024;

/// Name, streams, whether bytes go up.
const SHAPES: [(&str, u64, bool); 4] = [
    ("up, 1 stream", 1, true),
    ("down, 1 stream", 1, false),
    ("up, 8 streams", 8, true),
    ("down, 8 streams", 8, false),
];

pub(crate) async fn measure(effort: Effort) -> Value {
    let target = Target::start().await;
    let ways = ways::start(&target, &effort).await;
    let megabytes = if effort.quick { 64 } else { 384 };
    let mut all = Map::new();
    let mut mean = Sheet::new(
        format!("bulk, mean of the four shapes, {megabytes} MiB each"),
        &[column("MiB/s", 0), to(base(&ways), "CPU-s/GiB", 2)],
    );
    let mut sums = vec![vec![(0.0, 0.0); ways.len()]; effort.rounds as usize];
    for (shape, streams, up) in SHAPES {
        let mut sheet = Sheet::new(
            format!("bulk {shape}, {megabytes} MiB"),
            &[column("MiB/s", 0), to(base(&ways), "CPU-s/GiB", 2)],
        );
        for round in &mut sums {
            for (way, sum) in ways.iter().zip(round) {
                let (rate, cpu) = transfer(way, streams, up, megabytes * MIB).await;
                sheet.add(way.name, vec![rate, cpu]);
                sum.0 += rate / 4.0;
                sum.1 += cpu / 4.0;
            }
        }
        all.insert(shape.to_owned(), sheet.show());
    }
    for round in sums {
        for (way, (rate, cpu)) in ways.iter().zip(round) {
            mean.add(way.name, vec![rate, cpu]);
        }
    }
    all.insert("mean".to_owned(), mean.show());
    Value::Object(all)
}

/// The peer that the goals name, or the first tunnel where it is not there.
pub(crate) fn base(ways: &[Way]) -> &'static str {
    let named = ways.iter().find(|way| way.name == "rathole tls");
    named
        .or(ways.iter().find(|way| way.has_tunnel()))
        .map_or("direct", |way| way.name)
}

/// MiB/s, and processor seconds per GiB.
async fn transfer(way: &Way, streams: u64, up: bool, bytes: u64) -> (f64, f64) {
    let entry = way.entry().await;
    let each = bytes / streams;
    let (before, began) = (way.cpu(), Instant::now());
    together((0..streams).map(|_| one(entry.clone(), up, each))).await;
    let took = began.elapsed().as_secs_f64();
    let cpu = (way.cpu() - before) / (bytes as f64 / (1024 * MIB) as f64);
    let cpu = if way.has_tunnel() { cpu } else { f64::NAN };
    (bytes as f64 / MIB as f64 / took, cpu)
}

pub(crate) async fn one(entry: Entry, up: bool, bytes: u64) {
    let mut stream = entry.connect().await;
    if up {
        load::up(&mut stream, bytes).await;
    } else {
        load::down(&mut stream, bytes).await;
    }
}
