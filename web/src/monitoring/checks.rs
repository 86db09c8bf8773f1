//! One look at the databases and at Redis, with a limit on how long it may take. Anybody may have them looked at, so those
//! who ask at about the same time share a look.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::error::Error;
use crate::replicas::Sounding;
use crate::store::ReadStore;
use crate::store::figures::ConnectionFigures;

/// A database that does not answer by then is not healthy.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Nobody asks a database more often.
const LOOK_AGE_MAX: Duration = Duration::from_millis(500);

/// The last look at each database.
pub struct Looks {
    primary: Sounding<Option<Checked>>,
    standbys: Vec<Sounding<Option<Checked>>>,
}

impl Looks {
    pub fn new(standbys: usize) -> Self {
        Self { primary: Sounding::new(), standbys: (0..standbys).map(|_| Sounding::new()).collect() }
    }
}

/// What a database answered.
#[derive(Debug, Clone, Copy)]
pub struct Checked {
    pub figures: ConnectionFigures,
    pub took: Duration,
}

/// What the primary answered, at most half a second ago. `None`: it did not answer in time.
pub async fn primary(app: &App) -> Option<Checked> {
    app.looks.primary.within(LOOK_AGE_MAX, look(app.store.as_read())).await
}

/// The same of a read replica.
pub async fn standby(app: &App, index: usize) -> Option<Checked> {
    let store = &app.databases.standbys()[index].store;
    app.looks.standbys[index].within(LOOK_AGE_MAX, look(store)).await
}

/// Asks a database for its connections; that shows it to be alive too.
async fn look(store: &ReadStore) -> Option<Checked> {
    let asked = Instant::now();
    let answer = timeout(ANSWER_MAX, store.figures().connections()).await;
    let figures = answer.unwrap_or_else(|_| Err(Error::TimedOut)).ok()?;
    Some(Checked { figures, took: asked.elapsed() })
}

/// Whether Redis answers, and how fast.
pub async fn redis(app: &App) -> Option<Duration> {
    let took = app.redis.ping().await.ok();
    app.metrics.redis_up.set(i64::from(took.is_some()));
    took
}

/// Milliseconds with three digits behind the point.
pub fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// The name of read replica `index` of `count` in JSON.
pub fn replica_key(index: usize, count: usize) -> String {
    match count {
        1 => "read_replica".to_owned(),
        _ => format!("read_replica_{}", index + 1),
    }
}
