//! One standby: its pool, and how far it is known to have come.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::sounding::Sounding;
use crate::logic::tide::Tide;
use crate::logic::watermark::{Progress, Proof, STANDING_AGE_MAX, Standing};
use crate::store::{Db, ReadStore};

/// A standby that has not told its position by then is not there.
const POSITION_MAX: Duration = Duration::from_millis(500);

pub struct Standby {
    /// `replica-1`, `replica-2` …
    pub name: Arc<str>,
    pub store: ReadStore,
    seen: Mutex<Option<Seen>>,
    sounding: Sounding<()>,
}

#[derive(Clone, Copy)]
struct Seen {
    progress: Progress,
    asked: Instant,
}

impl Standby {
    pub fn new(number: usize, db: Db) -> Self {
        Self {
            name: format!("replica-{number}").into(),
            store: ReadStore::new(db),
            seen: Mutex::new(None),
            sounding: Sounding::new(),
        }
    }

    /// Asks how far it has come, unless somebody asked at most `age_max` ago.
    pub async fn sound(&self, age_max: Duration) {
        self.sounding.within(age_max, self.ask()).await;
    }

    async fn ask(&self) {
        let asked = Instant::now();
        let answer = timeout(POSITION_MAX, self.store.figures().replayed()).await;
        let replayed = answer.ok().and_then(Result::ok).flatten();
        let mut seen = self.lock();
        let before = seen.map(|seen| seen.progress);
        let progress = replayed.and_then(|replayed| replayed.progress(before));
        let (name, place) = (&self.name, self.store.db().target.address());
        match (seen.is_some(), progress.is_some()) {
            (false, true) => tracing::info!(replica = %name, "{name} ({place}) answers reads"),
            (true, false) => tracing::warn!(
                replica = %name,
                "{name} ({place}) does not answer or is no standby; reads go elsewhere"
            ),
            _ => {}
        }
        *seen = progress.map(|progress| Seen { progress, asked });
    }

    pub fn standing(&self, tide: &Tide) -> Standing {
        match *self.lock() {
            None => Standing::Out,
            Some(Seen { progress, asked }) => Standing::Following {
                replayed: progress.mark,
                age: asked.elapsed(),
                lag: tide.lag(progress.mark.lsn, asked.into_std()),
            },
        }
    }

    /// Whether its word for the timeline of its position is enough.
    pub fn is_proven(&self) -> bool {
        self.lock().is_some_and(|seen| seen.progress.proof == Proof::Receiver)
    }

    /// Left out until it has been seen to answer again.
    pub fn on_failure(&self, cause: &str) {
        tracing::warn!(replica = %self.name, cause, "a read of {} failed and went to the primary: {cause}", self.name);
        *self.lock() = None;
    }

    /// How long it lags, at least; `None` when it does not answer.
    pub fn lag(&self, tide: &Tide) -> Option<Duration> {
        match self.standing(tide) {
            Standing::Following { age, lag, .. } if age <= STANDING_AGE_MAX => Some(lag),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().expect("nobody panics while holding it")
    }
}
