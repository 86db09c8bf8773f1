//! What the replicas tell each other about themselves, through Redis. Without Redis each knows only itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::redis_link::RedisLink;

/// How often a replica tells.
const BEAT: Duration = Duration::from_secs(2);
/// A replica that has been silent for this long is unhealthy: three beats were lost.
const SILENCE_MAX: Duration = Duration::from_secs(7);
/// A replica that has been silent for this long is forgotten.
const FORGET: Duration = Duration::from_secs(60);
/// The names of all replicas; the braces keep it in one Redis Cluster slot with their summaries.
const NAMES: &str = "{arena:fleet}:names";

/// One replica, as it describes itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    pub container: String,
    pub healthy: bool,
    pub draining: bool,
    pub version: String,
    pub uptime_s: u64,
    pub connections: usize,
    pub rooms: usize,
    pub pool_size: u32,
    pub pool_in_use: u32,
    /// Requests that it has answered since it started.
    #[serde(default)]
    pub requests: u64,
    /// Seconds since it said so.
    #[serde(default)]
    pub age_s: f64,
}

/// The fleet, as Redis remembers it.
#[derive(Clone)]
pub struct Fleet {
    redis: RedisLink,
}

impl Fleet {
    pub fn new(redis: RedisLink) -> Self {
        Self { redis }
    }

    async fn tell(&self, summary: &Summary) -> redis::RedisResult<()> {
        let text = serde_json::to_string(summary).expect("a summary is plain data");
        let mut pipeline = redis::pipe();
        pipeline.sadd(NAMES, &summary.container).ignore();
        pipeline.set_ex(key(&summary.container), text, FORGET.as_secs()).ignore();
        self.redis.ask(&pipeline).await
    }

    /// A replica that ends in good order takes its name away.
    pub async fn leave(&self, container: &str) {
        let mut pipeline = redis::pipe();
        pipeline.srem(NAMES, container).ignore().del(key(container)).ignore();
        if let Err(cause) = self.redis.ask::<()>(&pipeline).await {
            tracing::debug!(%cause, "the fleet forgets this replica by itself in a minute: {cause}");
        }
    }

    /// Everybody who told within the last minute, in order of their names.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn list(&self) -> redis::RedisResult<Vec<Summary>> {
        let mut pipeline = redis::pipe();
        pipeline.smembers(NAMES);
        let (names,): (Vec<String>,) = self.redis.ask(&pipeline).await?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for name in &names {
            pipeline.get(key(name)).pttl(key(name));
        }
        let rows: Vec<redis::Value> = self.redis.ask(&pipeline).await?;
        let mut found: Vec<Summary> = rows.chunks_exact(2).filter_map(read).collect();
        found.sort_by_key(|summary| natural(&summary.container));
        self.forget_gone(&names, &found).await;
        Ok(found)
    }

    async fn forget_gone(&self, names: &[String], found: &[Summary]) {
        let gone: Vec<&String> =
            names.iter().filter(|name| !found.iter().any(|summary| summary.container == **name)).collect();
        if !gone.is_empty() {
            let mut pipeline = redis::pipe();
            pipeline.srem(NAMES, gone).ignore();
            let _: redis::RedisResult<()> = self.redis.ask(&pipeline).await;
        }
    }
}

/// The age comes from what is left of the entry's life: no two machines' clocks are compared.
fn read(row: &[redis::Value]) -> Option<Summary> {
    let text: Option<String> = redis::from_redis_value(row[0].clone()).ok()?;
    let left_ms: i64 = redis::from_redis_value(row[1].clone()).ok()?;
    let mut summary: Summary = serde_json::from_str(&text?).ok()?;
    let age = FORGET.saturating_sub(Duration::from_millis(u64::try_from(left_ms).ok()?));
    summary.age_s = (age.as_secs_f64() * 1000.0).round() / 1000.0;
    summary.healthy &= age <= SILENCE_MAX;
    Some(summary)
}

/// `web-2` before `web-10`.
fn natural(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.to_owned(), name[stem.len()..].parse().unwrap_or(0))
}

fn key(container: &str) -> String {
    format!("{{arena:fleet}}:{container}")
}

/// What this replica would say now.
pub fn own_summary(app: &App) -> Summary {
    let counts = app.chat.counts();
    let pool = app.store.db().figures();
    Summary {
        container: app.served_by.to_string(),
        healthy: app.life.is_serving(),
        draining: app.life.is_draining(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: app.life.started.elapsed().as_secs(),
        connections: counts.connections,
        rooms: counts.rooms,
        pool_size: pool.size,
        pool_in_use: pool.in_use,
        requests: app.metrics.answered(),
        age_s: 0.0,
    }
}

/// Tells the fleet now.
pub async fn tell(app: &App) {
    let told = app.fleet.tell(&own_summary(app)).await;
    app.metrics.redis_up.set(i64::from(told.is_ok()));
}

/// Tells the fleet until drain.
pub async fn beat(app: App) {
    loop {
        let told = app.life.phase();
        tell(&app).await;
        tokio::select! {
            () = app.tasks.drain_started() => return,
            () = app.life.leave(told) => {}
            () = tokio::time::sleep(BEAT) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_their_number() {
        let mut names = ["web-10", "web-2", "web-1", "other"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["other", "web-1", "web-2", "web-10"]);
    }
}
