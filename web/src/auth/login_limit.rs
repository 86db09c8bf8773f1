//! How many failed logins a name and an address may have. Counted in Redis for all replicas; by this one alone while Redis is away.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::Script;
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::redis_link::RedisLink;
use crate::settings;

/// Names and addresses counted here while Redis is away; past it, all counts start anew.
const LOCAL_LEN_MAX: usize = 10_000;

/// Counts failures, refuses when there were too many.
pub struct LoginLimit {
    redis: RedisLink,
    local: Mutex<HashMap<String, (u64, Instant)>>,
    count: Script,
    tries_max: u64,
    tries_address_max: u64,
    window: Duration,
}

impl LoginLimit {
    pub fn new(settings: &settings::Auth, redis: RedisLink) -> Self {
        Self {
            redis,
            local: Mutex::default(),
            // The end of the window is set with the first failure, in one step: a count can never stay for ever.
            count: Script::new(
                "local n = redis.call('INCR', KEYS[1]) \
                 if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end \
                 return {n, redis.call('PTTL', KEYS[1])}",
            ),
            tries_max: settings.tries_max,
            tries_address_max: settings.tries_address_max,
            window: settings.tries_window,
        }
    }

    /// # Errors
    /// This name or this address has failed too often; when to come back.
    pub async fn check(&self, username: &str, address: &str) -> Result<(), Error> {
        for (key, max) in self.keys(username, address) {
            let (count, left) = self.read(&key).await;
            if count >= max {
                return Err(Error::too_many(left.max(Duration::from_secs(1))));
            }
        }
        Ok(())
    }

    /// Counts a failed login.
    pub async fn on_failure(&self, username: &str, address: &str) {
        for (key, _) in self.keys(username, address) {
            let mut connection = self.redis.connection();
            let window_ms = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX).max(1);
            let counted: Result<(u64, i64), _> =
                self.count.key(&key).arg(window_ms).invoke_async(&mut connection).await;
            if counted.is_err() {
                self.count_here(key);
            }
        }
    }

    /// A login that succeeded clears the name's count; the address keeps its own.
    pub async fn on_success(&self, username: &str, address: &str) {
        let [(key, _), _] = self.keys(username, address);
        self.local.lock().expect("nobody panics while holding it").remove(&key);
        let mut pipeline = redis::pipe();
        pipeline.del(&key).ignore();
        if let Err(cause) = self.redis.ask::<()>(&pipeline).await {
            tracing::debug!(%cause, "a count of failed logins stays until its window ends: {cause}");
        }
    }

    /// Hashed: names and addresses of people are not for those who list Redis' keys.
    fn keys(&self, username: &str, address: &str) -> [(String, u64); 2] {
        let key = |kind: &str, text: &str| {
            format!("arena:tries:{kind}:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes())))
        };
        [(key("name", username), self.tries_max), (key("address", address), self.tries_address_max)]
    }

    async fn read(&self, key: &str) -> (u64, Duration) {
        let mut pipeline = redis::pipe();
        pipeline.get(key).pttl(key);
        match self.redis.ask::<(Option<u64>, i64)>(&pipeline).await {
            Ok((count, left_ms)) => {
                (count.unwrap_or(0), Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)))
            }
            Err(_) => self.read_here(key),
        }
    }

    fn read_here(&self, key: &str) -> (u64, Duration) {
        let local = self.local.lock().expect("nobody panics while holding it");
        match local.get(key) {
            Some((count, since)) if since.elapsed() < self.window => {
                (*count, self.window.saturating_sub(since.elapsed()))
            }
            _ => (0, Duration::ZERO),
        }
    }

    fn count_here(&self, key: String) {
        let mut local = self.local.lock().expect("nobody panics while holding it");
        if local.len() >= LOCAL_LEN_MAX {
            local.clear();
        }
        let entry = local.entry(key).or_insert_with(|| (0, Instant::now()));
        if entry.1.elapsed() >= self.window {
            *entry = (0, Instant::now());
        }
        entry.0 += 1;
    }
}
