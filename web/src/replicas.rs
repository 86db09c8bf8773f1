//! Primary and read replicas: who answers a read, and the token that makes a write visible to its reader.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use chassis::tasks::Tasks;
use futures_util::future::join_all;
use http::header::{COOKIE, HeaderName, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::error::Error;
use crate::logic::watermark::{Answerer, Lsn, STANDING_AGE_MAX, Standing, TokenKeys, Watermark, choose};
use crate::store::{Db, ReadStore};

pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-consistency-token");
pub const READ_FROM_HEADER: HeaderName = HeaderName::from_static("x-read-from");
const TOKEN_COOKIE: &str = "consistency";
/// A standby that lags for longer than this has other troubles; by then the token can go.
const TOKEN_COOKIE_AGE_S: u32 = 3600;
/// Half of the age at which a standing is worth nothing, so that one lost answer is forgiven.
const WATCH_PERIOD: Duration = STANDING_AGE_MAX.checked_div(3).expect("not divided by zero");
/// A replica that has not answered by then is given up for this read.
const REPLICA_ANSWER_MAX: Duration = Duration::from_secs(2);

/// All databases of this replica; clones share them.
#[derive(Clone)]
pub struct Databases {
    shared: Arc<Shared>,
}

struct Shared {
    primary: ReadStore,
    replicas: Vec<Replica>,
    keys: TokenKeys,
    /// The primary's timeline as last seen; 0: not seen yet.
    timeline: AtomicU32,
    turn: AtomicUsize,
}

/// One standby.
pub struct Replica {
    /// `replica-1`, `replica-2` …
    pub name: Arc<str>,
    pub store: ReadStore,
    seen: Mutex<Option<(Lsn, Instant)>>,
}

impl Databases {
    pub fn new(primary: &ReadStore, replicas: Vec<Db>, keys: TokenKeys) -> Self {
        let replicas = replicas.into_iter().enumerate().map(|(index, db)| Replica {
            name: format!("replica-{}", index + 1).into(),
            store: ReadStore::new(db),
            seen: Mutex::new(None),
        });
        Self {
            shared: Arc::new(Shared {
                primary: primary.clone(),
                replicas: replicas.collect(),
                keys,
                timeline: AtomicU32::new(0),
                turn: AtomicUsize::new(0),
            }),
        }
    }

    pub fn replicas(&self) -> &[Replica] {
        &self.shared.replicas
    }

    /// Keeps asking every replica how far it has come, and the primary for its timeline.
    pub fn watch(&self, tasks: &Tasks) {
        if self.shared.replicas.is_empty() {
            return;
        }
        for index in 0..self.shared.replicas.len() {
            let (databases, tasks_too) = (self.clone(), tasks.clone());
            tasks.spawn("replica watch", async move { databases.follow(index, &tasks_too).await });
        }
        let (databases, tasks_too) = (self.clone(), tasks.clone());
        tasks.spawn("timeline watch", async move { databases.follow_timeline(&tasks_too).await });
    }

    /// The token of everything that was committed up to now. `None`: the primary does not answer.
    pub async fn token(&self) -> Option<String> {
        match self.shared.primary.figures().watermark().await {
            Ok(mark) => {
                self.shared.timeline.store(mark.timeline, Ordering::Relaxed);
                Some(self.shared.keys.token(mark))
            }
            Err(cause) => {
                tracing::warn!(%cause, "no consistency token after a write: {cause}");
                None
            }
        }
    }

    /// A read that must see `need`.
    pub fn reading(&self, need: Option<Watermark>) -> Reading {
        let shared = &self.shared;
        let standings: Vec<Standing> = shared.replicas.iter().map(Replica::standing).collect();
        let timeline = Some(shared.timeline.load(Ordering::Relaxed)).filter(|&timeline| timeline > 0);
        let turn = shared.turn.fetch_add(1, Ordering::Relaxed);
        Reading { databases: self.clone(), answerer: choose(need, timeline, &standings, turn) }
    }

    async fn follow(&self, index: usize, tasks: &Tasks) {
        let replica = &self.shared.replicas[index];
        let mut follows = true;
        while pause(tasks).await {
            let asked = Instant::now();
            let answer = timeout(STANDING_AGE_MAX, replica.store.figures().replayed()).await;
            let replayed = answer.ok().and_then(Result::ok).flatten();
            *replica.seen.lock().expect("nobody panics while holding it") = replayed.map(|lsn| (lsn, asked));
            if replayed.is_some() != follows {
                follows = replayed.is_some();
                let (name, place) = (&replica.name, replica.store.db().target.address());
                match follows {
                    true => tracing::info!(replica = %name, "{name} ({place}) answers reads again"),
                    false => tracing::warn!(
                        replica = %name,
                        "{name} ({place}) does not answer or is no standby; reads go elsewhere"
                    ),
                }
            }
        }
    }

    async fn follow_timeline(&self, tasks: &Tasks) {
        while pause(tasks).await {
            let answer = timeout(STANDING_AGE_MAX, self.shared.primary.figures().watermark()).await;
            if let Ok(Ok(mark)) = answer {
                self.shared.timeline.store(mark.timeline, Ordering::Relaxed);
            }
        }
    }

    /// Closes all pools.
    pub async fn close(&self) {
        let shared = &self.shared;
        let all = shared.replicas.iter().map(|replica| &replica.store).chain([&shared.primary]);
        join_all(all.map(|store| store.db().close())).await;
    }

    /// Adds the token of a write that has just been committed to its answer.
    pub async fn stamp(&self, answer: impl IntoResponse) -> Response {
        stamped(answer, self.token().await.as_deref())
    }
}

/// Adds a token that is at hand already.
pub fn stamped(answer: impl IntoResponse, token: Option<&str>) -> Response {
    let mut response = answer.into_response();
    if let Some(token) = token {
        let cookie =
            format!("{TOKEN_COOKIE}={token}; Path=/; Max-Age={TOKEN_COOKIE_AGE_S}; HttpOnly; SameSite=Lax");
        let headers = response.headers_mut();
        headers.insert(TOKEN_HEADER, HeaderValue::from_str(token).expect("base64url is a header value"));
        headers.append(SET_COOKIE, HeaderValue::from_str(&cookie).expect("a cookie is a header value"));
    }
    response
}

/// Whether to go on after a pause; `false` when draining.
async fn pause(tasks: &Tasks) -> bool {
    tokio::select! {
        () = tasks.drain_started() => false,
        () = tokio::time::sleep(WATCH_PERIOD) => true,
    }
}

impl Replica {
    pub fn standing(&self) -> Standing {
        match *self.seen.lock().expect("nobody panics while holding it") {
            None => Standing::Out,
            Some((replayed, at)) => Standing::Following { replayed, age: at.elapsed() },
        }
    }

    /// Left out until the watch has seen it answer again.
    fn on_failure(&self, cause: &str) {
        tracing::warn!(replica = %self.name, cause, "a read of {} failed and went to the primary: {cause}", self.name);
        *self.seen.lock().expect("nobody panics while holding it") = None;
    }

    pub fn is_healthy(&self) -> bool {
        matches!(self.standing(), Standing::Following { age, .. } if age <= STANDING_AGE_MAX)
    }
}

/// The reads of one request: at a replica where one may answer, never at one older than the token that came along.
pub struct Reading {
    databases: Databases,
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
            let replica = &shared.replicas[index];
            match timeout(REPLICA_ANSWER_MAX, question(replica.store.clone())).await {
                Ok(Err(cause)) if cause.is_passing() => replica.on_failure(&cause.to_string()),
                Ok(answer) => return answer,
                Err(_) => replica.on_failure("silence"),
            }
            self.answerer = Answerer::Primary;
        }
        question(shared.primary.clone()).await
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
            Answerer::Replica(index) => &self.databases.shared.replicas[index].name,
        }
    }
}

impl FromRequestParts<App> for Reading {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let keys = &app.databases.shared.keys;
        let need = match carried(&parts.headers) {
            None => None,
            Some(Carried::Header(token)) => Some(keys.read(token).ok_or_else(|| {
                Error::unprocessable(
                    "X-Consistency-Token",
                    "not one of ours; send the one of your last write",
                )
            })?),
            // A cookie outlives the key that signed it; nobody can mend it by hand.
            Some(Carried::Cookie(token)) => keys.read(token),
        };
        let reading = app.databases.reading(need);
        app.metrics.on_read(reading.from());
        Ok(reading)
    }
}

enum Carried<'a> {
    Header(&'a str),
    Cookie(&'a str),
}

fn carried(headers: &HeaderMap) -> Option<Carried<'_>> {
    if let Some(token) = headers.get(TOKEN_HEADER) {
        return Some(Carried::Header(token.to_str().unwrap_or_default()));
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let found = cookies
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(TOKEN_COOKIE)?.strip_prefix('='));
    found.map(Carried::Cookie)
}
