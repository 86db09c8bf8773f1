//! HTTP reverse proxy and load balancer that reads nginx.conf. `main` parses the command line; everything else is here.

pub mod access_log;
mod api;
mod arrival;
mod buffer;
mod burst;
pub mod cli;
mod clock;
pub mod conf;
pub mod control;
mod deadline;
mod downstream;
mod entrance;
mod error;
pub mod error_log;
mod facts;
mod headers;
mod http2;
mod limits;
mod listeners;
pub mod logic;
pub mod metrics;
mod names;
pub mod panics;
mod pool;
mod prober;
mod relay;
pub mod running;
pub mod settings;
mod tls;
mod tunnel;
mod upstream_conns;
mod wire;
pub mod worker;

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::cli::Cli;
use crate::control::handover::Descent;
use crate::settings::SETTINGS;

/// The whole program, from its command line to its exit status.
#[allow(clippy::print_stderr, reason = "-v and -V answer there, as nginx's do")]
pub fn run(cli: &Cli, environment: &dyn Fn(&str) -> Option<String>) -> ExitCode {
    if cli.version || cli.build {
        eprint!("{}", cli::version(cli.build));
        return ExitCode::SUCCESS;
    }
    let origin = cli.origin();
    if cli.test || cli.dump {
        return control::test(&origin, cli.dump, cli.quiet);
    }
    if let Some(order) = cli.signal {
        return control::send(&origin, order);
    }
    match ops_address(environment) {
        Ok(ops) => control::serve(origin, ops, Descent::told_by(environment)),
        Err(what) => {
            control::complain("emerg", &what);
            ExitCode::FAILURE
        }
    }
}

fn ops_address(environment: &dyn Fn(&str) -> Option<String>) -> Result<Option<SocketAddr>, String> {
    let values = chassis::settings::read(SETTINGS, environment).map_err(|errors| errors.to_string())?;
    if !values.given("BALANCER_OPS_PORT") {
        return Ok(None);
    }
    Ok(Some(SocketAddr::new(values.ip("BALANCER_OPS_ADDR"), values.port("BALANCER_OPS_PORT"))))
}
