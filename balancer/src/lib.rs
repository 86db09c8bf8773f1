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
mod tcp;
mod tls;
mod tunnel;
mod upstream_conns;
mod wire;
pub mod worker;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::Cli;
use crate::control::handover::Descent;
use crate::settings::SETTINGS;

/// What the environment says.
pub struct Outside {
    pub ops: Option<SocketAddr>,
    pub drain_timeout: Option<Duration>,
    pub descent: Descent,
}

/// The whole program, from its command line to its exit status.
#[allow(clippy::print_stderr, reason = "-v and -V answer there, as nginx's do")]
pub fn run(cli: &Cli, environment: &dyn Fn(&str) -> Option<String>) -> ExitCode {
    if cli.version || cli.build {
        eprint!("{}", cli::version(cli.build));
        return ExitCode::SUCCESS;
    }
    let origin = cli.origin();
    if cli.test || cli.dump {
        return control::errands::test(&origin, cli.dump, cli.quiet);
    }
    if let Some(order) = cli.signal {
        return control::errands::send(&origin, order);
    }
    let outside = match Outside::read(environment) {
        Ok(outside) => outside,
        Err(what) => {
            control::complain("emerg", &what);
            return ExitCode::FAILURE;
        }
    };
    if cli.healthcheck {
        return control::errands::ask_health(&origin, &outside);
    }
    control::serve(origin, &outside)
}

impl Outside {
    fn read(environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let values = chassis::settings::read(SETTINGS, environment).map_err(|errors| errors.to_string())?;
        let ops = values
            .given("BALANCER_OPS_PORT")
            .then(|| SocketAddr::new(values.ip("BALANCER_OPS_ADDR"), values.port("BALANCER_OPS_PORT")));
        let drain = "BALANCER_DRAIN_TIMEOUT";
        let drain_timeout = values.given(drain).then(|| values.duration(drain));
        Ok(Self { ops, drain_timeout, descent: Descent::told_by(environment) })
    }
}
