//! The TCP ports that a stack will listen on, and which two of its parts want alike.

use std::collections::BTreeMap;

use super::addresses::{Place, Route, Standby};
use super::plan::{port_of, replica_name};
use crate::settings::{Ports, Settings};

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

/// Ports that nothing can listen on.
pub fn impossible(ports: Ports, replicas: u32) -> Vec<String> {
    let ranges = [("WEB_PORT_BASE", ports.web_base), ("WEB_OPS_PORT_BASE", ports.web_ops_base)];
    let single = [
        ("HTTP_PORT", ports.http),
        ("BALANCER_OPS_PORT", ports.balancer_ops),
        ("DB_PORT", ports.pooler),
        ("POOLER_METRICS_PORT", ports.pooler_metrics),
        ("STACK_POSTGRES_PORT", ports.postgres),
        ("STACK_STANDBY_PORT", ports.standby),
        ("STACK_REDIS_PORT", ports.redis),
    ];
    let zero = |(name, port): &(&str, u16)| (*port == 0).then(|| format!("{name}: 0 is no port"));
    let mut found: Vec<String> = ranges.iter().chain(&single).filter_map(zero).collect();
    let too_high = |(name, base): &(&str, u16)| {
        let last = u64::from(*base) + u64::from(replicas.max(1)) - 1;
        (last > u64::from(u16::MAX))
            .then(|| format!("{name}: from {base} on there are not {replicas} ports, the last one is 65535"))
    };
    found.extend(ranges.iter().filter_map(too_high));
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
