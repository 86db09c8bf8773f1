//! How many failed logins a name and an address may have; for a name those under way count too. Counted in Redis for all
//! replicas; by this one alone while Redis is away.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
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
    count: Script,
    tries_max: u64,
    tries_address_max: u64,
    window: Duration,
}

/// A try that counts as a failure of its name until it is taken back: many at once cannot all pass before the first has
/// failed. For its address, which many people may share who log in at the same moment, it counts once it has failed.
#[must_use = "how it ended decides what stays counted"]
pub struct Try {
    name: String,
    address: String,
    counted: Counted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    InRedis,
    Here,
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
    if redis.call('INCR', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
    return 0";

const COUNT: &str = "if redis.call('INCR', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end";

/// A count that has ended meanwhile is not begun anew below zero.
const TAKE_BACK: &str =
    "if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then redis.call('DECR', KEYS[1]) end";

impl LoginLimit {
    pub fn new(settings: &settings::Auth, redis: RedisLink) -> Self {
        Self {
            redis,
            local: Mutex::default(),
            begin: Script::new(BEGIN),
            count: Script::new(COUNT),
            tries_max: settings.tries_max,
            tries_address_max: settings.tries_address_max,
            window: settings.tries_window,
        }
    }

    /// Counts a try before it is made.
    ///
    /// # Errors
    /// This name has too many that failed or are under way, or this address too many that failed; when to come back.
    pub async fn begin(&self, username: &str, address: &str) -> Result<Try, Error> {
        let (name, address) = (key("name", username), key("address", address));
        let mut connection = self.redis.connection();
        let mut asked = self.begin.key(&name);
        asked.key(&address).arg(self.window_ms()).arg(self.tries_max).arg(self.tries_address_max);
        let (wait, counted) = match asked.invoke_async::<u64>(&mut connection).await {
            Ok(wait_ms) => (Duration::from_millis(wait_ms), Counted::InRedis),
            Err(_) => (self.begin_here(&name, &address), Counted::Here),
        };
        match wait.is_zero() {
            true => Ok(Try { name, address, counted }),
            false => Err(Error::too_many(wait.max(Duration::from_secs(1)))),
        }
    }

    /// A try that failed stays counted.
    pub async fn on_failure(&self, tried: Try) {
        let mut connection = self.redis.connection();
        let mut counting = self.count.key(&tried.address);
        let counted: redis::RedisResult<()> =
            counting.arg(self.window_ms()).invoke_async(&mut connection).await;
        if counted.is_err() {
            self.count_here(&mut self.local(), &tried.address);
        }
    }

    /// A try that succeeded was none, and clears the count of its name.
    pub async fn on_success(&self, tried: Try) {
        self.local().remove(&tried.name);
        let mut pipeline = redis::pipe();
        pipeline.del(&tried.name).ignore();
        self.tell(&pipeline).await;
    }

    /// A try that came to nothing because of us is no failure of whoever tried.
    pub async fn on_undecided(&self, tried: Try) {
        match tried.counted {
            Counted::Here => {
                if let Some((count, _)) = self.local().get_mut(&tried.name) {
                    *count = count.saturating_sub(1);
                }
            }
            Counted::InRedis => {
                let mut pipeline = redis::pipe();
                pipeline.cmd("EVAL").arg(TAKE_BACK).arg(1).arg(&tried.name).ignore();
                self.tell(&pipeline).await;
            }
        }
    }

    async fn tell(&self, pipeline: &redis::Pipeline) {
        if let Err(cause) = self.redis.ask::<()>(pipeline).await {
            tracing::debug!(%cause, "a count of failed logins stays until its window ends: {cause}");
        }
    }

    fn window_ms(&self) -> u64 {
        u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn local(&self) -> MutexGuard<'_, HashMap<String, (u64, Instant)>> {
        self.local.lock().expect("nobody panics while holding it")
    }

    fn begin_here(&self, name: &str, address: &str) -> Duration {
        let mut local = self.local();
        let waits = [(name, self.tries_max), (address, self.tries_address_max)].into_iter().filter_map(
            |(key, max)| {
                let (count, since) = local.get(key)?;
                let left = self.window.saturating_sub(since.elapsed());
                (*count >= max).then_some(left)
            },
        );
        let wait = waits.max().unwrap_or_default();
        if wait.is_zero() {
            self.count_here(&mut local, name);
        }
        wait
    }

    fn count_here(&self, local: &mut HashMap<String, (u64, Instant)>, key: &str) {
        if local.len() >= LOCAL_LEN_MAX {
            local.clear();
        }
        let entry = local.entry(key.to_owned()).or_insert_with(|| (0, Instant::now()));
        if entry.1.elapsed() >= self.window {
            *entry = (0, Instant::now());
        }
        entry.0 += 1;
    }
}

/// Hashed: names and addresses of people are not for those who list Redis' keys. The braces keep them in one slot of a
/// Redis Cluster, as the script that counts a try asks for two of them.
fn key(kind: &str, text: &str) -> String {
    format!("{{arena:tries}}:{kind}:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes())))
}
