//! Live chat: rooms and their members on this replica, and the bus over which replicas tell each other.
//!
//! A message is stored first and published then; nobody delivers locally, so every replica learns of it the same way.
//! What the bus loses is read from Postgres: see `logic/rooms.rs`.

mod bus;
mod hub;
mod keeper;
mod metrics;
mod presence;
pub mod socket;

use std::sync::Arc;
use std::time::Duration;

use chassis::settings::Values;
use chassis::tasks::Tasks;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::Auth;
use crate::logic::envelope::Envelope;
use crate::logic::farewells;
use crate::logic::frames::ServerFrame;
use crate::logic::message::{Author, Message, Offset};
use crate::logic::outbox::End;
use crate::redis_link::RedisLink;
use crate::replicas::Databases;
use crate::store::Store;

use bus::Bus;
use hub::{Hub, Member};
use metrics::ChatMetrics;

pub use hub::{Busy, ReaderSeat, Seat, StreamWatch};

/// What the operator may set about chat.
#[derive(Debug, Clone)]
pub struct ChatSettings {
    /// Bytes that may wait for one member.
    pub queue_bytes: usize,
    /// How often the offsets of the rooms are compared with the database.
    pub compare_period: Duration,
    /// How long a jump of offsets waits for what is missing.
    pub gap_wait: Duration,
    /// How often this replica says who is in its rooms.
    pub presence_period: Duration,
    pub ping_period: Duration,
    pub pong_wait: Duration,
    pub rate_per_s: u32,
    pub rate_burst: u32,
}

impl ChatSettings {
    pub fn new(values: &Values) -> Self {
        let small = |name| u32::try_from(values.count(name)).unwrap_or(u32::MAX);
        Self {
            queue_bytes: usize::try_from(values.count("CHAT_QUEUE_BYTES")).unwrap_or(usize::MAX),
            compare_period: values.duration("CHAT_COMPARE_PERIOD"),
            gap_wait: values.duration("CHAT_GAP_WAIT"),
            presence_period: values.duration("CHAT_PRESENCE_PERIOD"),
            ping_period: values.duration("CHAT_PING_PERIOD"),
            pong_wait: values.duration("CHAT_PONG_WAIT"),
            rate_per_s: small("CHAT_RATE_PER_S"),
            rate_burst: small("CHAT_RATE_BURST"),
        }
    }
}

/// What chat stands on.
pub struct Parts {
    pub store: Store,
    pub databases: Databases,
    pub redis: RedisLink,
    pub auth: Auth,
    pub tasks: Tasks,
    pub served_by: Arc<str>,
    pub settings: ChatSettings,
}

/// How many are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub connections: usize,
    pub rooms: usize,
}

/// The handle of the rest of the service; clones share one hub and one bus.
#[derive(Clone)]
pub struct Chat {
    shared: Arc<Shared>,
}

struct Shared {
    hub: Arc<Hub>,
    bus: Bus,
    redis: RedisLink,
    served_by: Arc<str>,
    settings: ChatSettings,
    metrics: ChatMetrics,
}

impl Chat {
    /// Starts the bus and the keepers. They end on drain, once the last member has gone.
    pub fn start(parts: Parts) -> Chat {
        let Parts { store, databases, redis, auth, tasks, served_by, settings } = parts;
        let metrics = ChatMetrics::default();
        let hub = Arc::new(Hub::new(hub::Parts {
            store,
            databases,
            tasks: tasks.clone(),
            metrics: metrics.clone(),
            gap_wait: settings.gap_wait,
            queue_bytes: settings.queue_bytes,
        }));
        // Weak: the hub may not outlive its service because logins could still end.
        let rooms = Arc::downgrade(&hub);
        auth.revoked().tell_of_ends(move |logins| {
            if let Some(hub) = rooms.upgrade() {
                hub.on_ended(logins);
            }
        });
        hub.start_writers(|| bus::end_of(&hub, &tasks));
        let bus = bus::start(&hub, &redis, &auth, &tasks, &served_by);
        keeper::start(&hub, &bus, &tasks, settings.compare_period);
        presence::start(&hub, &bus, &redis, &tasks, settings.presence_period);
        Chat { shared: Arc::new(Shared { hub, bus, redis, served_by, settings, metrics }) }
    }

    /// Tells every replica of a stored message; called after its commit. Never waits: what the bus cannot take
    /// is found by the comparison of offsets.
    pub fn publish(&self, message: &Message) {
        let frame = ServerFrame::Message(message).encode();
        self.send(Envelope::Message { session: message.session_id, offset: message.offset, frame: &frame });
    }

    /// Closes the sockets of somebody who is no member any more, and ends the answers that it reads: here at once, on other replicas when they hear of it
    /// or at their next comparison.
    pub fn member_removed(&self, session: Uuid, user: Uuid) {
        self.shared.hub.on_removed(session, Some(user));
        self.send(Envelope::Removed { session, user: Some(user) });
    }

    /// Closes all sockets of a session that is gone, likewise.
    pub fn session_closed(&self, session: Uuid) {
        self.shared.hub.on_removed(session, None);
        self.send(Envelope::Removed { session, user: None });
    }

    /// Shows the room that somebody writes.
    pub fn typing(&self, session: Uuid, author: &Author) {
        let frame = ServerFrame::Typing { author }.encode();
        self.send(Envelope::Passing { session, frame: &frame });
    }

    /// Shows the room, and whoever serves the stream, token `i` of an answer.
    pub fn token(&self, session: Uuid, stream: Uuid, i: usize, text: &str) {
        let frame = ServerFrame::Token { stream_id: stream, i, text }.encode();
        self.send(Envelope::Token { session, stream, frame: &frame });
    }

    /// Tells the room, and whoever serves the stream, that the answer is stored.
    pub fn stream_done(&self, session: Uuid, stream: Uuid, offset: Offset) {
        let frame = ServerFrame::StreamDone { stream_id: stream, offset }.encode();
        self.send(Envelope::Token { session, stream, frame: &frame });
    }

    /// Tells the room, and whoever serves the stream, that there will be no answer.
    pub fn stream_failed(&self, session: Uuid, stream: Uuid, code: &str, detail: &str) {
        let frame = ServerFrame::Error { code, detail, client_msg_id: None }.encode();
        self.send(Envelope::Token { session, stream, frame: &frame });
    }

    /// One who reads an answer in this session; see [`ReaderSeat::is_removed`].
    pub fn seat_reader(&self, session: Uuid, user: Uuid) -> ReaderSeat {
        self.shared.hub.seat_reader(session, user)
    }

    /// Wakes up whenever a token of this stream is published by any replica.
    pub fn watch_stream(&self, stream: Uuid) -> StreamWatch {
        self.shared.hub.watch_stream(stream)
    }

    /// Whether somebody on this replica reads this stream.
    pub fn is_watched(&self, stream: Uuid) -> bool {
        self.shared.hub.is_watched(stream)
    }

    /// Whether anybody is in the room, on any replica; `true` also while Redis is away and cannot tell.
    pub async fn is_inhabited(&self, session: Uuid) -> bool {
        self.shared.hub.has_members(session) || presence::is_inhabited(&self.shared.redis, session).await
    }

    /// Keeps the bus alive during a drain while the holder still has something to say.
    pub fn hold(&self) -> Busy {
        self.shared.hub.hold()
    }

    pub fn counts(&self) -> Counts {
        self.shared.hub.counts()
    }

    /// Whether messages travel over Redis now, out and in.
    pub fn redis_up(&self) -> bool {
        self.shared.bus.is_up()
    }

    /// Closes all sockets, spread over `over`, and lets none in. Comes back when the last is gone, or a little after `over`.
    pub async fn drain(&self, over: Duration) {
        const LAST_WORDS: Duration = Duration::from_secs(3);
        send_away(self.shared.hub.start_drain(), over).await;
        let _ = tokio::time::timeout(LAST_WORDS, self.shared.hub.emptied()).await;
    }

    /// Closes the sockets that are open now, as a drain does; those that come back are welcome.
    pub async fn farewell(&self, over: Duration) {
        send_away(self.shared.hub.members(), over).await;
    }

    /// Adds the counters of chat to the metrics of the service.
    pub fn metrics(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
    }

    fn send(&self, envelope: Envelope<'_>) {
        self.shared.bus.publish(&envelope);
    }
}

async fn send_away(members: Vec<Arc<Member>>, over: Duration) {
    say_in_turn(members, over, |member, end| member.close(end)).await;
}

/// Says farewell to one after the other, each at its moment.
async fn say_in_turn<T>(those: Vec<T>, over: Duration, say: impl Fn(T, End)) {
    let began = Instant::now();
    let count = those.len();
    for (one, farewell) in those.into_iter().zip(farewells::schedule(count, over)) {
        tokio::time::sleep_until(began + farewell.after).await;
        say(one, End::GoingAway { retry_after_ms: farewell.retry_after_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[tokio::test(start_paused = true)]
    async fn farewells_are_said_when_the_schedule_has_them_and_not_at_once() {
        let over = Duration::from_secs(20);
        let (began, said) = (Instant::now(), RefCell::new(Vec::new()));
        say_in_turn((0..500).collect(), over, |one: usize, end| {
            said.borrow_mut().push((one, began.elapsed(), end));
        })
        .await;
        let said = said.into_inner();
        assert_eq!(said.len(), 500);
        for ((one, at, end), (index, planned)) in said.iter().zip(farewells::schedule(500, over).enumerate())
        {
            assert_eq!((*one, *end), (index, End::GoingAway { retry_after_ms: planned.retry_after_ms }));
            // The clock of tokio goes in milliseconds.
            assert!(
                *at >= planned.after && *at < planned.after + Duration::from_millis(2),
                "{index}: {at:?}"
            );
        }
        assert!(said[499].1 > over / 2, "spread over the drain: {:?}", said[499].1);
    }
}
