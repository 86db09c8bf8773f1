//! Redis pub/sub between the replicas: one publisher and one subscriber per process. The subscriber also hears of logins
//! that have ended, which auth/revoked.rs tells.
//!
//! Pub/sub may lose; the rooms never do. So nobody waits for Redis here: what it does not take is dropped, and the
//! keeper is told to compare offsets with the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis::tasks::Tasks;
use futures_util::StreamExt as _;
use prometheus_client::metrics::gauge::Gauge;
use redis::RedisError;
use redis::aio::PubSub;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::auth::{Auth, ENDED_LOGINS_CHANNEL};
use crate::logic::envelope::{self, Envelope, PARTITION_COUNT};
use crate::redis_link::RedisLink;

use super::hub::Hub;
use super::metrics::ChatMetrics;

/// Publications that may wait for Redis: about a second of a busy replica.
const WAITING_LEN_MAX: usize = 4096;
/// Publications of one pipeline.
const BATCH_LEN_MAX: usize = 256;
/// Each replica publishes to itself this often: silence means that the subscription is dead, though its socket is not.
const BEAT_PERIOD: Duration = Duration::from_millis(1500);
const SILENCE_MAX: Duration = Duration::from_secs(4);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The way out, and how Redis is doing. Clones share it.
#[derive(Clone)]
pub struct Bus {
    waiting: mpsc::Sender<Outgoing>,
    health: Arc<Health>,
    last_word: CancellationToken,
}

/// How the two directions are doing.
struct Health {
    publishing: AtomicBool,
    subscribed: AtomicBool,
    /// Something may have been lost: compare.
    doubt: Notify,
    metrics: ChatMetrics,
}

struct Outgoing {
    partition: u8,
    text: String,
}

/// Starts both directions. They end when a drain has begun and the hub is empty, the way out after the last word: see
/// [`Bus::last_word`].
pub fn start(hub: &Arc<Hub>, redis: &RedisLink, auth: &Auth, tasks: &Tasks, served_by: &str) -> Bus {
    let (waiting, outgoing) = mpsc::channel(WAITING_LEN_MAX);
    let health = Arc::new(Health {
        publishing: AtomicBool::new(false),
        subscribed: AtomicBool::new(false),
        doubt: Notify::new(),
        metrics: hub.metrics().clone(),
    });
    // Two processes of one name must not take each other's beat for their own.
    let beat_channel = format!("arena:beat:{served_by}:{}", Uuid::new_v4());
    let publisher = Publisher {
        redis: redis.clone(),
        outgoing,
        health: Arc::clone(&health),
        beat_channel: beat_channel.clone(),
    };
    let subscriber = Subscriber {
        redis: redis.clone(),
        hub: Arc::clone(hub),
        auth: auth.clone(),
        health: Arc::clone(&health),
        beat_channel,
    };
    let last_word = CancellationToken::new();
    tasks.spawn("bus publisher", publisher.run(last_word.clone()));
    let ended = end_of(hub, tasks);
    tasks.spawn("bus subscriber", async move {
        tokio::select! { () = subscriber.run() => {}, () = ended => {} }
    });
    Bus { waiting, health, last_word }
}

/// When a task that serves the rooms has nothing to do any more.
pub fn end_of(hub: &Arc<Hub>, tasks: &Tasks) -> impl Future<Output = ()> + use<> {
    let (hub, tasks) = (Arc::clone(hub), tasks.clone());
    async move {
        tasks.drain_started().await;
        hub.emptied().await;
    }
}

impl Bus {
    /// Hands an envelope to the publisher; never waits.
    pub fn publish(&self, envelope: &Envelope<'_>) {
        let outgoing =
            Outgoing { partition: envelope::partition(envelope.session()), text: envelope.encode() };
        if self.waiting.try_send(outgoing).is_err() {
            self.health.on_unpublished(1);
        }
    }

    /// The publisher ends when this is dropped, once what waits by then is out.
    pub fn last_word(&self) -> DropGuard {
        self.last_word.clone().drop_guard()
    }

    /// Whether messages travel, out and in.
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// Comes back when something may have been lost.
    pub async fn doubt(&self) {
        self.health.doubt.notified().await;
    }
}

impl Health {
    fn is_up(&self) -> bool {
        self.publishing.load(Ordering::Relaxed) && self.subscribed.load(Ordering::Relaxed)
    }

    fn on_unpublished(&self, count: u64) {
        self.metrics.unpublished.inc_by(count);
        self.doubt.notify_one();
    }

    /// Notes a change of one direction; `true` when it is one.
    fn on_direction(&self, direction: &AtomicBool, up: bool) -> bool {
        let changed = direction.swap(up, Ordering::Relaxed) != up;
        let gauge: &Gauge = &self.metrics.bus_up;
        gauge.set(i64::from(self.is_up()));
        if changed {
            // Down: compare more often from now on. Up: what was lost meanwhile must be found.
            self.doubt.notify_one();
        }
        changed
    }
}

struct Publisher {
    redis: RedisLink,
    outgoing: mpsc::Receiver<Outgoing>,
    health: Arc<Health>,
    beat_channel: String,
}

impl Publisher {
    async fn run(mut self, last_word: CancellationToken) {
        let mut beat = tokio::time::interval(BEAT_PERIOD);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                // What waits goes out before the end. A beat that is late for it is no silence.
                biased;
                count = self.outgoing.recv_many(&mut batch, BATCH_LEN_MAX) => {
                    if count == 0 {
                        return;
                    }
                }
                () = last_word.cancelled() => return,
                _ = beat.tick() => {}
            }
            self.publish(&batch).await;
            batch.clear();
        }
    }

    /// One pipeline for all that waits; an empty batch is a beat.
    async fn publish(&mut self, batch: &[Outgoing]) {
        let mut pipeline = redis::pipe();
        for outgoing in batch {
            pipeline.publish(envelope::channel(outgoing.partition), &outgoing.text).ignore();
        }
        if batch.is_empty() {
            pipeline.publish(&self.beat_channel, "beat").ignore();
        }
        let answer = self.redis.ask::<()>(&pipeline).await;
        let changed = self.health.on_direction(&self.health.publishing, answer.is_ok());
        match answer {
            Ok(()) => {
                self.health.metrics.published.inc_by(batch.len() as u64);
                if changed {
                    tracing::info!("messages are published on Redis {}", self.redis.address());
                }
            }
            Err(cause) => {
                // What waits behind it is as lost as this batch: one comparison finds all of it.
                let mut lost = batch.len() as u64;
                while self.outgoing.try_recv().is_ok() {
                    lost += 1;
                }
                if lost > 0 {
                    self.health.on_unpublished(lost);
                }
                if changed {
                    tracing::warn!(%cause, "Redis {} takes no messages; rooms compare offsets instead: {cause}",
                        self.redis.address());
                }
            }
        }
    }
}

struct Subscriber {
    redis: RedisLink,
    hub: Arc<Hub>,
    auth: Auth,
    health: Arc<Health>,
    beat_channel: String,
}

impl Subscriber {
    async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            match tokio::time::timeout(CONNECT_TIMEOUT, self.subscribe()).await {
                Ok(Ok(subscription)) => {
                    backoff = BACKOFF_MIN;
                    self.health.on_direction(&self.health.subscribed, true);
                    tracing::info!("subscribed to the messages of all replicas");
                    self.listen(subscription).await;
                    self.health.on_direction(&self.health.subscribed, false);
                    tracing::warn!("the subscription at Redis ended; rooms compare offsets until it is back");
                }
                Ok(Err(cause)) => tracing::debug!(%cause, "cannot subscribe yet: {cause}"),
                Err(_) => tracing::debug!("cannot subscribe yet: no answer in time"),
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn subscribe(&self) -> Result<PubSub, RedisError> {
        let mut subscription = self.redis.client()?.get_async_pubsub().await?;
        let mut channels: Vec<String> = (0..PARTITION_COUNT).map(envelope::channel).collect();
        channels.extend([self.beat_channel.clone(), ENDED_LOGINS_CHANNEL.to_owned()]);
        subscription.subscribe(channels).await?;
        Ok(subscription)
    }

    /// Hands on what comes, until the connection ends or falls silent.
    async fn listen(&self, subscription: PubSub) {
        let mut news = subscription.into_on_message();
        let mut heard = Instant::now();
        loop {
            // One timer per silence, not per message: it is only looked at when it fires.
            let silence = tokio::time::sleep_until(heard + SILENCE_MAX);
            tokio::pin!(silence);
            loop {
                tokio::select! {
                    message = news.next() => {
                        let Some(message) = message else { return };
                        heard = Instant::now();
                        self.on_payload(message.get_channel_name(), message.get_payload_bytes());
                    }
                    () = &mut silence => break,
                }
            }
            if heard.elapsed() >= SILENCE_MAX {
                return;
            }
        }
    }

    fn on_payload(&self, channel: &str, payload: &[u8]) {
        let Ok(text) = std::str::from_utf8(payload) else { return };
        if channel == ENDED_LOGINS_CHANNEL {
            self.auth.revoked().on_told(text);
        } else if let Some(envelope) = Envelope::decode(text) {
            self.hub.on_envelope(&envelope);
        }
    }
}
