//! A connection on loan. Giving it back takes no longer than an answer may: a database that says nothing keeps no place of
//! the pool.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::Breaks;

/// A connection that is given back has at least this long to answer.
const RETURN_MIN: Duration = Duration::from_secs(2);

/// It goes back when it is dropped.
pub struct Lease {
    connection: PoolConnection<Postgres>,
    breaks: Arc<Breaks>,
    taken: Instant,
    /// By then what was asked has been answered, or never will be.
    until: Option<Instant>,
}

impl Lease {
    pub(super) fn new(
        connection: PoolConnection<Postgres>,
        breaks: Arc<Breaks>,
        answer_max: Option<Duration>,
    ) -> Self {
        let taken = Instant::now();
        Self { connection, breaks, taken, until: answer_max.map(|max| taken + max) }
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.breaks.since_last().is_some_and(|since| self.taken.elapsed() >= since) {
            // It may be the one that broke, and else would be replaced before its next use.
            self.connection.close_on_drop();
            return;
        }
        // What goes wrong then is logged for whoever had it.
        let returned = self.connection.return_to_pool().in_current_span();
        let Some(until) = self.until else {
            tokio::spawn(returned);
            return;
        };
        // The pool asks whether it still lives, without a limit of its own; whoever is not waited for is closed.
        let until = until.max(Instant::now() + RETURN_MIN);
        tokio::spawn(tokio::time::timeout_at(until, returned));
    }
}
