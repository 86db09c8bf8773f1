//! Ages, pauses and marks: which servers are to be closed, and when.

use std::time::{Duration, Instant};

use super::{GroupKey, Ledger, Place, PoolKey, ServerKey};

/// Why a server is closed; the wording is PgBouncer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    Evicted,
    Paused,
    /// Another process serves now.
    Moved,
    Obsolete,
    IdleTooLong,
    LifetimeOver,
    TooMany,
    PoolIdle,
    DedicatedOver,
}

impl CloseReason {
    pub fn text(self) -> &'static str {
        match self {
            CloseReason::Evicted => "evicted",
            CloseReason::Paused => "pause mode",
            CloseReason::Moved => "another process has taken over",
            CloseReason::Obsolete => "database configuration changed",
            CloseReason::IdleTooLong => "server idle timeout",
            CloseReason::LifetimeOver => "server lifetime over",
            CloseReason::TooMany => "too many servers in the pool",
            CloseReason::PoolIdle => "pool idle timeout",
            CloseReason::DedicatedOver => "replication client was closed",
        }
    }
}

impl Ledger {
    /// Idle servers that are to be closed now. The caller closes each and then calls `remove`.
    pub fn expired(&mut self, now: Instant) -> Vec<(ServerKey, CloseReason)> {
        let mut out = Vec::new();
        for index in 0..self.pools.len() {
            let pool = PoolKey(u32::try_from(index).expect("pools are counted in u32"));
            self.expired_in(pool, now, &mut out);
        }
        out
    }

    /// Stops lending: in one database or everywhere. Returns the idle servers, which are to be closed.
    pub fn pause(&mut self, database: Option<GroupKey>) -> Vec<ServerKey> {
        self.set_paused(database, true);
        self.idle_of(database)
    }

    pub fn all_idle(&self) -> Vec<ServerKey> {
        self.idle_of(None)
    }

    pub fn resume(&mut self, database: Option<GroupKey>) {
        self.set_paused(database, false);
    }

    pub fn has_paused_database(&self) -> bool {
        self.databases.iter().any(|d| d.paused)
    }

    pub fn is_paused(&self, pool: PoolKey) -> bool {
        self.paused || self.databases[self.pool(pool).database.0 as usize].paused
    }

    pub fn is_all_paused(&self) -> bool {
        self.paused
    }

    pub fn is_database_paused(&self, database: GroupKey) -> bool {
        self.databases[database.0 as usize].paused
    }

    /// Nothing is lent, dialing, tested or parked: PAUSE is complete.
    pub fn is_quiet(&self, database: Option<GroupKey>) -> bool {
        let busy = |p: &super::Pool| p.lent + p.dialing + p.testing + p.parked + p.closing > 0;
        !self.pools.iter().any(|p| database.is_none_or(|d| p.database == d) && busy(p))
    }

    /// Marks all servers to be closed as soon as nobody uses them. Returns the idle ones.
    pub fn make_obsolete(&mut self, fits: impl Fn(PoolKey) -> bool) -> Vec<ServerKey> {
        let mut idle = Vec::new();
        for (slot, book) in self.servers.iter_mut().enumerate() {
            let Some(book) = book.as_mut().filter(|b| fits(b.pool)) else { continue };
            book.obsolete = true;
            if book.place == Place::Idle {
                idle.push(ServerKey(u32::try_from(slot).expect("servers are counted in u32")));
            }
        }
        idle
    }

    /// WAIT_CLOSE: servers marked by RECONNECT that are still there.
    pub fn has_obsolete(&self, database: Option<GroupKey>) -> bool {
        let fits = |p: PoolKey| database.is_none_or(|d| self.pool(p).database == d);
        self.servers.iter().flatten().any(|b| b.obsolete && fits(b.pool))
    }

    pub fn is_obsolete(&self, server: ServerKey) -> bool {
        self.servers.get(server.0 as usize).and_then(Option::as_ref).is_none_or(|b| b.obsolete)
    }

    pub fn database_of(&self, pool: PoolKey) -> GroupKey {
        self.pool(pool).database
    }

    /// Why a server that comes back may not stay.
    pub(super) fn must_close(&mut self, server: ServerKey, now: Instant) -> Option<CloseReason> {
        let book = self.book(server);
        let unused = book.place == Place::Dialing || book.is_excused;
        let (pool, obsolete) = (book.pool, book.obsolete);
        self.book_mut(server).is_excused = false;
        if obsolete {
            return Some(CloseReason::Obsolete);
        }
        if self.is_paused(pool) {
            return Some(CloseReason::Paused);
        }
        if !unused && self.is_lifetime_over(server, now) {
            self.pool_mut(pool).last_lifetime_close = Some(now);
            return Some(CloseReason::LifetimeOver);
        }
        None
    }

    /// One server per `lifetime / size`, so that a pool opened at once is not closed at once.
    fn is_lifetime_over(&self, server: ServerKey, now: Instant) -> bool {
        let book = self.book(server);
        let p = self.pool(book.pool);
        if now.saturating_duration_since(book.connected) < p.limits.lifetime {
            return false;
        }
        let gap = p.limits.lifetime / u32::try_from(p.limits.size.max(1)).unwrap_or(u32::MAX);
        p.last_lifetime_close.is_none_or(|at| now.saturating_duration_since(at) >= gap)
    }

    fn expired_in(&mut self, pool: PoolKey, now: Instant, out: &mut Vec<(ServerKey, CloseReason)>) {
        let p = self.pool(pool);
        let (count, limits) = (self.count(pool), p.limits);
        let surplus = count.saturating_sub(limits.size + limits.reserve);
        let spare = count.saturating_sub(limits.min);
        let idle: Vec<ServerKey> = p.idle.iter().copied().collect();
        let (mut too_many, mut too_old) = (surplus, spare);
        for server in idle {
            let age = now.saturating_duration_since(self.book(server).since);
            let idle_too_long =
                self.rules.idle_timeout.is_some_and(|limit| age > limit && limit > Duration::ZERO);
            let reason = if too_many > 0 {
                too_many -= 1;
                CloseReason::TooMany
            } else if idle_too_long && too_old > 0 {
                CloseReason::IdleTooLong
            } else if self.is_lifetime_over(server, now) {
                self.pool_mut(pool).last_lifetime_close = Some(now);
                CloseReason::LifetimeOver
            } else {
                continue;
            };
            too_old = too_old.saturating_sub(1);
            self.start_closing(server, now);
            out.push((server, reason));
        }
    }

    fn set_paused(&mut self, database: Option<GroupKey>, paused: bool) {
        match database {
            Some(d) => self.databases[d.0 as usize].paused = paused,
            None => self.paused = paused,
        }
    }

    fn idle_of(&self, database: Option<GroupKey>) -> Vec<ServerKey> {
        let fits = |p: &&super::Pool| database.is_none_or(|d| p.database == d);
        self.pools.iter().filter(fits).flat_map(|p| p.idle.iter().copied()).collect()
    }
}
