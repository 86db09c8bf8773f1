//! The TCP ports that a stack will listen on, and which two of its parts want alike.

use std::collections::BTreeMap;

use super::addresses::{Place, Route, Standby};
use super::plan::{port_of, replica_name};
use crate::settings::Settings;

/// One TCP port of the stack and the setting that moves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    pub port: u16,
    pub part: String,
    pub setting: &'static str,
}

/// Every port that the stack will listen on with this many replicas.
pub fn listening(settings: &Settings, replicas: u32) -> Vec<Listening> {
    let (ports, topology) = (settings.ports, &settings.topology);
    let mut found = Vec::new();
    let mut add = |port, part: &str, setting| found.push(Listening { port, part: part.to_owned(), setting });
    add(ports.http, "balancer", "HTTP_PORT");
    add(ports.balancer_ops, "balancer", "BALANCER_OPS_PORT");
    if topology.route == Route::Pooled {
        add(ports.pooler, "pooler", "DB_PORT");
        add(ports.pooler_metrics, "pooler", "POOLER_METRICS_PORT");
    }
    if topology.primary == Place::Ours {
        add(ports.postgres, "postgres", "STACK_POSTGRES_PORT");
    }
    if topology.standby == Standby::Ours {
        add(ports.standby, "standby", "STACK_STANDBY_PORT");
    }
    if topology.redis == Place::Ours {
        add(ports.redis, "redis", "STACK_REDIS_PORT");
    }
    for number in 1..=replicas {
        add(port_of(ports.web_base, number), &replica_name(number), "WEB_PORT_BASE");
        add(port_of(ports.web_ops_base, number), &replica_name(number), "WEB_OPS_PORT_BASE");
    }
    found
}

/// Ports that two parts want, before anything is started.
pub fn clashes(listening: &[Listening]) -> Vec<String> {
    let mut by_port: BTreeMap<u16, &Listening> = BTreeMap::new();
    let mut found = Vec::new();
    for one in listening {
        if let Some(other) = by_port.insert(one.port, one) {
            found.push(format!(
                "port {} is wanted by {} and {}: change {} or {}",
                one.port, other.part, one.part, other.setting, one.setting
            ));
        }
    }
    found
}
