//! How many failed logins a name and an address may have, those under way included. Counted in Redis for all replicas; by this one alone while Redis is away.

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

/// Counts tries that have not succeeded, refuses when there are too many.
pub struct LoginLimit {
    redis: RedisLink,
    local: Mutex<HashMap<String, (u64, Instant)>>,
    begin: Script,
    tries_max: u64,
    tries_address_max: u64,
    window: Duration,
}

/// A try that is counted as a failure until it is taken back: many at once cannot all pass before the first has failed.
#[must_use = "a try that succeeded is taken back"]
pub struct Try {
    keys: [String; 2],
    counted: Counted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    InRedis,
    Here,
}

/// What to take back of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    /// The name's whole count; the address keeps the failures of other names.
    Success,
    /// This try alone.
    Undecided,
}

/// In one step, so that no two tries pass on the same count; the end of the window is set with the first, so that a count
/// can never stay for ever. Answers with 0, or with the milliseconds to wait.
const BEGIN: &str = "
    local wait = 0
    for i, key in ipairs(KEYS) do
        if tonumber(redis.call('GET', key) or '0') >= tonumber(ARGV[i + 1]) then
            wait = math.max(wait, redis.call('PTTL', key), 1)
        end
    end
    if wait > 0 then return wait end
    for _, key in ipairs(KEYS) do
        if redis.call('INCR', key) == 1 then redis.call('PEXPIRE', key, ARGV[1]) end
    end
    return 0";

/// A count that has ended meanwhile is not begun anew below zero.
const TAKE_BACK: &str = "
    for _, key in ipairs(KEYS) do
        if tonumber(redis.call('GET', key) or '0') > 0 then redis.call('DECR', key) end
    end";

impl LoginLimit {
    pub fn new(settings: &settings::Auth, redis: RedisLink) -> Self {
        Self {
            redis,
            local: Mutex::default(),
            begin: Script::new(BEGIN),
            tries_max: settings.tries_max,
            tries_address_max: settings.tries_address_max,
            window: settings.tries_window,
        }
    }

    /// Counts a try before it is made.
    ///
    /// # Errors
    /// This name or this address has too many that failed or are under way; when to come back.
    pub async fn begin(&self, username: &str, address: &str) -> Result<Try, Error> {
        let keys = [key("name", username), key("address", address)];
        let limits = [self.tries_max, self.tries_address_max];
        let window_ms = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut connection = self.redis.connection();
        let mut asked = self.begin.key(&keys[0]);
        asked.key(&keys[1]).arg(window_ms).arg(limits[0]).arg(limits[1]);
        let (wait, counted) = match asked.invoke_async::<u64>(&mut connection).await {
            Ok(wait_ms) => (Duration::from_millis(wait_ms), Counted::InRedis),
            Err(_) => (self.begin_here(&keys, limits), Counted::Here),
        };
        match wait.is_zero() {
            true => Ok(Try { keys, counted }),
            false => Err(Error::too_many(wait.max(Duration::from_secs(1)))),
        }
    }

    /// A try that succeeded was none, and clears the count of its name.
    pub async fn on_success(&self, tried: Try) {
        self.take_back(&tried, Back::Success).await;
    }

    /// A try that came to nothing because of us is no failure of whoever tried.
    pub async fn on_undecided(&self, tried: Try) {
        self.take_back(&tried, Back::Undecided).await;
    }

    async fn take_back(&self, tried: &Try, back: Back) {
        let [name, address] = &tried.keys;
        let decreased: &[&String] = if back == Back::Success { &[address] } else { &[name, address] };
        {
            let mut local = self.local.lock().expect("nobody panics while holding it");
            if back == Back::Success {
                local.remove(name);
            }
            for key in decreased.iter().filter(|_| tried.counted == Counted::Here) {
                if let Some((count, _)) = local.get_mut(*key) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        let mut pipeline = redis::pipe();
        if back == Back::Success {
            pipeline.del(name).ignore();
        }
        if tried.counted == Counted::InRedis {
            pipeline.cmd("EVAL").arg(TAKE_BACK).arg(decreased.len()).arg(decreased).ignore();
        }
        if let Err(cause) = self.redis.ask::<()>(&pipeline).await {
            tracing::debug!(%cause, "a count of failed logins stays until its window ends: {cause}");
        }
    }

    fn begin_here(&self, keys: &[String; 2], limits: [u64; 2]) -> Duration {
        let mut local = self.local.lock().expect("nobody panics while holding it");
        if local.len() >= LOCAL_LEN_MAX {
            local.clear();
        }
        for key in keys {
            if local.get(key).is_some_and(|(_, since)| since.elapsed() >= self.window) {
                local.remove(key);
            }
        }
        let waits = keys.iter().zip(limits).filter_map(|(key, max)| {
            let (count, since) = local.get(key)?;
            (*count >= max).then(|| self.window.saturating_sub(since.elapsed()).max(Duration::from_millis(1)))
        });
        let wait = waits.max().unwrap_or_default();
        if wait.is_zero() {
            for key in keys {
                local.entry(key.clone()).or_insert_with(|| (0, Instant::now())).0 += 1;
            }
        }
        wait
    }
}

/// Hashed: names and addresses of people are not for those who list Redis' keys.
fn key(kind: &str, text: &str) -> String {
    format!("arena:tries:{kind}:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes())))
}
