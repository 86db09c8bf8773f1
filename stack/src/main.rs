//! The `stack` program: reads the command line and hands over to the library.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match try_main() {
        Ok(code) => code,
        Err(cause) => {
            eprintln!("stack: {cause:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main() -> anyhow::Result<ExitCode> {
    let cli = stack::cli::Cli::parse();
    let environment = chassis::settings::environment();
    let around = stack::Surroundings {
        environment: &environment,
        program: std::env::current_exe()?,
        folder: std::env::current_dir()?,
    };
    // One thread: children are few, and what it waits for is other processes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, stack::run(cli, around))
}
