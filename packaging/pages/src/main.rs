//! What packages hold beside the programs, made from the programs' own words: manual pages, completions, JSON schemas,
//! and the notices of everything that is linked in.
//!
//! A program of its own, so that what ships carries none of it. `packaging/build` runs it on the build machine.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

mod notices;
mod pages;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Makes what packages hold beside the programs.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Manual pages, completions and JSON schemas of all three programs.
    Pages {
        /// The folder to fill.
        out: PathBuf,
    },
    /// The licences of all crates that a program is linked with.
    Notices {
        /// The program's package.
        #[arg(long)]
        package: String,
        /// The platform, as Rust names it.
        #[arg(long)]
        target: String,
        /// The file to write.
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().act {
        Act::Pages { out } => pages::write(&out),
        Act::Notices { package, target, out } => notices::write(&package, &target, &out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("fairlead-pages: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is the program's voice on the terminal")]
fn say(text: &str) {
    eprintln!("{text}");
}
