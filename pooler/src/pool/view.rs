//! Looking at the pools: for the console, the metrics and cancel requests.

use std::sync::Arc;
use std::time::Instant;

use super::{PoolInfo, Pools};
use crate::logic::ledger::{Place, PoolCounts, PoolKey, ServerKey};
use crate::server::ServerInfo;

/// One pool as it is now.
pub struct PoolView {
    pub info: Arc<PoolInfo>,
    pub counts: PoolCounts,
}

/// One server as it is now.
pub struct ServerView {
    pub info: Arc<ServerInfo>,
    pub pool: Arc<PoolInfo>,
    pub place: Place,
    pub since: Instant,
    pub is_used: bool,
    pub close_needed: bool,
}

impl Pools {
    pub fn view(&self) -> Vec<PoolView> {
        let now = Instant::now();
        let state = self.lock();
        let view = |info: &Arc<PoolInfo>| PoolView {
            info: info.clone(),
            counts: state.ledger.counts(info.key, now),
        };
        state.pools.iter().flatten().map(view).collect()
    }

    pub fn servers(&self) -> Vec<ServerView> {
        let state = self.lock();
        let view = |v: crate::logic::ledger::ServerView| {
            Some(ServerView {
                info: state.infos.get(v.server.0 as usize)?.clone()?,
                pool: state.info(v.pool),
                place: v.place,
                since: v.since,
                is_used: v.is_used,
                close_needed: v.is_obsolete,
            })
        };
        state.ledger.servers(Instant::now()).filter_map(view).collect()
    }

    /// Marks the server that this client holds as under cancel. None: it holds none now.
    pub fn begin_cancel(&self, pool: PoolKey, client: u64) -> Option<(ServerKey, Arc<ServerInfo>)> {
        let mut state = self.lock();
        let server = state.ledger.held_by(pool, client)?;
        let info = state.infos.get(server.0 as usize)?.clone()?;
        state.ledger.begin_cancel(server, client).then_some((server, info))
    }

    /// The cancel request is over: a server that was parked for it serves again.
    pub fn end_cancel(&self, house: &Arc<crate::house::House>, key: ServerKey, id: u64) {
        let mut state = self.lock();
        let is_same = state.infos.get(key.0 as usize).and_then(Option::as_ref).is_some_and(|i| i.id == id);
        if !is_same {
            return;
        }
        let Some(settled) = state.ledger.end_cancel(key, Instant::now()) else { return };
        let server = state.take_from_shelf(key);
        let closed = state.carry_out(settled, server);
        drop(state);
        if let Some((server, reason)) = closed {
            self.close(house, server, reason.text());
        }
    }

    /// No server is in anybody's hands.
    pub fn is_quiet(&self) -> bool {
        self.lock().ledger.is_quiet(None)
    }

    pub fn has_database(&self, database: &str) -> bool {
        self.lock().by_name.keys().any(|(name, _)| name == database)
    }

    pub fn join(&self, pool: PoolKey) {
        self.lock().ledger.join(pool);
    }

    pub fn leave(&self, pool: PoolKey) {
        self.lock().ledger.leave(pool);
    }

    /// Connections and clients of one database over all users.
    pub fn database_counts(&self, database: &str) -> (usize, usize) {
        let state = self.lock();
        let group = state.databases.get(database).map(|g| state.ledger.database_group(*g));
        group.map_or((0, 0), |g| (g.servers, g.clients))
    }

    /// Connections and clients of one user over all databases.
    pub fn user_counts(&self, user: &str) -> (usize, usize) {
        let state = self.lock();
        let group = state.users.get(user).map(|g| state.ledger.user_group(*g));
        group.map_or((0, 0), |g| (g.servers, g.clients))
    }
}
