//! `--healthcheck`: asks the pooler of this configuration whether it is ready, for containers without other programs.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::settings::Settings;

/// A pooler that needs longer than this is not well.
const PATIENCE: Duration = Duration::from_secs(2);

/// Success when `/health/ready` answers 200.
pub fn ask(settings: &Settings) -> anyhow::Result<ExitCode> {
    let port = settings.metrics_listen_port;
    anyhow::ensure!(port != 0, "metrics_listen_port is 0: there is nobody to ask");
    let host = match settings.metrics_listen_addr.as_str() {
        "*" | "0.0.0.0" | "" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let address = (host, port).to_socket_addrs()?.next().context("metrics_listen_addr has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("could not connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: pooler\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).context("no answer")?;
    if &head[9..] == b"200" {
        println!("ready");
        return Ok(ExitCode::SUCCESS);
    }
    println!("not ready: {}", String::from_utf8_lossy(&head));
    Ok(ExitCode::FAILURE)
}
