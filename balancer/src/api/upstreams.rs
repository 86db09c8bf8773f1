//! `/http/upstreams`: groups, their servers, their state.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::zones::responses;
use super::{timestamp, wall};
use crate::conf::upstream::{Duty, Peer, Tier};
use crate::logic::changes::Refusal;
use crate::logic::health::{Peer as LivePeer, Unusable};
use crate::logic::upstreams::Group;
use crate::running::Running;

/// Every group that has a zone, by name.
pub fn all(running: &Running) -> Value {
    let groups = running.upstreams.groups().iter().filter(|group| group.upstream().zone.is_some());
    Value::Object(groups.map(|group| (group.name().to_owned(), one(group, running))).collect())
}

pub fn one(group: &Group, running: &Running) -> Value {
    let live = group.with_peers(<[LivePeer]>::to_vec);
    let peers: Vec<Value> = group
        .peers()
        .iter()
        .zip(&live)
        .map(|(peer, live)| server_state(group, peer, live, running))
        .collect();
    let mut object = json!({
        "peers": peers,
        "keepalive": group.upstream().keepalive.idle_max,
        "zombies": 0,
        "zone": group.upstream().zone,
    });
    if let Some(terms) = group.upstream().queue {
        let queue = group.queue();
        object["queue"] =
            json!({ "size": queue.len, "max_size": terms.len_max, "overflows": queue.overflows });
    }
    object
}

fn server_state(group: &Group, peer: &Peer, live: &LivePeer, running: &Running) -> Value {
    let now = running.started.elapsed();
    let counters = running.metrics.peer(group.name(), &peer.name);
    let mut object = json!({
        "id": live.id,
        "server": peer.name,
        "name": peer.terms.server,
        "backup": peer.terms.tier == Tier::Backup,
        "weight": peer.terms.weight,
        "state": state(live, now),
        "active": live.conns,
        "requests": counters.requests.load(Relaxed),
        "responses": responses(&counters.answers),
        "sent": counters.sent_len.load(Relaxed),
        "received": counters.received_len.load(Relaxed),
        "fails": live.history.fails,
        "unavail": live.history.unavailable,
        "health_checks": health_checks(live),
        "downtime": live.history.downtime(now).as_millis() as u64,
    });
    let fields = object.as_object_mut();
    let Some(fields) = fields else { return object };
    if peer.terms.max_conns > 0 {
        fields.insert("max_conns".into(), json!(peer.terms.max_conns));
    }
    let moment = |since: Option<Duration>| since.map(|since| json!(timestamp(wall(running, since))));
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.into(), value);
        }
    };
    put("header_time", Some(live.times.header_ms).filter(|ms| *ms > 0).map(|ms| json!(ms)));
    put("response_time", Some(live.times.response_ms).filter(|ms| *ms > 0).map(|ms| json!(ms)));
    put("downstart", moment(live.history.down_since));
    put("selected", moment(live.history.selected));
    object
}

fn health_checks(live: &LivePeer) -> Value {
    let checks = &live.checks;
    let mut object = Map::new();
    object.insert("checks".into(), json!(checks.checks));
    object.insert("fails".into(), json!(checks.fails));
    object.insert("unhealthy".into(), json!(checks.unhealthy));
    if let Some(passed) = checks.last_passed {
        object.insert("last_passed".into(), json!(passed));
    }
    Value::Object(object)
}

fn state(live: &LivePeer, now: Duration) -> &'static str {
    match live.unusable(now) {
        None | Some(Unusable::Full) => "up",
        Some(Unusable::Down) => "down",
        Some(Unusable::Draining) => "draining",
        Some(Unusable::Failed) => "unavail",
        Some(Unusable::Checking) => "checking",
        Some(Unusable::Unhealthy) => "unhealthy",
    }
}

/// What can be configured of each server.
pub fn all_servers(group: &Group) -> Value {
    group.with_peers(|live| {
        group.peers().iter().zip(live).map(|(peer, live)| server(peer, live)).collect::<Vec<Value>>().into()
    })
}

pub fn one_server(group: &Group, id: u32) -> Result<Value, Refusal> {
    group.with_peers(|live| {
        let found = group.peers().iter().zip(live).find(|(_, live)| live.id == id);
        found.map(|(peer, live)| server(peer, live)).ok_or(Refusal::ServerNotFound(id))
    })
}

/// The server that was added last, and its id.
pub fn new_server(group: &Group) -> Option<(u32, Value)> {
    group.with_peers(|live| {
        let newest = group.peers().iter().zip(live).max_by_key(|(_, live)| live.id);
        newest.map(|(peer, live)| (live.id, server(peer, live)))
    })
}

fn server(peer: &Peer, live: &LivePeer) -> Value {
    let terms = &peer.terms;
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let mut object = json!({
        "id": live.id,
        "server": peer.name,
        "weight": terms.weight,
        "max_conns": terms.max_conns,
        "max_fails": terms.max_fails,
        "fail_timeout": seconds(terms.fail_timeout),
        "slow_start": seconds(terms.slow_start),
        "route": terms.sid.route(),
        "backup": terms.tier == Tier::Backup,
        "down": terms.duty == Duty::Down,
    });
    if terms.duty == Duty::Drain {
        object["drain"] = json!(true);
    }
    object
}
