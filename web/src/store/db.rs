//! One database: its pool of connections, how they are opened, and how long callers wait for one and for its answer.

mod lease;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{Connection as _, PgPool};
use tokio::time::Instant;

use crate::error::breaks_off;
use crate::logic::database_url::Target;
use crate::logic::retry::Retry;
use crate::settings::Database as Limits;

pub use lease::Lease;

/// A connection that was idle for longer is asked whether it still lives before it is used.
/// Short, because a pooler that died leaves a dead connection in each place of the pool.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);
/// A connection that has not answered that question by then is dead.
const PING_MAX: Duration = Duration::from_secs(2);
/// What a unit of work may take beyond the time after which Postgres itself ends a statement: who is silent for longer
/// is gone, though nobody said so.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);
/// Closing waits for dials under way; to a database that is gone those last as long as the pool's timeout.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// How many of the last waits the percentiles are made of.
const WAITS_KEPT: usize = 1024;

/// A handle on the pool; clones share it.
#[derive(Clone)]
pub struct Db {
    pool: PgPool,
    waits: Arc<Waits>,
    breaks: Arc<Breaks>,
    /// How long a caller waits for a connection, retries included.
    patience: Duration,
    /// How long a unit of work may take; `None` where Postgres has no limit either.
    answer_max: Option<Duration>,
    pub target: Arc<Target>,
}

/// When a connection last broke: those opened before are dead too, or lead to a server that is gone.
#[derive(Default)]
struct Breaks {
    last: Mutex<Option<Instant>>,
}

/// What the pool looks like at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoolFigures {
    pub size: u32,
    pub idle: u32,
    pub in_use: u32,
    pub max: u32,
    pub waiting: usize,
    pub acquire_p50: Duration,
    pub acquire_p99: Duration,
}

struct Waits {
    waiting: AtomicUsize,
    last: Mutex<Ring>,
    histogram: Histogram,
}

struct Ring {
    micros: Vec<u32>,
    next: usize,
}

impl Db {
    /// Makes the pool; the first connection is opened by whoever needs it first.
    pub fn open(target: &Target, limits: &Limits, application: &str, histogram: Histogram) -> Self {
        let breaks = Arc::new(Breaks::default());
        let seen = Arc::clone(&breaks);
        let pool = PgPoolOptions::new()
            .min_connections(limits.pool_min)
            .max_connections(limits.pool_max)
            // Opening one is part of acquiring it: who waits longer than that begins anew, see `connection`.
            .acquire_timeout(limits.pool_timeout.min(limits.connect_timeout))
            .max_lifetime(limits.conn_max_age)
            .idle_timeout(limits.conn_max_age)
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let seen = Arc::clone(&seen);
                let outlived = seen.since_last().is_some_and(|since| meta.age > since);
                Box::pin(async move {
                    if !outlived && meta.idle_for > PING_AFTER_IDLE {
                        tokio::time::timeout(PING_MAX, connection.ping()).await.map_err(|_| {
                            seen.note();
                            silence()
                        })??;
                    }
                    Ok(!outlived)
                })
            })
            .connect_lazy_with(connect_options(target, limits, application));
        let last = Mutex::new(Ring { micros: Vec::with_capacity(WAITS_KEPT), next: 0 });
        let waits = Arc::new(Waits { waiting: AtomicUsize::new(0), last, histogram });
        let statement_max = Some(limits.statement_timeout).filter(|max| !max.is_zero());
        Self {
            pool,
            waits,
            breaks,
            patience: limits.pool_timeout,
            answer_max: statement_max.map(|max| max + ANSWER_MARGIN),
            target: Arc::new(target.clone()),
        }
    }

    /// Runs one unit of work on a connection of its own, and again where its connection broke or the database refused
    /// for the moment: so the unit must come to the same when it runs after a first run that was committed.
    ///
    /// # Errors
    /// What the last run came to, or no connection was to be had in time.
    pub async fn run<T, F>(&self, unit: impl Fn(Lease) -> F) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        let mut retry = Retry::new(self.patience);
        let began = Instant::now();
        loop {
            let done = match self.connection().await {
                Ok(lease) => self.answered(unit(lease)).await,
                Err(refused) => Err(refused),
            };
            let Err(cause) = done else { return done };
            if breaks_off(&cause) {
                self.breaks.note();
            }
            let Some(pause) = retry.next_pause(passes(&cause), began.elapsed()) else { return Err(cause) };
            tracing::debug!(%cause, "a unit of work runs again in {pause:?}: {cause}");
            tokio::time::sleep(pause).await;
        }
    }

    /// What a unit comes to; silence counts as a connection that broke, and what became of the unit is not known.
    async fn answered<T>(
        &self,
        unit: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let Some(answer_max) = self.answer_max else { return unit.await };
        tokio::pin!(unit);
        match tokio::time::timeout(answer_max, unit.as_mut()).await {
            Ok(done) => done,
            Err(_) => {
                // Before the unit is dropped, so that its connection does not go back.
                self.breaks.note();
                Err(silence())
            }
        }
    }

    /// A connection of the pool.
    async fn connection(&self) -> Result<Lease, sqlx::Error> {
        let asked = Instant::now();
        let _counted = Waiting::begin(&self.waits.waiting);
        loop {
            match self.pool.acquire().await {
                // The dial took too long, or all are in use: somebody else's turn may bring a better one.
                Err(sqlx::Error::PoolTimedOut) if asked.elapsed() < self.patience => {}
                Ok(connection) => {
                    self.waits.on_wait(asked.elapsed());
                    return Ok(Lease::new(connection, Arc::clone(&self.breaks), self.answer_max));
                }
                Err(cause) => return Err(cause),
            }
        }
    }

    pub fn figures(&self) -> PoolFigures {
        let size = self.pool.size();
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX).min(size);
        let (acquire_p50, acquire_p99) = self.waits.percentiles();
        PoolFigures {
            size,
            idle,
            in_use: size - idle,
            max: self.pool.options().get_max_connections(),
            waiting: self.waits.waiting.load(Ordering::Relaxed),
            acquire_p50,
            acquire_p99,
        }
    }

    /// Closes all connections; those in use when they come back, but no later than [`CLOSE_MAX`].
    pub async fn close(&self) {
        if tokio::time::timeout(CLOSE_MAX, self.pool.close()).await.is_err() {
            let place = self.target.address();
            tracing::warn!(database = %place, "connections to {place} did not end in time and are dropped");
        }
    }
}

impl Breaks {
    fn note(&self) {
        *self.last.lock().expect("nobody panics while holding it") = Some(Instant::now());
    }

    fn since_last(&self) -> Option<Duration> {
        self.last.lock().expect("nobody panics while holding it").map(|last| last.elapsed())
    }
}

/// The error of a connection over which no answer comes.
fn silence() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database keeps silent"))
}

/// Whether the same unit may succeed a moment later. Waiting again for a full pool would double its time limit.
fn passes(cause: &sqlx::Error) -> bool {
    crate::error::is_passing(cause) && !matches!(cause, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)
}

/// How to reach `target`; nothing is taken from the process environment but defaults that are overwritten here.
pub fn connect_options(target: &Target, limits: &Limits, application: &str) -> PgConnectOptions {
    let statement_timeout = limits.statement_timeout.as_millis().to_string();
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&target.host)
        .port(target.port)
        .database(&target.name)
        .username(&target.user)
        .password(&target.password)
        .ssl_mode(ssl_mode(target.options.sslmode.as_deref()))
        .application_name(application)
        .options([("statement_timeout", statement_timeout.as_str())]);
    if let Some(schema) = &target.options.schema {
        options = options.options([("search_path", schema.as_str())]);
    }
    options
}

fn ssl_mode(word: Option<&str>) -> PgSslMode {
    word.and_then(|word| word.parse().ok()).unwrap_or(PgSslMode::Prefer)
}

/// Counts a waiting caller for as long as it waits, given up or not.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waits {
    fn on_wait(&self, wait: Duration) {
        self.histogram.observe(wait.as_secs_f64());
        let micros = u32::try_from(wait.as_micros()).unwrap_or(u32::MAX);
        let mut ring = self.last.lock().expect("nobody panics while holding the ring");
        let next = ring.next;
        if ring.micros.len() < WAITS_KEPT {
            ring.micros.push(micros);
        } else {
            ring.micros[next] = micros;
        }
        ring.next = (next + 1) % WAITS_KEPT;
    }

    fn percentiles(&self) -> (Duration, Duration) {
        let mut sorted = self.last.lock().expect("nobody panics while holding the ring").micros.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            Duration::from_micros(sorted.get(index).copied().unwrap_or(0).into())
        };
        (at(50), at(99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_last_waits() {
        let last = Mutex::new(Ring { micros: Vec::new(), next: 0 });
        let waits = Waits { waiting: AtomicUsize::new(0), last, histogram: Histogram::new([1.0]) };
        assert_eq!(waits.percentiles(), (Duration::ZERO, Duration::ZERO));
        for micros in 0..2000u64 {
            waits.on_wait(Duration::from_micros(micros));
        }
        let (p50, p99) = waits.percentiles();
        assert_eq!(p50, Duration::from_micros(976 + 512));
        assert!(p99 > Duration::from_micros(1980));
    }
}
