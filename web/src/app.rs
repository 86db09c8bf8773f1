//! Every shared handle of the service, one line each; the only axum state.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRef;
use chassis::tasks::Tasks;
use tokio::sync::{oneshot, watch};

use crate::auth::Auth;
use crate::chat::Chat;
use crate::error::Error;
use crate::fleet::Fleet;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::monitoring::checks::Looks;
use crate::monitoring::console::Console;
use crate::redis_link::RedisLink;
use crate::replicas::Databases;
use crate::settings::Settings;
use crate::store::Store;
use crate::stream::Streams;

/// The state of every handler; a clone is one counter more.
#[derive(Clone)]
pub struct App {
    handles: Arc<Handles>,
}

pub struct Handles {
    /// What the operator set.
    pub settings: Settings,
    /// The name of this replica.
    pub served_by: Arc<str>,
    /// The tables, at the primary.
    pub store: Store,
    /// Primary and read replicas; picks who answers a read.
    pub databases: Databases,
    /// Redis, which may be away.
    pub redis: RedisLink,
    /// Tokens, tickets and passwords.
    pub auth: Auth,
    /// Rooms, members and sockets.
    pub chat: Chat,
    /// Answers that are being made.
    pub streams: Streams,
    /// What keeps clients from crowding each other out.
    pub limits: Limits,
    /// What the other replicas say about themselves.
    pub fleet: Fleet,
    /// What the pooler says about itself.
    pub console: Console,
    /// What the databases said of themselves.
    pub looks: Looks,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Background tasks; they end on drain.
    pub tasks: Tasks,
    /// Starting, serving or draining.
    pub life: Arc<Life>,
}

impl App {
    pub fn new(handles: Handles) -> Self {
        Self { handles: Arc::new(handles) }
    }

    /// Runs `work` to its end though its client may go away meanwhile: what is committed must also be told.
    ///
    /// # Errors
    /// Those of `work`, or it was cut off by the end of this replica.
    pub async fn finish<T, F>(&self, name: &'static str, work: impl FnOnce(Self) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work = work(self.clone());
        self.tasks.spawn(name, async move {
            // Nobody listens any more where the client went away.
            let _ = answer.send(work.await);
        });
        answered.await.unwrap_or_else(|_| {
            Err(match self.tasks.draining() {
                true => Error::unavailable("this replica is going away; ask another one"),
                false => Error::internal(format!("{name} panicked; the log says where")),
            })
        })
    }
}

impl Deref for App {
    type Target = Handles;

    fn deref(&self) -> &Handles {
        &self.handles
    }
}

impl FromRef<App> for Auth {
    fn from_ref(app: &App) -> Self {
        app.auth.clone()
    }
}

/// Where this replica stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The database has not answered yet, or its schema is too old.
    Starting,
    Serving,
    /// No new work, please.
    Draining,
}

/// The phase, readable from everywhere; it only moves forward.
#[derive(Debug)]
pub struct Life {
    phase: watch::Sender<Phase>,
    pub started: Instant,
}

impl Life {
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Starting), started: Instant::now() }
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether this replica should get traffic.
    pub fn is_serving(&self) -> bool {
        self.phase() == Phase::Serving
    }

    pub fn is_draining(&self) -> bool {
        self.phase() == Phase::Draining
    }

    /// Moves on; a draining replica never serves again.
    pub fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let moves = to > *phase;
            *phase = to.max(*phase);
            moves
        });
    }

    /// Returns when it is another phase than this one.
    pub async fn leave(&self, phase: Phase) {
        // The sender lives in `self`.
        let _ = self.phase.subscribe().wait_for(|now| *now != phase).await;
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draining_replica_never_serves_again() {
        let life = Life::new();
        assert_eq!(life.phase(), Phase::Starting);
        life.advance(Phase::Serving);
        assert!(life.is_serving());
        life.advance(Phase::Draining);
        life.advance(Phase::Serving);
        assert!(life.is_draining());
    }
}
