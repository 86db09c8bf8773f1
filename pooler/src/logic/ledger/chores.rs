//! What the ledger wants done: dials, checks, evictions, each within the limits.

use std::time::Instant;

use super::{Chore, CloseReason, Ledger, Place, Pool, PoolKey, ServerBook, ServerKey};

impl Ledger {
    /// The next piece of work for this pool, until `None`. Call after anything that could make room or need.
    pub fn next_chore(&mut self, pool: PoolKey, now: Instant) -> Option<Chore> {
        if self.is_paused(pool) {
            return None;
        }
        let p = self.pool(pool);
        let needed = p.waiting.len() > p.testing + p.dialing;
        if needed && let Some(server) = self.pick_idle(pool, None) {
            self.place(server, Place::Testing, now);
            return Some(Chore::Check { server });
        }
        let below_min = self.count(pool) < p.limits.min.min(p.limits.size)
            && (p.clients > 0 || p.limits.keep_without_clients);
        // One dial at a time and pool: a burst of clients must not become a burst of logins.
        if (!needed && !below_min) || p.dialing > 0 || self.rests_after_failure(pool, now) {
            return None;
        }
        let reserve = self.room_in_pool(pool, now)?;
        match self.room_in_groups(pool, needed) {
            Room::Yes => Some(Chore::Dial { server: self.start_dial(pool, now), reserve }),
            Room::AfterClosing(server) => {
                self.place(server, Place::Closing, now);
                Some(Chore::Close { server, reason: CloseReason::Evicted })
            }
            Room::No => None,
        }
    }

    /// A dial for nobody, to learn whether the server is back.
    pub fn retry_dial(&mut self, pool: PoolKey, now: Instant) -> Option<ServerKey> {
        let rests =
            self.is_paused(pool) || self.pool(pool).dialing > 0 || self.rests_after_failure(pool, now);
        if rests || self.room_in_pool(pool, now) != Some(false) {
            return None;
        }
        matches!(self.room_in_groups(pool, false), Room::Yes).then(|| self.start_dial(pool, now))
    }

    /// Some(whether from the reserve) when the pool's own size allows one more.
    fn room_in_pool(&self, pool: PoolKey, now: Instant) -> Option<bool> {
        let (p, count) = (self.pool(pool), self.count(pool));
        if count < p.limits.size {
            return Some(false);
        }
        let waited = now.saturating_duration_since(p.waiting.front()?.since);
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

    fn start_dial(&mut self, pool: PoolKey, now: Instant) -> ServerKey {
        let book = ServerBook {
            pool,
            worker: 0,
            place: Place::Dialing,
            since: now,
            connected: now,
            obsolete: false,
            is_excused: false,
            cancels: 0,
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

enum Room {
    Yes,
    AfterClosing(ServerKey),
    No,
}
