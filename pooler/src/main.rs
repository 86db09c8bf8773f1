//! The pooler's process. Everything is in the library: see `cli::main` and `run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pooler::cli::main(pooler::run)
}
