//! The text for a scraper. Names are documented in docs/balancer.md: a test keeps both equal.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::counters::{Histogram, LATENCY_BOUNDS_S, PeerMetrics, ZoneMetrics};
use super::{Metrics, PeerKey};
use crate::logic::health::{Peer, Unusable};
use crate::logic::upstreams::Group;
use crate::running::Running;

/// What is counted, read at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub metrics: Arc<Metrics>,
    pub running: Arc<Running>,
}

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.encode_totals(&mut encoder)?;
        self.encode_zones(&mut encoder)?;
        self.encode_peers(&mut encoder)?;
        let header = "Time in seconds from the pick of an upstream server to the head of its answer";
        self.encode_times(&mut encoder, "upstream_header_seconds", header, |peer| &peer.header_times)?;
        let whole = "Time in seconds from the pick of an upstream server to the end of its answer";
        self.encode_times(&mut encoder, "upstream_response_seconds", whole, |peer| &peer.response_times)?;
        self.encode_states(&mut encoder)?;
        self.encode_queues(&mut encoder)
    }
}

impl Snapshot {
    fn encode_totals(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let metrics = &self.metrics;
        let counters = [
            ("connections_accepted", "Connections of clients accepted", &metrics.connections_accepted),
            (
                "connections_dropped",
                "Connections closed at once for want of room",
                &metrics.connections_dropped,
            ),
            ("requests", "Requests answered", &metrics.requests),
            ("retries", "Requests sent on to another upstream server", &metrics.retries),
            ("reloads", "Configurations taken over", &metrics.reloads),
            ("reloads_failed", "Configurations refused", &metrics.reloads_failed),
            (
                "workers_respawned",
                "Workers that ended by themselves and were started again",
                &metrics.respawned,
            ),
            (
                "panics",
                "Panics: each ended a request, a connection or a worker; the error log says where",
                &metrics.panics,
            ),
        ];
        for (name, help, value) in counters {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&value.load(Relaxed), None)?;
        }
        let help = "Idle connections closed for want of room";
        let mut shed = encoder.encode_descriptor("connections_shed", help, None, MetricType::Counter)?;
        for (side, value) in [("client", &metrics.clients_shed), ("upstream", &metrics.upstreams_shed)] {
            let count = value.load(Relaxed);
            shed.encode_family(&[("side", side)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let help = "Connections of clients open";
        let mut active = encoder.encode_descriptor("connections_active", help, None, MetricType::Gauge)?;
        active.encode_gauge(&gauge(metrics.connections_active.load(Relaxed)))
    }

    fn encode_zones(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help =
            "Answers to requests of a status_zone by class of the status; none: closed without an answer";
        let mut family = encoder.encode_descriptor("zone_responses", help, None, MetricType::Counter)?;
        for ((kind, zone), counters) in self.metrics.zones() {
            let mut classes = counters.answers.classes();
            classes[0] += counters.discarded.load(Relaxed);
            for (class, count) in CLASSES.into_iter().zip(classes) {
                let labels = [("kind", kind.name()), ("zone", &*zone), ("status", class)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        type Read = fn(&ZoneMetrics) -> u64;
        let bytes: [(&str, &str, Read); 2] = [
            ("zone_received_bytes", "Bytes that came from clients", |zone| zone.received_len.load(Relaxed)),
            ("zone_sent_bytes", "Bytes that went to clients", |zone| zone.sent_len.load(Relaxed)),
        ];
        for (name, help, read) in bytes {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for ((kind, zone), counters) in self.metrics.zones() {
                let labels = [("kind", kind.name()), ("zone", &*zone)];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&read(&counters), None)?;
            }
        }
        Ok(())
    }

    fn encode_peers(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Attempts at an upstream server by class of the answer's status";
        let mut family = encoder.encode_descriptor("upstream_responses", help, None, MetricType::Counter)?;
        for ((group, server), peer) in self.metrics.peers() {
            for (class, count) in CLASSES.into_iter().zip(peer.answers.classes()) {
                let labels = [("upstream", &*group), ("server", &*server), ("status", class)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        type Read = fn(&PeerMetrics) -> u64;
        let counters: [(&str, &str, Read); 3] = [
            ("upstream_ejections", "Failures that took an upstream server out of the rotation", |peer| {
                peer.ejections.load(Relaxed)
            }),
            ("upstream_sent_bytes", "Bytes sent to an upstream server", |peer| peer.sent_len.load(Relaxed)),
            ("upstream_received_bytes", "Bytes received from an upstream server", |peer| {
                peer.received_len.load(Relaxed)
            }),
        ];
        for (name, help, read) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for ((group, server), peer) in self.metrics.peers() {
                let labels = [("upstream", &*group), ("server", &*server)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&read(&peer), None)?;
            }
        }
        Ok(())
    }

    fn encode_times(
        &self,
        encoder: &mut DescriptorEncoder,
        name: &str,
        help: &str,
        read: fn(&PeerMetrics) -> &[Histogram; 6],
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for ((group, server), peer) in self.metrics.peers() {
            for (class, histogram) in CLASSES.into_iter().zip(read(&peer)) {
                let labels = [("upstream", &*group), ("server", &*server), ("status", class)];
                encode_histogram(&mut family, &labels, histogram)?;
            }
        }
        Ok(())
    }

    fn encode_states(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let now = self.running.started.elapsed();
        for (name, help, kind, read) in STATES {
            let mut family = encoder.encode_descriptor(name, help, None, kind.metric_type())?;
            for group in self.running.upstreams.groups() {
                let values: Vec<u64> =
                    group.with_peers(|peers| peers.iter().map(|peer| read(peer, now)).collect());
                for (peer, value) in group.peers().iter().zip(values) {
                    let labels = [("upstream", group.name()), ("server", &*peer.name)];
                    kind.encode(&mut family.encode_family(&labels)?, value)?;
                }
            }
        }
        Ok(())
    }

    fn encode_queues(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let groups = self.running.upstreams.groups().iter();
        let queued: Vec<&Group> =
            groups.filter(|group| group.upstream().queue.is_some()).map(|group| &**group).collect();
        for (name, help, kind, read) in QUEUES {
            let mut family = encoder.encode_descriptor(name, help, None, kind.metric_type())?;
            for group in &queued {
                let labels = [("upstream", group.name())];
                kind.encode(&mut family.encode_family(&labels)?, read(group))?;
            }
        }
        Ok(())
    }
}

/// Whether a number may fall.
#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

impl Kind {
    fn metric_type(self) -> MetricType {
        match self {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        }
    }

    fn encode(self, metric: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
        match self {
            Kind::Gauge => metric.encode_gauge(&gauge(value)),
            Kind::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
        }
    }
}

/// Name, meaning, kind, and where the value is.
type Row<T> = (&'static str, &'static str, Kind, T);

type ReadPeer = fn(&Peer, Duration) -> u64;
type ReadGroup = fn(&Group) -> u64;

/// Of one server.
const STATES: [Row<ReadPeer>; 5] = [
    ("upstream_up", "1 while the server takes part in the rotation", Kind::Gauge, |peer, now| {
        u64::from(matches!(peer.unusable(now), None | Some(Unusable::Full)))
    }),
    ("upstream_in_flight", "Requests in flight at the server", Kind::Gauge, |peer, _| peer.conns.into()),
    ("upstream_fails", "Failures counted in the present window", Kind::Gauge, |peer, _| peer.fails().into()),
    ("upstream_checks", "Active health checks of the server", Kind::Counter, |peer, _| peer.checks.checks),
    ("upstream_checks_failed", "Active health checks that failed", Kind::Counter, |peer, _| {
        peer.checks.fails
    }),
];

/// Of a group that has a queue.
const QUEUES: [Row<ReadGroup>; 2] = [
    ("upstream_queue", "Requests that wait for a server", Kind::Gauge, |group| group.queue().len as u64),
    ("upstream_queue_overflows", "Requests that found the queue full", Kind::Counter, |group| {
        group.queue().overflows
    }),
];

fn encode_histogram(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); 3],
    histogram: &Histogram,
) -> fmt::Result {
    let bounds = LATENCY_BOUNDS_S.into_iter().chain([f64::MAX]);
    let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets()).collect();
    let count: u64 = buckets.iter().map(|(_, count)| count).sum();
    // A server has answers of two or three classes; the others would only fill the scraper's disk.
    if count == 0 {
        return Ok(());
    }
    let mut metric = family.encode_family(labels)?;
    metric.encode_histogram::<NoLabelSet>(histogram.sum().as_secs_f64(), count, &buckets, None)
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The key by which counters of a server are kept.
pub(super) fn is_known((group, address): &PeerKey, running: &Running) -> bool {
    let groups = running.upstreams.groups();
    let group = groups.iter().find(|known| known.name() == &**group);
    group.is_some_and(|group| group.peers().iter().any(|peer| peer.name == *address))
}
