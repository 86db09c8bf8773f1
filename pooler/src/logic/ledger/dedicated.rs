//! Connections dialed for one client alone and closed after it: replication. They count in the pool like any other.

use std::time::Instant;

use super::chores::NewDial;
use super::{Chore, ClientId, CloseReason, Ledger, Place, PoolKey, ServerKey, Settled, Waiter, WorkerId};

impl Ledger {
    /// A client of `worker` needs a connection of its own.
    pub fn borrow_dedicated(&mut self, pool: PoolKey, client: ClientId, worker: WorkerId, now: Instant) {
        self.pool_mut(pool).wait_dedicated.push_back(Waiter { client, worker, since: now });
        self.hungry.insert(pool);
    }

    /// Lent servers that are marked to be closed, with their clients: all of them, or those that serve one client only
    /// and so come back by themselves perhaps never.
    pub fn obsolete_lent(&self, dedicated_only: bool) -> Vec<(ClientId, WorkerId)> {
        let marked = self.servers.iter().flatten().filter(|b| b.obsolete);
        let fits = marked.filter(|b| b.dedicated_to.is_some() || !dedicated_only);
        let client = |b: &super::ServerBook| match b.place {
            Place::Lent(client) => Some((client, b.worker)),
            _ => None,
        };
        fits.filter_map(client).collect()
    }

    /// The dial or the eviction that this waiter needs.
    pub(super) fn dedicated_chore(&mut self, pool: PoolKey, waiter: Waiter, now: Instant) -> Option<Chore> {
        let Some(reserve) = self.room_in_pool(pool, Some(waiter.since), now) else {
            let server = self.pool(pool).idle.front().copied()?;
            return Some(self.evict(server, now));
        };
        self.dial_or_evict(NewDial { pool, reserve, dedicated_to: Some(waiter.client) }, true, now)
    }

    /// The oldest client that waits for a connection of its own and for which no dial is under way.
    pub(super) fn next_dedicated(&self, pool: PoolKey) -> Option<Waiter> {
        let p = self.pool(pool);
        p.wait_dedicated.iter().find(|w| p.dedicated_dial != Some(w.client)).copied()
    }

    /// A server that comes back has to make room: handing it on for ever would leave the one who needs a connection of
    /// its own without any.
    pub(super) fn owes_room(&self, pool: PoolKey, now: Instant) -> bool {
        let Some(waiter) = self.next_dedicated(pool) else { return false };
        let is_oldest = self.pool(pool).waiting.front().is_none_or(|w| waiter.since <= w.since);
        is_oldest && !self.has_room(pool, waiter.since, now)
    }

    /// Dialed, it goes to its client, if that still waits; used once, it is over.
    pub(super) fn settle_dedicated(&mut self, server: ServerKey, client: ClientId, now: Instant) -> Settled {
        let (pool, place) = (self.book(server).pool, self.book(server).place);
        let over = Settled::Close(CloseReason::DedicatedOver);
        if place != Place::Dialing {
            return over;
        }
        if let Some(reason) = self.must_close(server, now) {
            // The client waits on, for another dial.
            return Settled::Close(reason);
        }
        let waiting = &mut self.pool_mut(pool).wait_dedicated;
        let Some(at) = waiting.iter().position(|w| w.client == client) else { return over };
        let worker = waiting.remove(at).map_or(0, |w| w.worker);
        self.forget_if_sated(pool);
        self.place(server, Place::Lent(client), now);
        self.book_mut(server).worker = worker;
        Settled::Hand { client }
    }
}
