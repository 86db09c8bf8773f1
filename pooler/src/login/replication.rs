//! Replication clients: each gets a server connection of its own, dialed with what it asked for at its start.

use std::sync::Arc;
use std::time::Instant;

use pgwire::sqlstate;
use pgwire::startup::{Replication, Startup};

use super::{Asked, LoginAttempt};
use crate::clients::Doing;
use crate::error::End;
use crate::pool::{Borrower, Lease, PoolInfo, ReplicationStart};

/// The kind of connection that the startup message asks for.
pub(super) fn asked(startup: &Startup) -> Result<Replication, End> {
    let text = startup.get("replication").unwrap_or("no");
    Replication::parse(text).ok_or_else(|| {
        let text = format!("invalid value for parameter \"replication\": \"{text}\"");
        End::client(sqlstate::INVALID_PARAMETER_VALUE, text)
    })
}

impl LoginAttempt<'_> {
    /// The connection that serves this client alone. Waited for here, not at the first query: what Postgres says to
    /// its startup message is this client's greeting.
    pub(super) async fn dedicated(&self, pool: &Arc<PoolInfo>, asked: &Asked) -> Result<Lease, End> {
        let (house, entry, now) = (&self.worker.house, self.entry, Instant::now());
        let by = Borrower { client: entry.id, worker: self.worker.id, now, is_patient: true };
        let start =
            ReplicationStart { replication: asked.replication, parameters: asked.wanted.for_startup() };
        let mut waiting = house.pools.borrow_dedicated(house, pool, by, start);
        entry.set_doing(Doing::Waiting, now);
        std::future::poll_fn(|cx| waiting.poll(cx)).await
    }
}
