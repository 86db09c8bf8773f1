//! Primary and read replicas: who answers a read, and the token that makes a write visible to its reader.

mod sounding;
mod standby;
mod token;

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use chassis::tasks::Tasks;
use futures_util::future::join_all;
use http::HeaderValue;
use http::header::HeaderName;
use http::request::Parts;
use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::error::Error;
use crate::logic::lineage::Lineage;
use crate::logic::tide::Tide;
use crate::logic::watermark::{Answerer, Demand, STANDING_AGE_MAX, Standing, TokenKeys, Watermark, choose};
use crate::settings::Reads;
use crate::store::{Db, ReadStore, Store};

pub(crate) use sounding::Sounding;
pub use standby::Standby;
pub use token::{TOKEN_HEADER, stamped};

pub const READ_FROM_HEADER: HeaderName = HeaderName::from_static("x-read-from");
/// A third of the age at which a standing is worth nothing, so that one lost answer is forgiven.
const WATCH_PERIOD: Duration = STANDING_AGE_MAX.checked_div(3).expect("not divided by zero");
/// A replica that has not answered by then is given up for this read.
const REPLICA_ANSWER_MAX: Duration = Duration::from_secs(2);
/// The primary tells by then where it stands, or this question fails and the next one is asked.
const MARK_MAX: Duration = Duration::from_secs(5);
/// Between two looks at standbys that are about to catch up.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// No failover is over in less: a primary that was seen so short a time ago is still the same.
const FAILOVER_MIN: Duration = Duration::from_millis(50);

/// All databases of this replica; clones share them.
#[derive(Clone)]
pub struct Databases {
    shared: Arc<Shared>,
}

struct Shared {
    primary: Store,
    standbys: Vec<Standby>,
    keys: TokenKeys,
    reads: Reads,
    /// Where the primary stands; `None` when it does not answer.
    mark: Sounding<Option<Watermark>>,
    /// The primary's timeline as last seen; 0: not seen yet.
    timeline: AtomicU32,
    lineage: RwLock<Lineage>,
    tide: Mutex<Tide>,
    turn: AtomicUsize,
}

impl Databases {
    pub fn new(primary: &Store, standbys: Vec<Db>, keys: TokenKeys, reads: Reads) -> Self {
        let standbys = standbys.into_iter().enumerate();
        Self {
            shared: Arc::new(Shared {
                primary: primary.clone(),
                standbys: standbys.map(|(index, db)| Standby::new(index + 1, db)).collect(),
                keys,
                reads,
                mark: Sounding::new(),
                timeline: AtomicU32::new(0),
                lineage: RwLock::default(),
                tide: Mutex::default(),
                turn: AtomicUsize::new(0),
            }),
        }
    }

    pub fn standbys(&self) -> &[Standby] {
        &self.shared.standbys
    }

    /// How long a standby lags, at least; `None` when it does not answer.
    pub fn lag(&self, standby: &Standby) -> Option<Duration> {
        standby.lag(&self.tide())
    }

    /// Keeps asking every standby how far it has come, and the primary where it is.
    pub fn watch(&self, tasks: &Tasks) {
        if self.shared.standbys.is_empty() {
            return;
        }
        for index in 0..self.shared.standbys.len() {
            let (databases, tasks_too) = (self.clone(), tasks.clone());
            tasks.spawn("replica watch", async move {
                while pause(&tasks_too).await {
                    databases.shared.standbys[index].sound(WATCH_PERIOD / 2).await;
                }
            });
        }
        let (databases, tasks_too) = (self.clone(), tasks.clone());
        tasks.spawn("primary watch", async move {
            while pause(&tasks_too).await {
                if let Some(mark) = databases.mark(WATCH_PERIOD / 2).await {
                    databases.learn_timeline(mark).await;
                }
            }
        });
    }

    /// The token of everything that was committed up to now. `None`: the primary does not answer.
    pub async fn token(&self) -> Option<String> {
        let mark = self.mark(Duration::ZERO).await;
        if mark.is_none() {
            tracing::warn!("no consistency token after a write: the primary does not answer");
        }
        mark.map(|mark| self.shared.keys.token(mark))
    }

    /// Adds the token of a write that has just been committed to its answer.
    pub async fn stamp(&self, answer: impl IntoResponse) -> Response {
        stamped(answer, self.token().await.as_deref())
    }

    /// A read that must see `need`. Where no standby is known to have it, those that lag little are given a moment.
    pub async fn reading(&self, need: Option<Watermark>) -> Reading {
        let reads = &self.shared.reads;
        let until = Instant::now() + reads.wait;
        let mut answerer = self.pick(need);
        while answerer == Answerer::Primary && need.is_some() && self.may_come_soon() {
            // The watch's answer is up to a third of a second old: the first look is worth it in any case.
            join_all(self.shared.standbys.iter().map(|standby| standby.sound(Duration::ZERO))).await;
            answerer = self.pick(need);
            if Instant::now() + LOOK_PAUSE > until {
                break;
            }
            if answerer == Answerer::Primary {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        }
        Reading { databases: self.clone(), need, answerer }
    }

    /// Closes all pools.
    pub async fn close(&self) {
        let shared = &self.shared;
        let standbys = shared.standbys.iter().map(|standby| standby.store.db());
        join_all(standbys.chain([shared.primary.db()]).map(Db::close)).await;
    }

    fn pick(&self, need: Option<Watermark>) -> Answerer {
        let shared = &self.shared;
        let standings: Vec<Standing> = {
            let tide = self.tide();
            shared.standbys.iter().map(|standby| standby.standing(&tide)).collect()
        };
        let lineage = shared.lineage.read().expect("nobody panics while holding it");
        let demand = Demand {
            need,
            timeline: Some(shared.timeline.load(Ordering::Relaxed)).filter(|&timeline| timeline > 0),
            lineage: &lineage,
            lag_max: shared.reads.lag_max,
        };
        choose(&demand, &standings, shared.turn.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether a standby lags so little that it may have the state within the time that a read waits.
    fn may_come_soon(&self) -> bool {
        let tide = self.tide();
        let lags = self.shared.standbys.iter().filter_map(|standby| standby.lag(&tide));
        lags.min().is_some_and(|lag| lag <= self.shared.reads.wait + WATCH_PERIOD)
    }

    /// Where the primary stood at most `age_max` ago.
    async fn mark(&self, age_max: Duration) -> Option<Watermark> {
        self.shared.mark.within(age_max, self.ask_mark()).await
    }

    async fn ask_mark(&self) -> Option<Watermark> {
        let asked = Instant::now();
        let answer = timeout(MARK_MAX, self.shared.primary.figures().watermark()).await;
        let mark = match answer.unwrap_or(Err(Error::TimedOut)) {
            Ok(mark) => mark,
            Err(cause) => {
                tracing::debug!(%cause, "the primary does not tell where it stands: {cause}");
                return None;
            }
        };
        self.tide().on_mark(asked.into_std(), mark.lsn);
        self.shared.timeline.store(mark.timeline, Ordering::Relaxed);
        Some(mark)
    }

    /// Enters a timeline that nobody has entered yet, and learns what the others entered.
    async fn learn_timeline(&self, mark: Watermark) {
        if self.lineage().knows(mark.timeline) {
            return;
        }
        let learned = async {
            self.shared.primary.timelines().enter().await?;
            self.shared.primary.figures().lineage().await
        };
        match learned.await {
            Ok(lineage) => *self.shared.lineage.write().expect("nobody panics while holding it") = lineage,
            Err(cause) => tracing::warn!(%cause, "timeline {} could not be entered: {cause}", mark.timeline),
        }
    }

    /// Whether the primary has what a read must see. After a failover it may have lost it.
    async fn confirm(&self, need: Watermark) -> Result<(), Error> {
        // A mark of a moment ago may be older than the write; one that is asked for now is not.
        for age_max in [FAILOVER_MIN, Duration::ZERO] {
            let Some(mark) = self.mark(age_max).await else { break };
            if mark.timeline != need.timeline {
                self.learn_timeline(mark).await;
            }
            if self.lineage().holds(mark, need) {
                return Ok(());
            }
        }
        Err(Error::unavailable(
            "the database cannot show the state of your last write: it does not answer, or another one took over \
             without that write; read without the token to see what there is",
        ))
    }

    fn lineage(&self) -> Lineage {
        self.shared.lineage.read().expect("nobody panics while holding it").clone()
    }

    fn tide(&self) -> MutexGuard<'_, Tide> {
        self.shared.tide.lock().expect("nobody panics while holding it")
    }
}

/// Whether to go on after a pause; `false` when draining.
async fn pause(tasks: &Tasks) -> bool {
    tokio::select! {
        () = tasks.drain_started() => false,
        () = tokio::time::sleep(WATCH_PERIOD) => true,
    }
}

/// The reads of one request: at a replica where one may answer, never at one older than the token that came along.
pub struct Reading {
    databases: Databases,
    need: Option<Watermark>,
    answerer: Answerer,
}

impl Reading {
    /// Asks whoever was chosen. A replica that fails or keeps silent is left out from now on, and the primary is asked:
    /// reading twice changes nothing.
    pub async fn ask<T, F>(&mut self, question: impl Fn(ReadStore) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let shared = &self.databases.shared;
        if let Answerer::Replica(index) = self.answerer {
            let standby = &shared.standbys[index];
            match timeout(REPLICA_ANSWER_MAX, question(standby.store.clone())).await {
                Ok(Err(cause)) if cause.is_passing() => standby.on_failure(&cause.to_string()),
                Ok(answer) if self.need.is_none() || standby.is_proven() => return answer,
                // A failover that the standby has not learnt of yet is one that the primary has.
                Ok(answer) => return self.confirmed(answer).await,
                Err(_) => standby.on_failure("silence"),
            }
            self.answerer = Answerer::Primary;
        }
        let answer = question(shared.primary.as_read().clone()).await;
        // Confirmed after the read: a failover between the two would otherwise go unseen.
        self.confirmed(answer).await
    }

    /// From now on the primary is asked; `true` where it has not been before.
    pub fn turn_to_primary(&mut self) -> bool {
        std::mem::replace(&mut self.answerer, Answerer::Primary) != Answerer::Primary
    }

    async fn confirmed<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        if let Some(need) = self.need {
            self.databases.confirm(need).await?;
        }
        answer
    }

    /// The answer, saying who was asked.
    pub fn answer(&self, answer: impl IntoResponse) -> Response {
        let mut response = answer.into_response();
        let from = HeaderValue::from_str(self.from()).expect("our own names are header values");
        response.headers_mut().insert(READ_FROM_HEADER, from);
        response
    }

    fn from(&self) -> &str {
        match self.answerer {
            Answerer::Primary => "primary",
            Answerer::Replica(index) => &self.databases.shared.standbys[index].name,
        }
    }
}

impl FromRequestParts<App> for Reading {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let need = token::needed(&parts.headers, &app.databases.shared.keys)?;
        let began = Instant::now();
        let reading = app.databases.reading(need).await;
        app.metrics.on_read(reading.from(), need.map(|_| began.elapsed()));
        Ok(reading)
    }
}
