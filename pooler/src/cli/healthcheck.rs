//! `--healthcheck`: asks the pooler of this configuration whether it is ready, for containers without other programs.

use std::net::ToSocketAddrs;
use std::process::ExitCode;

use anyhow::Context;

use crate::settings::Settings;

/// Success when `/health/ready` answers 200.
pub fn ask(settings: &Settings) -> anyhow::Result<ExitCode> {
    let port = settings.metrics_listen_port;
    anyhow::ensure!(port != 0, "metrics_listen_port is 0: there is nobody to ask");
    let host = match settings.metrics_listen_addr.as_str() {
        "*" | "" => "0.0.0.0",
        host => host,
    };
    let listens = (host, port).to_socket_addrs()?.next().context("metrics_listen_addr has no address")?;
    chassis::health::ask(listens, "/health/ready")?;
    println!("ready");
    Ok(ExitCode::SUCCESS)
}
