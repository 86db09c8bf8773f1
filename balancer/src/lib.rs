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
mod tls;
mod tunnel;
mod upstream_conns;
mod wire;
pub mod worker;

use std::net::SocketAddr;
use std::process::ExitCode;

use chassis::settings::{Kind, Setting};

use crate::cli::Cli;

/// What is not nginx.conf's to say. `ops_listen` in the configuration says the same; these win.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "BALANCER_OPS_PORT",
        kind: Kind::Port,
        default: "",
        live: false,
        doc: "port of the balancer's /metrics, /health/live and /health/ready; unset: as `ops_listen` says",
    },
    Setting {
        name: "BALANCER_OPS_ADDR",
        kind: Kind::Text,
        default: "127.0.0.1",
        live: false,
        doc: "address of BALANCER_OPS_PORT",
    },
];

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
        Ok(ops) => control::serve(origin, ops),
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
    let address = values.text("BALANCER_OPS_ADDR");
    let ip = address.parse().map_err(|_| format!("BALANCER_OPS_ADDR: \"{address}\" is not an IP address"))?;
    Ok(Some(SocketAddr::new(ip, values.port("BALANCER_OPS_PORT"))))
}
