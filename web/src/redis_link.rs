//! The connection to Redis. Redis may be away: every question has a short limit, and callers go on without it.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, Pipeline, RedisResult};

use crate::settings;

/// Redis answers in well under a millisecond; one that takes this long counts as away.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(750);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(750);

/// A handle that reconnects by itself. Clones share one connection.
#[derive(Clone)]
pub struct RedisLink {
    client: Client,
    manager: ConnectionManager,
    address: String,
}

impl RedisLink {
    /// Makes the handle without connecting; must be called inside the runtime.
    ///
    /// # Errors
    /// The URL is not understood; it is not repeated, as it may hold a password.
    pub fn new(settings: &settings::Redis) -> Result<Self, String> {
        let refused =
            |_| "REDIS_URL: not understood; write redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]".to_owned();
        let client = Client::open(settings.url.reveal()).map_err(refused)?;
        // One try per question: whoever asks while Redis is away learns it at once, and the next question tries again.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(refused)?;
        Ok(Self { client, manager, address: settings.address.clone() })
    }

    /// For those who need connections of their own, such as subscribers.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The shared connection.
    pub fn connection(&self) -> ConnectionManager {
        self.manager.clone()
    }

    /// `host:port`, for people.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a pipeline; the limit covers reconnecting too.
    pub async fn ask<T: FromRedisValue>(&self, pipeline: &Pipeline) -> RedisResult<T> {
        let mut connection = self.connection();
        match tokio::time::timeout(ANSWER_TIMEOUT, pipeline.query_async(&mut connection)).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    /// How long a ping takes.
    pub async fn ping(&self) -> RedisResult<Duration> {
        let asked = tokio::time::Instant::now();
        let () = self.ask(redis::pipe().cmd("PING").ignore()).await?;
        Ok(asked.elapsed())
    }

    /// Takes leave.
    pub async fn quit(&self) {
        if let Err(cause) = self.ask::<()>(redis::pipe().cmd("QUIT").ignore()).await {
            tracing::debug!(%cause, "Redis was away at the end: {cause}");
        }
    }
}
