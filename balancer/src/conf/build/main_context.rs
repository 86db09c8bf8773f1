//! The main and events contexts.

use std::net::SocketAddr;
use std::time::Duration;

use super::error_logs::error_logs;
use super::{Scope, World, full_path, missing_section};
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::settings::{Events, Main, User};
use crate::conf::table::Context;
use crate::conf::value;

/// Where the process id goes when no `pid` says otherwise.
const PID_DEFAULT: &str = "logs/nginx.pid";

pub(super) fn main_settings(scope: &Scope<'_>, world: &dyn World) -> Result<Main> {
    // It would seem to change the times in logs.
    if let Some(node) = scope.own("env").find(|node| node.arg(0).starts_with("TZ=")) {
        return Err(node.error("\"TZ\" is taken from the balancer's own environment only"));
    }
    let alone = !scope.flag("master_process");
    let timeout = |node: &Node| value::millis(node.arg(0)).unwrap_or(Duration::ZERO);
    Ok(Main {
        worker_processes: if alone { 1 } else { worker_processes(scope, world)? },
        worker_rlimit_nofile: scope.given("worker_rlimit_nofile").and_then(|node| value::count(node.arg(0))),
        worker_priority: scope.given("worker_priority").map(priority).transpose()?,
        worker_shutdown_timeout: scope.given("worker_shutdown_timeout").map(timeout),
        pid: full_path(world, scope.given("pid").map_or(PID_DEFAULT, |node| node.arg(0))),
        error_logs: error_logs(scope, world)?,
        daemon: scope.flag("daemon"),
        user: scope.given("user").map(user),
        ops_listen: scope.given("ops_listen").map(ops_listen).transpose()?,
    })
}

fn worker_processes(scope: &Scope<'_>, world: &dyn World) -> Result<usize> {
    let Some(node) = scope.given("worker_processes") else { return Ok(1) };
    if node.arg(0) == "auto" {
        return Ok(world.cores().max(1));
    }
    match value::count(node.arg(0)) {
        Some(count @ 1..=1024) => Ok(count as usize),
        _ => Err(node.directive_error("invalid value")),
    }
}

fn priority(node: &Node) -> Result<i32> {
    node.arg(0).parse().map_err(|_| node.directive_error("invalid number"))
}

fn user(node: &Node) -> User {
    User { name: node.arg(0).into(), group: node.args.get(1).map(|word| word.text.clone()) }
}

fn ops_listen(node: &Node) -> Result<SocketAddr> {
    node.arg(0).parse().map_err(|_| node.error(format!("\"{}\" is not ADDRESS:PORT", node.arg(0))))
}

pub(super) fn events_settings(scope: &Scope<'_>) -> Result<Events> {
    let Some(node) = scope.own("events").next() else { return Err(missing_section("events")) };
    let scope = Scope::alone(node, Context::EVENTS);
    Ok(Events { worker_connections: scope.count("worker_connections") as usize })
}
