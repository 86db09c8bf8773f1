//! Logins that were ended while access tokens of theirs may still be about. Replicas tell each other at once, over Redis;
//! what is lost on the way, each reads there within a second, and in the database within seconds.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, RwLock};
use std::time::Duration;

use chassis::tasks::Tasks;
use tokio::time::Instant;
use uuid::Uuid;

use super::{ACCESS_LIFETIME, now_s, seconds};
use crate::redis_link::RedisLink;
use crate::store::Store;

const KEY: &str = "arena:revoked";
/// Where a login that has ended is told: its id and the time of its end.
pub const CHANNEL: &str = "arena:ended";
const PERIOD: Duration = Duration::from_secs(1);
/// While Redis answers, the database is only asked for ends that nobody told: whoever was to tell was killed.
const DATABASE_PERIOD: Duration = Duration::from_secs(5);
/// An end may be seen this much later than the time it bears: clocks differ, and a commit may have been tried again.
const COMMIT_MAX: Duration = Duration::from_secs(120);
/// A token that was made a moment before the end is dead by itself after its lifetime; the minute is for clocks that differ.
pub const KEEP: Duration = ACCESS_LIFETIME.saturating_add(Duration::from_secs(60));

/// The set, as this replica knows it: each login with the time of its end, in seconds since 1970.
pub struct Revoked {
    redis: RedisLink,
    /// Redis did not answer the last time.
    is_alone: AtomicBool,
    logins: RwLock<HashMap<Uuid, i64>>,
    listener: OnceLock<Listener>,
}

/// Takes in logins that this replica has just learnt to have ended.
type Listener = Box<dyn Fn(&[Uuid]) + Send + Sync>;

impl Revoked {
    pub fn new(redis: RedisLink) -> Self {
        Self { redis, is_alone: AtomicBool::new(false), logins: RwLock::default(), listener: OnceLock::new() }
    }

    /// Names who is told of every login that ends, once and after [`Revoked::contains`] says so. The first one counts.
    pub fn tell_of_ends(&self, listener: impl Fn(&[Uuid]) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    pub fn contains(&self, login: Uuid) -> bool {
        self.logins.read().expect("nobody panics while holding it").contains_key(&login)
    }

    /// Ends the access tokens of these logins: here at once, elsewhere with the next message, or when the database was read.
    pub async fn add(&self, logins: &[Uuid]) {
        let ended: Vec<(Uuid, i64)> = logins.iter().map(|&login| (login, now_s())).collect();
        self.remember(&ended);
        if let Err(cause) = self.tell(&ended).await {
            tracing::warn!(%cause, "other replicas learn of an ended login from the database alone: {cause}");
        }
    }

    /// Takes in what this replica did, what another one said, or what the database knows, which outlives them all.
    pub fn remember(&self, ended: &[(Uuid, i64)]) {
        let news: Vec<Uuid> = {
            let mut logins = self.logins.write().expect("nobody panics while holding it");
            let is_new = |&&(login, since): &&(Uuid, i64)| logins.insert(login, since).is_none();
            ended.iter().filter(is_new).map(|&(login, _)| login).collect()
        };
        if let Some(listener) = self.listener.get().filter(|_| !news.is_empty()) {
            listener(&news);
        }
    }

    /// Takes in what another replica said on [`CHANNEL`].
    pub fn on_told(&self, text: &str) {
        let told =
            text.split_once(' ').and_then(|(login, since)| Some((login.parse().ok()?, since.parse().ok()?)));
        if let Some(ended) = told {
            self.remember(&[ended]);
        }
    }

    /// Keeps up with what the other replicas ended, and tells them what Redis does not know or has forgotten.
    pub async fn follow(&self, tasks: &Tasks) {
        loop {
            tokio::select! {
                () = tasks.drain_started() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            let known = self.ask().await;
            self.is_alone.store(known.is_err(), Ordering::Relaxed);
            let Ok(known) = known else { continue };
            let untold = self.merge(&known);
            if self.tell(&untold).await.is_err() {
                tracing::debug!("ended logins are told again later");
            }
        }
    }

    /// Keeps up with what the database knows: now and then, and every second while Redis is away.
    pub async fn follow_database(&self, store: &Store, tasks: &Tasks) {
        let mut read_at: Option<Instant> = None;
        loop {
            tokio::select! {
                () = tasks.drain_started() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            let (now, age) = (Instant::now(), read_at.map(|at| at.elapsed()));
            if age.is_some_and(|age| age < DATABASE_PERIOD) && !self.is_alone.load(Ordering::Relaxed) {
                continue;
            }
            let unread = age.map_or(KEEP, |age| KEEP.min(age + COMMIT_MAX));
            match store.logins().ended_within(unread).await {
                Ok(ended) => {
                    self.remember(&ended);
                    read_at = Some(now);
                }
                Err(cause) => tracing::debug!(%cause, "ended logins are read again later: {cause}"),
            }
            self.forget();
        }
    }

    /// Drops those whose tokens are dead by themselves.
    fn forget(&self) {
        let oldest = now_s() - seconds(KEEP);
        self.logins.write().expect("nobody panics while holding it").retain(|_, since| *since >= oldest);
    }

    /// Takes in what Redis knows; gives what it does not.
    fn merge(&self, known: &[(Uuid, i64)]) -> Vec<(Uuid, i64)> {
        let in_redis: HashSet<Uuid> = known.iter().map(|&(login, _)| login).collect();
        self.remember(known);
        self.forget();
        let logins = self.logins.read().expect("nobody panics while holding it");
        logins
            .iter()
            .filter(|(login, _)| !in_redis.contains(login))
            .map(|(&login, &since)| (login, since))
            .collect()
    }

    async fn ask(&self) -> redis::RedisResult<Vec<(Uuid, i64)>> {
        let mut pipeline = redis::pipe();
        pipeline.zrembyscore(KEY, 0, now_s() - seconds(KEEP)).ignore().zrange_withscores(KEY, 0, -1);
        let (rows,): (Vec<(String, i64)>,) = self.redis.ask(&pipeline).await?;
        Ok(rows.iter().filter_map(|(text, since)| Some((text.parse().ok()?, *since))).collect())
    }

    async fn tell(&self, logins: &[(Uuid, i64)]) -> redis::RedisResult<()> {
        if logins.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for (login, since) in logins {
            pipeline.zadd(KEY, login.to_string(), since).ignore();
            pipeline.publish(CHANNEL, format!("{login} {since}")).ignore();
        }
        self.redis.ask(&pipeline).await
    }
}
