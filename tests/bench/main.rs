//! `tests/bench/run`: Fairlead beside what people would use in its place, in one run, on this machine.
//!
//! One measurement per line of [`MEASUREMENTS`], one file each. A measurement takes its [ways] in turns, so that what else the
//! machine does falls on all of them alike. It prints a table with ratios, and everything as JSON to `--json FILE`; it fails
//! when something did not work, never because of a figure. `--plots FOLDER` draws what the JSON of earlier runs says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program for people at a terminal"
)]

mod agents;
mod bulk;
mod connects;
mod cost;
mod crowd;
mod echo;
mod footprint;
mod keystroke;
mod limits;
mod load;
mod loss;
mod memory;
mod mqtt;
mod plot;
mod postgres;
mod soak;
mod stats;
mod ways;

use std::path::PathBuf;
use std::pin::Pin;

use clap::Parser;
use serde_json::{Map, Value, json};

pub(crate) use stats::median;

/// Side by side figures of this machine.
#[derive(Debug, Parser)]
#[command(name = "tests/bench/run")]
struct Arguments {
    /// Only these measurements; may be given again. Without it, all but the slow ones (limits, soak).
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',', value_parser = MEASUREMENTS.map(|(name, ..)| name))]
    only: Vec<String>,
    /// Only these ways, and direct; may be given again.
    #[arg(long, value_name = "WAY[,WAY]", value_delimiter = ',')]
    ways: Vec<String>,
    /// A look at whether everything works: one round, a second or two each.
    #[arg(long)]
    quick: bool,
    /// How long each way is measured each time, in seconds; 10 for postgres and 4 for others unless given.
    #[arg(long)]
    seconds: Option<u32>,
    /// How many times each way has its turn; the figure is the median.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where the figures go as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the plots of docs/benchmarks.md from JSON files of earlier runs, and measure nothing.
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
    /// With --plots: the files.
    #[arg(value_name = "JSON")]
    files: Vec<PathBuf>,
    /// What a process is that this program started itself: a crowd of agents.
    #[arg(long, hide = true, num_args = 5)]
    crowd: Vec<String>,
    /// What a process is that this program started itself: one side of the relay alone.
    #[arg(long, hide = true, num_args = 3)]
    bare: Vec<String>,
    /// Set inside a network namespace of its own.
    #[arg(long, hide = true)]
    inside: bool,
}

/// How long, how often, and which.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    pub(crate) seconds: Option<u32>,
    pub(crate) rounds: u32,
    pub(crate) quick: bool,
    pub(crate) ways: Vec<String>,
    pub(crate) inside: bool,
}

impl Effort {
    /// How long a turn takes, where nothing else was asked for.
    pub(crate) fn seconds_or(&self, usual: u32) -> u32 {
        self.seconds.unwrap_or(if self.quick { 1 } else { usual })
    }
}

type Measurement = fn(Effort) -> Pin<Box<dyn Future<Output = Value>>>;

/// Name, whether it is slow, and how it is done.
const MEASUREMENTS: [(&str, bool, Measurement); 12] = [
    ("bulk", false, |effort| Box::pin(bulk::measure(effort))),
    ("echo", false, |effort| Box::pin(echo::measure(effort))),
    ("connects", false, |effort| Box::pin(connects::measure(effort))),
    ("memory", false, |effort| Box::pin(memory::measure(effort))),
    ("keystroke", false, |effort| Box::pin(keystroke::measure(effort))),
    ("agents", false, |effort| Box::pin(agents::measure(effort))),
    ("footprint", false, |effort| Box::pin(footprint::measure(effort))),
    ("loss", false, |effort| Box::pin(loss::measure(effort))),
    ("postgres", false, |effort| Box::pin(postgres::measure(effort))),
    ("mqtt", false, |effort| Box::pin(mqtt::measure(effort))),
    ("limits", true, |effort| Box::pin(limits::measure(effort))),
    ("soak", true, |effort| Box::pin(soak::measure(effort))),
];

#[tokio::main]
async fn main() {
    let asked = Arguments::parse();
    fairlead_runtime::process::raise_file_limit().expect("the limit of open files is raised");
    if let Some(folder) = asked.plots {
        return plot::draw(&folder, &asked.files);
    }
    if !asked.crowd.is_empty() {
        return crowd::run(&asked.crowd).await;
    }
    if !asked.bare.is_empty() {
        return ways::bare::run(&asked.bare).await;
    }
    let effort = Effort {
        seconds: asked.seconds,
        rounds: if asked.quick { 1 } else { asked.rounds },
        quick: asked.quick,
        ways: asked.ways,
        inside: asked.inside,
    };
    let mut all = Map::new();
    for (name, is_slow, measure) in MEASUREMENTS {
        let is_asked_for = asked.only.iter().any(|only| only == name);
        if is_asked_for || (asked.only.is_empty() && !is_slow) {
            all.insert(name.to_owned(), measure(effort.clone()).await);
        }
    }
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let figures = json!({
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "cpus": cpus,
        "seconds": effort.seconds,
        "rounds": effort.rounds,
        "measurements": all,
    });
    if let Some(file) = asked.json {
        std::fs::write(&file, format!("{figures:#}\n")).expect("the figures are written");
    }
}
