//! `fairlead`: parses, runs, maps to an exit code.

use std::process::ExitCode;

use fairlead::command::Context;

fn main() -> ExitCode {
    fairlead::main(Context::of_process())
}
