//! Reading the ledger: counts for the console and the metrics.

use std::time::{Duration, Instant};

use super::{ClientId, Ledger, Place, PoolKey, ServerKey};

/// One pool's line of SHOW POOLS.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PoolCounts {
    pub clients: usize,
    pub waiting: usize,
    pub lent: usize,
    pub idle: usize,
    /// Idle for longer than the check delay: asked before they are lent.
    pub used: usize,
    pub testing: usize,
    pub dialing: usize,
    pub active_cancel: usize,
    pub being_canceled: usize,
    pub longest_wait: Duration,
}

/// One server as the ledger sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerView {
    pub server: ServerKey,
    pub pool: PoolKey,
    pub place: Place,
    pub since: Instant,
    pub connected: Instant,
    pub is_used: bool,
    pub is_obsolete: bool,
}

impl Ledger {
    pub fn counts(&self, pool: PoolKey, now: Instant) -> PoolCounts {
        let p = self.pool(pool);
        let used = p.idle.iter().filter(|s| self.is_used(**s, now)).count();
        let fronts = [p.waiting.front(), p.wait_dedicated.front()];
        let oldest = fronts.into_iter().flatten().map(|w| now.saturating_duration_since(w.since)).max();
        PoolCounts {
            clients: p.clients,
            waiting: p.waiting.len() + p.wait_dedicated.len(),
            lent: p.lent,
            idle: p.idle.len() - used,
            used,
            testing: p.testing,
            dialing: p.dialing,
            active_cancel: 0,
            being_canceled: p.parked,
            longest_wait: oldest.unwrap_or_default(),
        }
    }

    /// All connections of a pool, those under way included.
    pub fn count(&self, pool: PoolKey) -> usize {
        let p = self.pool(pool);
        p.idle.len() + p.lent + p.dialing + p.testing + p.parked + p.closing
    }

    /// How many connections the pool may have, without its reserve.
    pub fn size(&self, pool: PoolKey) -> usize {
        self.pool(pool).limits.size
    }

    pub fn servers(&self, now: Instant) -> impl Iterator<Item = ServerView> + '_ {
        self.servers.iter().enumerate().filter_map(move |(slot, book)| {
            let book = book.as_ref()?;
            let server = ServerKey(u32::try_from(slot).expect("servers are counted in u32"));
            Some(ServerView {
                server,
                pool: book.pool,
                place: book.place,
                since: book.since,
                connected: book.connected,
                is_used: book.place == Place::Idle && self.is_used(server, now),
                is_obsolete: book.obsolete,
            })
        })
    }

    /// The server that this client holds.
    pub fn held_by(&self, pool: PoolKey, client: ClientId) -> Option<ServerKey> {
        let held = |b: &super::ServerBook| b.pool == pool && b.place == Place::Lent(client);
        let slot = self.servers.iter().position(|b| b.as_ref().is_some_and(held))?;
        Some(ServerKey(u32::try_from(slot).expect("servers are counted in u32")))
    }

    pub fn place_of(&self, server: ServerKey) -> Option<Place> {
        self.servers.get(server.0 as usize)?.as_ref().map(|b| b.place)
    }

    fn is_used(&self, server: ServerKey, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.book(server).since);
        self.rules.check_after.is_some_and(|limit| age > limit)
    }
}
