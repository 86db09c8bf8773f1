//! Counters, gauges and histograms of this replica, told on the ops port.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds; the seeds' goals of 200 and 400 ms are bounds of their own.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0, 2.5, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    pub method: String,
    /// The template, such as `/api/sessions/{id}`, never the path itself.
    pub route: String,
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteOnly {
    pub route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    pub database: String,
    pub state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReadLabels {
    pub from: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReplicaLabels {
    pub replica: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LoginLabels {
    pub result: String,
}

/// All metrics of the service. Chat and streaming register theirs through [`Metrics::register`].
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RouteLabels, Counter>,
    answered: AtomicU64,
    durations: Family<RouteOnly, Histogram>,
    pub in_flight: Gauge,
    pub pool: Family<PoolLabels, Gauge>,
    pub pool_wait: Histogram,
    reads: Family<ReadLabels, Counter>,
    read_wait: Histogram,
    replica_up: Family<ReplicaLabels, Gauge>,
    replica_lag: Family<ReplicaLabels, Gauge<f64, AtomicU64>>,
    pub logins: Family<LoginLabels, Counter>,
    pub redis_up: Gauge,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("web");
        let requests = Family::default();
        registry.register("http_requests", "requests answered, by route template", requests.clone());
        let durations: Family<RouteOnly, Histogram> =
            Family::new_with_constructor(|| Histogram::new(SECONDS));
        registry.register(
            "http_request_duration_seconds",
            "time from head to response head",
            durations.clone(),
        );
        let in_flight = Gauge::default();
        registry.register("http_requests_in_flight", "requests being answered", in_flight.clone());
        let pool = Family::default();
        registry.register("database_connections", "connections of this replica's pools", pool.clone());
        let pool_wait = Histogram::new(SECONDS);
        registry.register("database_acquire_seconds", "wait for a connection of the pool", pool_wait.clone());
        let reads = Family::default();
        registry.register("database_reads", "reads, by who answered them", reads.clone());
        let read_wait = Histogram::new(SECONDS);
        registry.register(
            "database_read_wait_seconds",
            "time in which a read with a consistency token found who may answer it",
            read_wait.clone(),
        );
        let replica_up = Family::default();
        registry.register(
            "database_replica_up",
            "1 while a read replica follows the primary",
            replica_up.clone(),
        );
        let replica_lag = Family::default();
        registry.register(
            "database_replica_lag_seconds",
            "how long a read replica lags, at least",
            replica_lag.clone(),
        );
        let logins = Family::default();
        registry.register("logins", "logins, by result", logins.clone());
        let redis_up = Gauge::default();
        registry.register("redis_up", "1 when Redis answered the last ping", redis_up.clone());
        Self {
            registry: Mutex::new(registry),
            requests,
            answered: AtomicU64::new(0),
            durations,
            in_flight,
            pool,
            pool_wait,
            reads,
            read_wait,
            replica_up,
            replica_lag,
            logins,
            redis_up,
        }
    }

    /// Lets another part of the service add its own.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().expect("nobody panics while registering or rendering"));
    }

    /// Counts one answered request.
    pub fn on_answer(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = RouteLabels { method: method.to_owned(), route: route.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        self.answered.fetch_add(1, Ordering::Relaxed);
        let only = RouteOnly { route: route.to_owned() };
        self.durations.get_or_create(&only).observe(took.as_secs_f64());
    }

    /// Requests answered since the start, whatever they were.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn on_login(&self, result: &str) {
        self.logins.get_or_create(&LoginLabels { result: result.to_owned() }).inc();
    }

    /// Counts a read; `waited` where it must see a certain state.
    pub fn on_read(&self, from: &str, waited: Option<Duration>) {
        self.reads.get_or_create(&ReadLabels { from: from.to_owned() }).inc();
        if let Some(waited) = waited {
            self.read_wait.observe(waited.as_secs_f64());
        }
    }

    /// `lag`: `None` when the replica does not follow.
    pub fn set_replica(&self, replica: &str, lag: Option<Duration>) {
        let labels = ReplicaLabels { replica: replica.to_owned() };
        self.replica_up.get_or_create(&labels).set(i64::from(lag.is_some()));
        if let Some(lag) = lag {
            self.replica_lag.get_or_create(&labels).set(lag.as_secs_f64());
        }
    }

    pub fn set_pool(&self, database: &str, state: &str, count: u32) {
        let labels = PoolLabels { database: database.to_owned(), state: state.to_owned() };
        self.pool.get_or_create(&labels).set(i64::from(count));
    }

    /// The text that the ops port tells.
    pub fn render(&self) -> String {
        let registry = self.registry.lock().expect("nobody panics while registering or rendering");
        chassis::metrics::render(&registry)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_by_route_template() {
        let metrics = Metrics::new();
        metrics.on_answer("GET", "/api/sessions/{id}", 200, Duration::from_millis(3));
        let text = metrics.render();
        assert!(text.contains(
            "web_http_requests_total{method=\"GET\",route=\"/api/sessions/{id}\",status=\"200\"} 1"
        ));
        assert!(text.contains("web_http_request_duration_seconds_bucket"));
    }
}
