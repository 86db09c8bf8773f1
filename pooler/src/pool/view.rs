//! Looking at the pools: for the console, the metrics and cancel requests.

use std::sync::Arc;
use std::time::Instant;

use super::{PoolInfo, Pools};
use crate::house::House;
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

/// A server that a cancel request is on its way to.
pub struct UnderCancel {
    house: Arc<House>,
    server: ServerKey,
    id: u64,
}

impl Drop for UnderCancel {
    fn drop(&mut self) {
        self.house.pools.end_cancel(&self.house, self.server, self.id);
    }
}

impl super::State {
    /// Keys are used again, ids are not.
    fn is_server(&self, key: ServerKey, id: u64) -> bool {
        self.infos.get(key.0 as usize).and_then(Option::as_ref).is_some_and(|info| info.id == id)
    }
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

    /// The server that this client holds. None: none now.
    pub fn held_by(&self, pool: PoolKey, client: u64) -> Option<(ServerKey, Arc<ServerInfo>)> {
        let state = self.lock();
        let server = state.ledger.held_by(pool, client)?;
        Some((server, state.infos.get(server.0 as usize)?.clone()?))
    }

    /// How many connections for cancel requests fit: with those of the pool twice its size.
    pub fn cancel_room(&self, pool: PoolKey) -> usize {
        let state = self.lock();
        (2 * state.ledger.size(pool)).saturating_sub(state.ledger.count(pool))
    }

    /// Marks a server as under cancel, as long as the guard lives. None: the client holds it no more.
    pub fn begin_cancel(
        &self,
        house: &Arc<House>,
        server: ServerKey,
        id: u64,
        client: u64,
    ) -> Option<UnderCancel> {
        let mut state = self.lock();
        let is_same = state.is_server(server, id) && state.ledger.begin_cancel(server, client);
        is_same.then(|| UnderCancel { house: house.clone(), server, id })
    }

    /// The cancel request is over: a server that was parked for it serves again.
    fn end_cancel(&self, house: &Arc<House>, key: ServerKey, id: u64) {
        let mut state = self.lock();
        if !state.is_server(key, id) {
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
