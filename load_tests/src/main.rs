//! `load_tests`: reads the command line and the environment, runs on one thread.

use clap::Parser;
use load_tests::args::Cli;
use std::process::ExitCode;
use tokio::task::LocalSet;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("load_tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let lookup = chassis::settings::environment();
    let level = lookup("LOG_LEVEL").unwrap_or_else(|| "warn".to_owned());
    chassis::logs::init("load_tests", chassis::logs::Format::Text, &level)?;
    // One thread: generator and stack share the machine, and what it takes is then easy to tell.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, load_tests::run(cli, &lookup))
}
