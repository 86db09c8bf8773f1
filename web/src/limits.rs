//! What keeps one client, or one kind of work, from crowding out the rest: rates per client, counted in Redis for all
//! replicas, and bulkheads on this one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chassis::settings::Values;
use http::{HeaderMap, HeaderName, HeaderValue};
use redis::Script;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;
use crate::logic::rate::{Rate, Standing};
use crate::redis_link::RedisLink;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Clients that are counted here while Redis is away; past it, all counts start anew.
const LOCAL_LEN_MAX: usize = 10_000;
/// A count that takes longer is made here: a limit must not be what slows an answer.
const COUNT_MAX: Duration = Duration::from_millis(100);
/// For this long after a failure Redis is not asked: requests would wait for it one after the other.
const AWAY: Duration = Duration::from_secs(1);
/// Who finds a bulkhead full waits this long for a place.
const PLACE_WAIT: Duration = Duration::from_secs(1);
/// Of those who wait, this many per place.
const WAITING_PER_PLACE: usize = 4;

/// GCRA on the clock of Redis, which all replicas share. Times in µs; gives 0, or how long to wait, and how long until
/// the whole burst is there again.
const ADMIT: &str = r"
local step, span = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local next = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + step
if next - now > span then return {next - now - span, next - now - step} end
redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000))
return {0, next - now}
";

/// All limits of one replica; clones share them.
#[derive(Clone)]
pub struct Limits {
    pub api: RateLimit,
    pub bulkheads: Bulkheads,
    /// An admin's analysis of a statement must not crowd out chat: one at a time.
    pub analysis: Arc<Semaphore>,
}

/// Places for each kind of work: none can take those of another.
#[derive(Clone)]
pub struct Bulkheads {
    pub api: Bulkhead,
    pub streams: Bulkhead,
    pub admin: Bulkhead,
    pub sockets_max: usize,
}

/// A rate that each client has, over all replicas.
#[derive(Clone)]
pub struct RateLimit {
    shared: Arc<Counting>,
}

/// One request, counted.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    name: &'static str,
    rate: Rate,
    /// Zero: it may pass.
    wait: Duration,
    standing: Standing,
}

struct Counting {
    name: &'static str,
    /// `None`: no limit.
    rate: Option<Rate>,
    redis: RedisLink,
    admit: Script,
    local: Mutex<Local>,
}

#[derive(Default)]
struct Local {
    full_at: HashMap<String, Instant>,
    /// Redis is not asked before.
    away_until: Option<Instant>,
}

/// A number of places, and a short queue before it.
#[derive(Clone)]
pub struct Bulkhead {
    name: &'static str,
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// A place that is taken; it is free again when this is dropped.
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Limits {
    pub fn new(values: &Values, redis: &RedisLink) -> Self {
        let small = |name| u32::try_from(values.count(name)).unwrap_or(u32::MAX);
        let many = |name| usize::try_from(values.count(name)).unwrap_or(usize::MAX);
        let per_s = small("API_RATE_PER_S");
        let rate = (per_s > 0).then(|| Rate::new(per_s, small("API_RATE_BURST")));
        Self {
            api: RateLimit::new("api", rate, redis.clone()),
            bulkheads: Bulkheads {
                api: Bulkhead::new("API requests", many("API_AT_ONCE_MAX")),
                streams: Bulkhead::new("streams", many("STREAMS_MAX")),
                admin: Bulkhead::new("monitoring requests", many("ADMIN_AT_ONCE_MAX")),
                sockets_max: many("CHAT_CONNECTIONS_MAX"),
            },
            analysis: Arc::new(Semaphore::new(1)),
        }
    }
}

impl RateLimit {
    pub fn new(name: &'static str, rate: Option<Rate>, redis: RedisLink) -> Self {
        let admit = Script::new(ADMIT);
        Self { shared: Arc::new(Counting { name, rate, redis, admit, local: Mutex::default() }) }
    }

    /// Counts one more of `client`; `None` where there is no limit.
    pub async fn count(&self, client: &str) -> Option<Counted> {
        let rate = self.shared.rate?;
        let (wait, whole_in) = match self.shared.ask(rate, client).await {
            Some(told) => told,
            None => self.shared.count_here(rate, client),
        };
        Some(Counted { name: self.shared.name, rate, wait, standing: rate.standing(whole_in) })
    }
}

impl Counted {
    /// # Errors
    /// Too many; when to come back.
    pub fn admit(&self) -> Result<(), Error> {
        if self.wait.is_zero() { Ok(()) } else { Err(Error::too_many(self.wait)) }
    }

    /// The header fields of draft-ietf-httpapi-ratelimit-headers, so that a client can slow down before it is refused.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let seconds = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let (name, burst) = (self.name, self.rate.burst());
        let policy = format!("\"{name}\";q={burst};w={}", seconds(self.rate.span));
        let state = format!("\"{name}\";r={};t={}", self.standing.remaining, seconds(self.standing.whole_in));
        for (field, text) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
            // Names and numbers fit into a header.
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(field, value);
            }
        }
    }
}

impl Counting {
    /// The wait that Redis tells, and the time until the burst is whole; `None` while it is away.
    async fn ask(&self, rate: Rate, client: &str) -> Option<(Duration, Duration)> {
        let now = Instant::now();
        if self.local().away_until.is_some_and(|until| now < until) {
            return None;
        }
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut call = self.admit.key(format!("arena:rate:{}:{client}", self.name));
        call.arg(micros(rate.step)).arg(micros(rate.span));
        let mut connection = self.redis.connection();
        let answer: Result<redis::RedisResult<(u64, u64)>, _> =
            tokio::time::timeout(COUNT_MAX, call.invoke_async(&mut connection)).await;
        let Ok(Ok((wait_us, whole_in_us))) = answer else {
            self.local().away_until = Some(now + AWAY);
            return None;
        };
        Some((Duration::from_micros(wait_us), Duration::from_micros(whole_in_us)))
    }

    fn count_here(&self, rate: Rate, client: &str) -> (Duration, Duration) {
        let now = Instant::now();
        let mut local = self.local();
        if local.full_at.len() >= LOCAL_LEN_MAX {
            local.full_at.clear();
        }
        match rate.admit(local.full_at.get(client).copied(), now) {
            Ok(full_at) => {
                local.full_at.insert(client.to_owned(), full_at);
                (Duration::ZERO, full_at.duration_since(now))
            }
            Err(wait) => (wait, rate.span),
        }
    }

    fn local(&self) -> std::sync::MutexGuard<'_, Local> {
        self.local.lock().expect("nobody panics while holding it")
    }
}

impl Bulkhead {
    pub fn new(name: &'static str, places: usize) -> Self {
        let places = places.min(Semaphore::MAX_PERMITS / (WAITING_PER_PLACE + 1));
        Self {
            name,
            places: Arc::new(Semaphore::new(places)),
            waiting: Arc::new(Semaphore::new(places * WAITING_PER_PLACE)),
        }
    }

    /// Takes a place; waits for one a moment.
    ///
    /// # Errors
    /// All are taken, and so they were all the time.
    pub async fn enter(&self) -> Result<Place, Error> {
        let crowded = || {
            Error::unavailable(format!("this replica has as many {} as it can take; try again", self.name))
        };
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place { _permit: permit });
        }
        let _waits = self.waiting.try_acquire().map_err(|_| crowded())?;
        let turn = tokio::time::timeout(PLACE_WAIT, Arc::clone(&self.places).acquire_owned()).await;
        let permit = turn.map_err(|_| crowded())?.map_err(|_| crowded())?;
        Ok(Place { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_waits_a_moment_and_is_refused() {
        let bulkhead = Bulkhead::new("things", 1);
        let place = bulkhead.enter().await.unwrap();
        assert!(bulkhead.enter().await.is_err_and(|error| error.detail().contains("things")));
        let (waiting, ()) = tokio::join!(bulkhead.enter(), async {
            tokio::time::sleep(PLACE_WAIT / 2).await;
            drop(place);
        });
        assert!(waiting.is_ok(), "a place that comes free is given on");
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_before_a_bulkhead_is_short() {
        let bulkhead = Bulkhead::new("things", 1);
        let _place = bulkhead.enter().await.unwrap();
        let began = tokio::time::Instant::now();
        let crowd = (0..=WAITING_PER_PLACE).map(|_| bulkhead.enter());
        let refused = futures_util::future::select_all(crowd.map(Box::pin)).await.0;
        assert!(refused.is_err());
        assert_eq!(began.elapsed(), Duration::ZERO, "the one too many is refused at once");
    }
}
