//! The `balancer` binary: see the library's `run`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    balancer::run(&balancer::cli::Cli::parse(), &chassis::settings::environment())
}
