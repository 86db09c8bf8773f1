//! Reads the command line and the environment; everything else is in the library.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = web::cli::Cli::parse();
    match web::cli::main(&cli, &chassis::settings::environment()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may not have begun yet; an operator reads standard error in any case.
            eprintln!("web: {error:#}");
            ExitCode::FAILURE
        }
    }
}
