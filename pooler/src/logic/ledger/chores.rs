//! What the ledger wants done: dials, checks, evictions, each within the limits.

use std::time::Instant;

use super::{Chore, ClientId, CloseReason, Ledger, Place, Pool, PoolKey, ServerBook, ServerKey};

impl Ledger {
    /// The next piece of work for this pool, until `None`. Call after anything that could make room or need.
    pub fn next_chore(&mut self, pool: PoolKey, now: Instant) -> Option<Chore> {
        if self.is_paused(pool) {
            return None;
        }
        let p = self.pool(pool);
        let dialing = p.dialing - usize::from(p.dedicated_dial.is_some());
        let needed = p.waiting.len() > p.testing + dialing;
        if needed && let Some(server) = self.pick_idle(pool, None) {
            self.place(server, Place::Testing, now);
            return Some(Chore::Check { server });
        }
        // One dial at a time and pool: a burst of clients must not become a burst of logins.
        let p = self.pool(pool);
        if p.dialing > 0 || self.rests_after_failure(pool, now) {
            return None;
        }
        let oldest = p.waiting.front().map(|w| w.since);
        if let Some(waiter) = self.next_dedicated(pool)
            && oldest.is_none_or(|since| !needed || waiter.since <= since)
        {
            return self.dedicated_chore(pool, waiter, now);
        }
        let below_min = self.count(pool) < p.limits.min.min(p.limits.size)
            && (p.clients > 0 || p.limits.keep_without_clients);
        if !needed && !below_min {
            return None;
        }
        let reserve = self.room_in_pool(pool, oldest, now)?;
        self.dial_or_evict(NewDial { pool, reserve, dedicated_to: None }, needed, now)
    }

    /// A dial where the limits of database and user leave room for it, or the closing of an idle server that makes some.
    pub(super) fn dial_or_evict(&mut self, dial: NewDial, may_evict: bool, now: Instant) -> Option<Chore> {
        let NewDial { pool, reserve, dedicated_to } = dial;
        match self.room_in_groups(pool, may_evict) {
            Room::Yes => {
                let server = self.start_dial(pool, dedicated_to, now);
                Some(Chore::Dial { server, reserve, dedicated_to })
            }
            Room::AfterClosing(server) => Some(self.evict(server, now)),
            Room::No => None,
        }
    }

    pub(super) fn evict(&mut self, server: ServerKey, now: Instant) -> Chore {
        self.place(server, Place::Closing, now);
        Chore::Close { server, reason: CloseReason::Evicted }
    }

    /// One more connection may be dialed now, without closing another.
    pub(super) fn has_room(&self, pool: PoolKey, since: Instant, now: Instant) -> bool {
        self.room_in_pool(pool, Some(since), now).is_some()
            && matches!(self.room_in_groups(pool, false), Room::Yes)
    }

    /// A dial for nobody, to learn whether the server is back.
    pub fn retry_dial(&mut self, pool: PoolKey, now: Instant) -> Option<ServerKey> {
        let rests =
            self.is_paused(pool) || self.pool(pool).dialing > 0 || self.rests_after_failure(pool, now);
        if rests || self.room_in_pool(pool, None, now) != Some(false) {
            return None;
        }
        matches!(self.room_in_groups(pool, false), Room::Yes).then(|| self.start_dial(pool, None, now))
    }

    /// Some(whether from the reserve) when the pool's own size allows one more for somebody who waits since then.
    pub(super) fn room_in_pool(&self, pool: PoolKey, since: Option<Instant>, now: Instant) -> Option<bool> {
        let (p, count) = (self.pool(pool), self.count(pool));
        if count < p.limits.size {
            return Some(false);
        }
        let waited = now.saturating_duration_since(since?);
        (count < p.limits.size + p.limits.reserve && waited >= self.rules.reserve_after).then_some(true)
    }

    fn room_in_groups(&self, pool: PoolKey, may_evict: bool) -> Room {
        let p = self.pool(pool);
        let (database, user) = (p.database, p.user);
        let full_database = self.databases[database.0 as usize].is_full();
        let full_user = self.users[user.0 as usize].is_full();
        if !full_database && !full_user {
            return Room::Yes;
        }
        let victim = may_evict.then(|| {
            self.oldest_idle(|p| {
                (!full_database || p.database == database) && (full_database || p.user == user)
            })
        });
        victim.flatten().map_or(Room::No, Room::AfterClosing)
    }

    fn oldest_idle(&self, fits: impl Fn(&Pool) -> bool) -> Option<ServerKey> {
        let fronts = self.pools.iter().filter(|p| fits(p)).filter_map(|p| p.idle.front());
        fronts.min_by_key(|s| self.book(**s).since).copied()
    }

    pub(super) fn start_dial(
        &mut self,
        pool: PoolKey,
        dedicated_to: Option<ClientId>,
        now: Instant,
    ) -> ServerKey {
        let book = ServerBook {
            pool,
            worker: 0,
            place: Place::Dialing,
            since: now,
            connected: now,
            obsolete: false,
            is_excused: false,
            cancels: 0,
            dedicated_to,
        };
        let key = match self.free.pop() {
            Some(slot) => {
                self.servers[slot as usize] = Some(book);
                ServerKey(slot)
            }
            None => {
                self.servers.push(Some(book));
                ServerKey(u32::try_from(self.servers.len() - 1).expect("servers are counted in u32"))
            }
        };
        let p = self.pool_mut(pool);
        p.dialing += 1;
        p.dedicated_dial = dedicated_to;
        let (database, user) = (p.database, p.user);
        self.databases[database.0 as usize].servers += 1;
        self.users[user.0 as usize].servers += 1;
        key
    }

    fn rests_after_failure(&self, pool: PoolKey, now: Instant) -> bool {
        let last = self.pool(pool).last_failure;
        last.is_some_and(|at| now.saturating_duration_since(at) < self.rules.login_retry)
    }
}

/// A dial that the pool's own size allows.
pub(super) struct NewDial {
    pub pool: PoolKey,
    pub reserve: bool,
    pub dedicated_to: Option<ClientId>,
}

enum Room {
    Yes,
    AfterClosing(ServerKey),
    No,
}
