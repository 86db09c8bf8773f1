//! Everything but upstreams: the process, its connections and requests, the zones.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::{Fault, timestamp};
use crate::cli::NGINX_VERSION;
use crate::logic::resolver::Counts;
use crate::metrics::{Answers, ZoneKind, ZoneMetrics};
use crate::running::Running;

pub fn nginx(running: &Running) -> Value {
    json!({
        "version": NGINX_VERSION,
        "build": concat!("balancer-", env!("CARGO_PKG_VERSION")),
        "generation": running.era.0,
        "load_timestamp": timestamp(running.era.1),
        "timestamp": timestamp(SystemTime::now()),
        "pid": std::process::id(),
        "ppid": nix::unistd::getppid().as_raw(),
    })
}

pub fn processes(running: &Running) -> Value {
    json!({ "respawned": running.metrics.respawned.load(Relaxed) })
}

/// Idle are those that have no request under way.
pub fn connections(running: &Running) -> Value {
    let metrics = &running.metrics;
    let open = metrics.connections_active.load(Relaxed);
    let busy = metrics.requests_active.load(Relaxed).min(open);
    json!({
        "accepted": metrics.connections_accepted.load(Relaxed),
        "dropped": metrics.connections_dropped.load(Relaxed),
        "active": busy,
        "idle": open - busy,
    })
}

/// Our workers are threads of one process: they share its counters.
pub fn workers(running: &Running) -> Value {
    let workers = 0..running.settings.main.worker_processes;
    workers.map(|id| json!({ "id": id, "pid": std::process::id() })).collect::<Vec<Value>>().into()
}

pub fn requests(running: &Running) -> Value {
    let metrics = &running.metrics;
    json!({ "total": metrics.requests.load(Relaxed), "current": metrics.requests_active.load(Relaxed) })
}

/// The `status_zone` of one `resolver`, or all of them by name.
pub fn resolvers(running: &Running, path: &[&str]) -> Result<Value, Fault> {
    let named = running.resolvers.iter().filter_map(|resolver| {
        let name = resolver.terms().status_zone.as_deref()?;
        Some((name.to_owned(), resolver_state(resolver.counts())))
    });
    let mut all: Map<String, Value> = named.collect();
    match path {
        [] => Ok(Value::Object(all)),
        [name] => all.remove(*name).ok_or(Fault::ResolverZoneNotFound),
        _ => Err(Fault::PathNotFound),
    }
}

fn resolver_state(counts: Counts) -> Value {
    let [unknown, formerr, servfail, nxdomain, notimp, refused] = counts.failed;
    json!({
        "requests": { "name": counts.names, "srv": counts.services, "addr": 0 },
        "responses": {
            "noerror": counts.found,
            "formerr": formerr,
            "servfail": servfail,
            "nxdomain": nxdomain,
            "notimp": notimp,
            "refused": refused,
            "timedout": counts.timed_out,
            "unknown": unknown,
        },
    })
}

fn kind_of(name: &str) -> ZoneKind {
    if name == "server_zones" { ZoneKind::Server } else { ZoneKind::Location }
}

pub fn find(running: &Running, kind: &str, name: &str) -> Result<Arc<ZoneMetrics>, Fault> {
    let mut zones = running.metrics.zones().into_iter();
    let found = zones.find(|((known, zone), _)| *known == kind_of(kind) && **zone == *name);
    found.map(|(_, zone)| zone).ok_or(Fault::ZoneNotFound)
}

/// One zone, or all of a kind by name.
pub fn zones(running: &Running, kind: &str, path: &[&str]) -> Result<Value, Fault> {
    match path {
        [] => {
            let zones = running.metrics.zones().into_iter().filter(|((known, _), _)| *known == kind_of(kind));
            let zones = zones.map(|((kind, name), zone)| (name.to_string(), state(kind, &zone)));
            Ok(Value::Object(zones.collect()))
        }
        [name] => Ok(state(kind_of(kind), &*find(running, kind, name)?)),
        _ => Err(Fault::PathNotFound),
    }
}

fn state(kind: ZoneKind, zone: &ZoneMetrics) -> Value {
    let mut object = json!({
        "requests": zone.requests.load(Relaxed),
        "responses": responses(&zone.answers),
        "discarded": zone.discarded.load(Relaxed),
        "received": zone.received_len.load(Relaxed),
        "sent": zone.sent_len.load(Relaxed),
    });
    if kind == ZoneKind::Server {
        object["processing"] = json!(zone.processing.load(Relaxed));
    }
    object
}

pub fn responses(answers: &Answers) -> Value {
    let mut object = Map::new();
    let classes = answers.classes();
    for (digit, count) in classes.iter().enumerate().skip(1) {
        object.insert(format!("{digit}xx"), json!(count));
    }
    let codes = answers.codes().into_iter().map(|(code, count)| (code.to_string(), json!(count)));
    object.insert("codes".into(), Value::Object(codes.collect()));
    object.insert("total".into(), json!(answers.total()));
    Value::Object(object)
}
