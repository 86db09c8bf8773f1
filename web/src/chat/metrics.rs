//! What chat counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CloseLabels {
    pub code: u16,
}

/// Counters and gauges; clones share them.
#[derive(Debug, Clone, Default)]
pub struct ChatMetrics {
    pub connections: Gauge,
    pub rooms: Gauge,
    pub published: Counter,
    /// Publications that Redis did not take; the comparison of offsets brings them.
    pub unpublished: Counter,
    pub received: Counter,
    pub deliveries: Counter,
    /// Write calls; frames that wait for one member share one.
    pub writes: Counter,
    /// Range reads that closed a gap.
    pub repairs: Counter,
    pub resumes: Counter,
    pub closes: Family<CloseLabels, Counter>,
    pub bus_up: Gauge,
}

impl ChatMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("chat_connections", "open WebSockets", self.connections.clone());
        registry.register("chat_rooms", "rooms with members on this replica", self.rooms.clone());
        registry.register("chat_published", "things published on Redis", self.published.clone());
        registry.register("chat_unpublished", "things that Redis did not take", self.unpublished.clone());
        registry.register("chat_received", "things received from Redis", self.received.clone());
        registry.register("chat_deliveries", "messages queued for members", self.deliveries.clone());
        registry.register("chat_writes", "write calls to sockets", self.writes.clone());
        registry.register(
            "chat_repairs",
            "range reads that looked for missing messages",
            self.repairs.clone(),
        );
        registry.register("chat_resumes", "members that came back with since", self.resumes.clone());
        registry.register("chat_closes", "WebSockets closed by the server, by code", self.closes.clone());
        registry.register("chat_bus_up", "1 while messages travel over Redis", self.bus_up.clone());
    }

    pub fn on_close(&self, code: u16) {
        self.closes.get_or_create(&CloseLabels { code }).inc();
    }
}
