//! `tests/bench/run`: Fairlead beside what people would use in its place, in one run, on this machine.
//!
//! One measurement per line of [`MEASUREMENTS`], one file each. A measurement takes its ways in turns, so that what else the
//! machine does falls on all of them alike. It prints a table with ratios, and everything as JSON to `--json FILE`; it fails
//! when something did not work, never because of a figure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program for people at a terminal"
)]

mod mqtt;
mod postgres;

use std::path::PathBuf;
use std::pin::Pin;

use clap::Parser;
use serde_json::{Map, Value, json};

/// Side by side figures of this machine.
#[derive(Debug, Parser)]
#[command(name = "tests/bench/run")]
struct Arguments {
    /// Only this measurement; may be given again.
    #[arg(long, value_name = "NAME", value_parser = MEASUREMENTS.map(|(name, _)| name))]
    only: Vec<String>,
    /// How long each way is measured each time, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// How many times each way has its turn; the figure is the median.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where the figures go as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How long, and how often.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) seconds: u32,
    pub(crate) rounds: u32,
}

type Measurement = fn(Effort) -> Pin<Box<dyn Future<Output = Value>>>;

const MEASUREMENTS: [(&str, Measurement); 2] = [
    ("postgres", |effort| Box::pin(postgres::measure(effort))),
    ("mqtt", |effort| Box::pin(mqtt::measure(effort))),
];

#[tokio::main]
async fn main() {
    let asked = Arguments::parse();
    let effort = Effort {
        seconds: asked.seconds,
        rounds: asked.rounds,
    };
    let mut all = Map::new();
    for (name, measure) in MEASUREMENTS {
        if asked.only.is_empty() || asked.only.iter().any(|only| only == name) {
            all.insert(name.to_owned(), measure(effort).await);
        }
    }
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let figures = json!({
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "cpus": cpus,
        "seconds": asked.seconds,
        "rounds": asked.rounds,
        "measurements": all,
    });
    if let Some(file) = asked.json {
        std::fs::write(&file, format!("{figures:#}\n")).expect("the figures are written");
    }
}

/// The middle of them; of an even number, the lower one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
