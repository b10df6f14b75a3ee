//! Runs one test again in a process of its own: limits, environment, signals and logging belong to a whole process.

use std::process::{Command, Stdio};

/// A command that runs the ignored test `name` of this binary; it sees what the caller sets.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--include-ignored", "--nocapture"])
        .stdout(Stdio::null());
    command
}
