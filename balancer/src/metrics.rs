//! What is counted: connections, answers and times per upstream server and per zone, retries, reloads. Workers add to
//! plain atomics; text is made when a scraper asks.

mod counters;
mod render;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

pub use self::counters::{Answers, PeerMetrics, Told, ZoneMetrics};
use self::counters::{recall, remember};
use self::render::{Snapshot, is_known};
use crate::running::Running;

/// The counters of the process. They go on over reloads.
#[derive(Debug, Default)]
pub struct Metrics {
    pub connections_accepted: AtomicU64,
    /// The number of the last one: `$connection`.
    pub connection_serial: AtomicU64,
    pub connections_active: AtomicU64,
    /// Waiting for a request: nothing of one has come.
    pub connections_waiting: AtomicU64,
    /// Closed at once for want of `worker_connections`.
    pub connections_dropped: AtomicU64,
    /// Idle connections of clients that were closed for want of room.
    pub clients_shed: AtomicU64,
    /// The same of those to upstreams.
    pub upstreams_shed: AtomicU64,
    /// Requests that are being served.
    pub requests_active: AtomicU64,
    /// Requests answered, whoever made the answer.
    pub requests: AtomicU64,
    /// Requests sent on to another server after the first.
    pub retries: AtomicU64,
    pub reloads: AtomicU64,
    pub reloads_failed: AtomicU64,
    /// Workers that were started again after they had ended by themselves.
    pub respawned: AtomicU64,
    pub panics: AtomicU64,
    peers: Mutex<BTreeMap<PeerKey, Arc<PeerMetrics>>>,
    zones: Mutex<BTreeMap<ZoneKey, Arc<ZoneMetrics>>>,
}

/// What the connections of clients do, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    pub active: u64,
    pub reading: u64,
    pub writing: u64,
    pub waiting: u64,
}

impl Metrics {
    pub fn connections(&self) -> Connections {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (active, writing) = (load(&self.connections_active), load(&self.requests_active));
        let waiting = load(&self.connections_waiting);
        Connections { active, reading: active.saturating_sub(writing + waiting), writing, waiting }
    }
}

/// What was counted, for a process that takes our place.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    totals: Vec<(usize, u64)>,
    peers: Vec<(PeerKey, Vec<(usize, u64)>)>,
    zones: Vec<(ZoneKey, Vec<(usize, u64)>)>,
}

/// Group and address of an upstream server.
type PeerKey = (Box<str>, Box<str>);

type ZoneKey = (ZoneKind, Box<str>);

/// What a `status_zone` stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ZoneKind {
    Server,
    Location,
}

impl ZoneKind {
    pub fn name(self) -> &'static str {
        match self {
            ZoneKind::Server => "server",
            ZoneKind::Location => "location",
        }
    }
}

impl Metrics {
    /// The counters of a server: the same ones in every generation that has it. Not for the hot path: keep the value.
    pub fn peer(&self, group: &str, address: &str) -> Arc<PeerMetrics> {
        lock(&self.peers).entry((group.into(), address.into())).or_default().clone()
    }

    pub fn zone(&self, kind: ZoneKind, name: &str) -> Arc<ZoneMetrics> {
        lock(&self.zones).entry((kind, name.into())).or_default().clone()
    }

    /// All that only grows.
    fn totals(&self) -> impl Iterator<Item = &AtomicU64> {
        [
            &self.connections_accepted,
            &self.connections_dropped,
            &self.requests,
            &self.retries,
            &self.reloads,
            &self.reloads_failed,
            &self.respawned,
            &self.panics,
            &self.clients_shed,
            &self.upstreams_shed,
        ]
        .into_iter()
    }

    pub fn memory(&self) -> Memory {
        Memory {
            totals: remember(self.totals()),
            peers: self.peers().into_iter().map(|(key, peer)| (key, peer.memory())).collect(),
            zones: self.zones().into_iter().map(|(key, zone)| (key, zone.memory())).collect(),
        }
    }

    /// Goes on counting where another process was.
    pub fn recall(&self, memory: &Memory) {
        recall(self.totals(), &memory.totals);
        for ((group, address), counts) in &memory.peers {
            self.peer(group, address).recall(counts);
        }
        for ((kind, name), counts) in &memory.zones {
            self.zone(*kind, name).recall(counts);
        }
    }

    /// Counters of servers and zones that are gone would fill the scraper's disk for ever.
    pub fn forget_others(&self, running: &Running) {
        lock(&self.peers).retain(|key, _| is_known(key, running));
        let zones = &running.settings.http.zones;
        lock(&self.zones).retain(|key, _| zones.contains(key));
    }

    pub fn zones(&self) -> Vec<(ZoneKey, Arc<ZoneMetrics>)> {
        lock(&self.zones).iter().map(|(key, zone)| (key.clone(), zone.clone())).collect()
    }

    fn peers(&self) -> Vec<(PeerKey, Arc<PeerMetrics>)> {
        lock(&self.peers).iter().map(|(key, peer)| (key.clone(), peer.clone())).collect()
    }

    /// The text for a scraper.
    pub fn render(self: &Arc<Metrics>, running: &Arc<RwLock<Arc<Running>>>) -> String {
        let mut registry = Registry::with_prefix("balancer");
        let running = running.read().unwrap_or_else(PoisonError::into_inner).clone();
        registry.register_collector(Box::new(Snapshot { metrics: self.clone(), running }));
        chassis::metrics::render(&registry)
    }
}

/// A panic elsewhere leaves a map that is whole: each change is one call.
fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use super::*;

    #[test]
    fn counters_of_a_server_go_on_over_reloads() {
        let metrics = Metrics::default();
        let told = Told {
            status: Some(200),
            header: Some(Duration::from_millis(2)),
            total: Duration::from_millis(3),
            sent_len: 10,
            received_len: 20,
        };
        metrics.peer("web", "127.0.0.1:1").record(&told);
        let again = metrics.peer("web", "127.0.0.1:1");
        again.record(&Told { status: None, header: None, ..told });
        assert_eq!(again.answers.classes(), [1, 0, 1, 0, 0, 0]);
        assert_eq!(again.header_times[2].buckets()[2], 1);
        assert_eq!(again.response_times[0].sum(), Duration::from_millis(3));
        assert_eq!((again.requests.load(Relaxed), again.sent_len.load(Relaxed)), (2, 20));
        again.reset();
        assert_eq!(again.answers.classes(), [0; 6]);
    }
}
