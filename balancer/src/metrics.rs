//! What is counted: connections, answers and times per upstream server, retries, reloads. Workers add to plain
//! atomics; text is made when a scraper asks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::logic::health::Unusable;
use crate::running::Running;

/// Upper bounds in seconds: from an answer out of memory to one that a person gave up on.
const LATENCY_BOUNDS_S: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// The counters of the process. They go on over reloads.
#[derive(Debug, Default)]
pub struct Metrics {
    pub connections_accepted: AtomicU64,
    pub connections_active: AtomicU64,
    /// Requests answered, whoever made the answer.
    pub requests: AtomicU64,
    /// Requests sent on to another server after the first.
    pub retries: AtomicU64,
    pub reloads: AtomicU64,
    pub reloads_failed: AtomicU64,
    peers: Mutex<BTreeMap<PeerKey, Arc<PeerMetrics>>>,
}

/// Group and address of an upstream server.
type PeerKey = (Box<str>, Box<str>);

/// The counters of one upstream server.
#[derive(Debug, Default)]
pub struct PeerMetrics {
    /// By first digit of the status; 0 is no answer at all.
    answers: [AtomicU64; 6],
    times: [AtomicU64; LATENCY_BOUNDS_S.len() + 1],
    times_us_sum: AtomicU64,
    /// Failures that took the server out of the rotation.
    pub ejections: AtomicU64,
}

impl PeerMetrics {
    /// An attempt is over: its status, if there was an answer, and how long it took.
    pub fn record(&self, status: Option<u16>, took: Duration) {
        let class = status.map_or(0, |status| usize::from(status / 100)).min(5);
        self.answers[class].fetch_add(1, Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BOUNDS_S.partition_point(|bound| *bound < seconds);
        self.times[bucket].fetch_add(1, Relaxed);
        self.times_us_sum.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Metrics {
    /// The counters of a server: the same ones in every generation that has it. Not for the hot path: keep the value.
    pub fn peer(&self, group: &str, address: &str) -> Arc<PeerMetrics> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.entry((group.into(), address.into())).or_default().clone()
    }

    /// Counters of servers that are gone would fill the scraper's disk for ever.
    pub fn forget_others(&self, running: &Running) {
        let groups = running.upstreams.groups();
        let known = |(group, address): &PeerKey| {
            let group = groups.iter().find(|known| known.name() == &**group);
            group.is_some_and(|group| group.peers().iter().any(|peer| peer.name == *address))
        };
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| known(key));
    }

    /// The text for a scraper.
    pub fn render(self: &Arc<Metrics>, running: &Arc<RwLock<Arc<Running>>>) -> String {
        let mut registry = Registry::with_prefix("balancer");
        let running = running.read().unwrap_or_else(PoisonError::into_inner).clone();
        registry.register_collector(Box::new(Snapshot { metrics: self.clone(), running }));
        chassis::metrics::render(&registry)
    }
}

#[derive(Debug)]
struct Snapshot {
    metrics: Arc<Metrics>,
    running: Arc<Running>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let metrics = &self.metrics;
        let counters = [
            ("connections_accepted", "Connections of clients accepted", &metrics.connections_accepted),
            ("requests", "Requests answered", &metrics.requests),
            ("retries", "Requests sent on to another upstream server", &metrics.retries),
            ("reloads", "Configurations taken over", &metrics.reloads),
            ("reloads_failed", "Configurations refused", &metrics.reloads_failed),
        ];
        for (name, help, value) in counters {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&value.load(Relaxed), None)?;
        }
        let mut active = encoder.encode_descriptor(
            "connections_active",
            "Connections of clients open",
            None,
            MetricType::Gauge,
        )?;
        active.encode_gauge(&gauge(metrics.connections_active.load(Relaxed)))?;
        self.encode_answers(&mut encoder)?;
        self.encode_times(&mut encoder)?;
        self.encode_states(&mut encoder)
    }
}

impl Snapshot {
    fn peers(&self) -> Vec<(PeerKey, Arc<PeerMetrics>)> {
        let peers = self.metrics.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().map(|(key, peer)| (key.clone(), peer.clone())).collect()
    }

    fn encode_answers(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Attempts at an upstream server by class of the answer's status";
        let mut family = encoder.encode_descriptor("upstream_responses", help, None, MetricType::Counter)?;
        for ((group, server), peer) in self.peers() {
            for (class, count) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(&peer.answers) {
                let labels = [("upstream", &*group), ("server", &*server), ("status", class)];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&count.load(Relaxed), None)?;
            }
        }
        let help = "Failures that took an upstream server out of the rotation";
        let mut family = encoder.encode_descriptor("upstream_ejections", help, None, MetricType::Counter)?;
        for ((group, server), peer) in self.peers() {
            let labels = [("upstream", &*group), ("server", &*server)];
            let count = peer.ejections.load(Relaxed);
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn encode_times(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Time of attempts at an upstream server in seconds, from the pick to the answer's end";
        let mut family =
            encoder.encode_descriptor("upstream_response_seconds", help, None, MetricType::Histogram)?;
        for ((group, server), peer) in self.peers() {
            let labels = [("upstream", &*group), ("server", &*server)];
            let bounds = LATENCY_BOUNDS_S.into_iter().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> =
                bounds.zip(peer.times.iter().map(|count| count.load(Relaxed))).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let sum_s = Duration::from_micros(peer.times_us_sum.load(Relaxed)).as_secs_f64();
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(sum_s, count, &buckets, None)?;
        }
        Ok(())
    }

    fn encode_states(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let now = self.running.started.elapsed();
        type Read = fn(&crate::logic::health::Peer, Duration) -> u64;
        let gauges: [(&str, &str, Read); 3] = [
            ("upstream_up", "1 while the server takes part in the rotation", |peer, now| {
                u64::from(!matches!(peer.unusable(now), Some(Unusable::Down | Unusable::Failed)))
            }),
            ("upstream_in_flight", "Requests in flight at the server", |peer, _| peer.conns.into()),
            ("upstream_fails", "Failures counted in the present window", |peer, _| peer.fails().into()),
        ];
        for (name, help, read) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for group in self.running.upstreams.groups() {
                let values: Vec<u64> =
                    group.with_peers(|peers| peers.iter().map(|peer| read(peer, now)).collect());
                for (peer, value) in group.peers().iter().zip(values) {
                    let labels = [("upstream", group.name()), ("server", &*peer.name)];
                    encode_one(&mut family, &labels, value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_one(family: &mut MetricEncoder<'_>, labels: &[(&str, &str); 2], value: u64) -> fmt::Result {
    family.encode_family(labels)?.encode_gauge(&gauge(value))
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_a_server_go_on_over_reloads() {
        let metrics = Metrics::default();
        metrics.peer("web", "127.0.0.1:1").record(Some(200), Duration::from_millis(3));
        let again = metrics.peer("web", "127.0.0.1:1");
        again.record(None, Duration::from_secs(100));
        assert_eq!(again.answers[2].load(Relaxed), 1);
        assert_eq!(again.answers[0].load(Relaxed), 1);
        assert_eq!(again.times[3].load(Relaxed), 1, "3 ms is within 5 ms");
        assert_eq!(again.times[LATENCY_BOUNDS_S.len()].load(Relaxed), 1);
    }
}
