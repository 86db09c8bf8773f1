//! Connections for one client alone: replication.

use std::sync::Arc;

use pgwire::startup::Replication;
use tokio::sync::oneshot;

use super::{Borrower, Lease, PoolInfo, Pools, Waiting};
use crate::house::House;

/// What a replication client asked for at its start. All of it goes into the startup message of its own connection: a
/// physical one takes no SET later.
pub struct ReplicationStart {
    pub replication: Replication,
    /// Tracked and kept parameters, and `options` as they came.
    pub parameters: Vec<(String, String)>,
}

impl Pools {
    /// A place in the queue for a connection that is dialed for this client and closed after it.
    pub fn borrow_dedicated(
        &self,
        house: &Arc<House>,
        info: &PoolInfo,
        by: Borrower,
        start: ReplicationStart,
    ) -> Waiting {
        let Borrower { client, worker, now, .. } = by;
        let (sender, grant) = oneshot::channel();
        let mut state = self.lock();
        state.ledger.borrow_dedicated(info.key, client, worker, now);
        state.waiting.insert(client, sender);
        state.replications.insert(client, Arc::new(start));
        drop(state);
        self.run_chores(house, info.key, worker);
        Waiting { house: house.clone(), pool: info.key, client, worker, grant, is_over: false }
    }
}

impl Lease {
    /// Made for this client; it goes to nobody else.
    pub fn is_dedicated(&self) -> bool {
        self.info().replication != Replication::None
    }
}
