//! Who holds which server connection, who waits for one, in what order and within which limits. No I/O: see pool.rs.

mod adopt;
mod chores;
mod dedicated;
mod group;
mod limit;
#[cfg(test)]
mod tests;
mod upkeep;
mod view;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

pub use group::{Group, GroupKey};
pub use limit::Limit;
pub use upkeep::CloseReason;
pub use view::{PoolCounts, ServerView};

/// A waiter of the releasing worker goes first unless the oldest waiter anywhere has waited this much longer: moving
/// a socket between workers costs a few µs, waiting for nothing costs more.
pub const LOCAL_PREFERENCE_MAX: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey(pub u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKey(pub u32);

pub type ClientId = u64;
pub type WorkerId = u16;

/// What holds for every pool; changed by RELOAD and SET.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub round_robin: bool,
    /// An idle server older than this is asked a question before it is lent; `None` trusts it.
    pub check_after: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    /// No new dial of a pool for so long after one failed.
    pub login_retry: Duration,
    /// Idle servers may be closed to make room for a pool that waits under a database's or user's limit.
    pub reserve_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    pub size: usize,
    pub reserve: usize,
    pub min: usize,
    /// Zero closes a server after its first use, as PgBouncer does.
    pub lifetime: Duration,
    /// A pool with a fixed user keeps its minimum even without clients.
    pub keep_without_clients: bool,
}

/// The answer to a client that needs a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Borrow {
    Lend(ServerKey),
    Wait,
}

/// What became of a server that was given back, dialed or checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Hand {
        client: ClientId,
    },
    Idle,
    /// A cancel request for its last query is still under way: it may not serve anybody until that is over.
    Parked,
    Close(CloseReason),
}

/// Work that the ledger wants done by a talker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chore {
    /// For the pool, or for this client alone.
    Dial {
        server: ServerKey,
        reserve: bool,
        dedicated_to: Option<ClientId>,
    },
    Check {
        server: ServerKey,
    },
    Close {
        server: ServerKey,
        reason: CloseReason,
    },
}

/// Where a connection is. The single state of each server; only `Ledger::place` changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Dialing,
    Idle,
    Testing,
    Lent(ClientId),
    Parked,
    /// Taken out of the pool, about to be gone.
    Closing,
}

#[derive(Debug)]
pub struct Ledger {
    rules: Rules,
    pools: Vec<Pool>,
    databases: Vec<Group>,
    users: Vec<Group>,
    servers: Vec<Option<ServerBook>>,
    free: Vec<u32>,
    free_pools: Vec<PoolKey>,
    /// Pools with waiting clients.
    hungry: BTreeSet<PoolKey>,
    paused: bool,
}

#[derive(Debug)]
struct Pool {
    database: GroupKey,
    user: GroupKey,
    limits: PoolLimits,
    /// Front: idle the longest. Back: used last.
    idle: VecDeque<ServerKey>,
    waiting: VecDeque<Waiter>,
    /// Clients that wait for a connection of their own.
    wait_dedicated: VecDeque<Waiter>,
    /// For which of them the dial under way is.
    dedicated_dial: Option<ClientId>,
    clients: usize,
    dialing: usize,
    testing: usize,
    lent: usize,
    parked: usize,
    closing: usize,
    last_failure: Option<Instant>,
    last_lifetime_close: Option<Instant>,
    unused_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    client: ClientId,
    worker: WorkerId,
    since: Instant,
}

#[derive(Debug)]
struct ServerBook {
    pool: PoolKey,
    worker: WorkerId,
    place: Place,
    since: Instant,
    connected: Instant,
    obsolete: bool,
    is_excused: bool,
    cancels: u32,
    /// Dialed for this client; it serves nobody else.
    dedicated_to: Option<ClientId>,
}

impl Ledger {
    pub fn new(rules: Rules) -> Ledger {
        Ledger {
            rules,
            pools: Vec::new(),
            databases: Vec::new(),
            users: Vec::new(),
            servers: Vec::new(),
            free: Vec::new(),
            free_pools: Vec::new(),
            hungry: BTreeSet::new(),
            paused: false,
        }
    }

    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    pub fn add_pool(&mut self, database: GroupKey, user: GroupKey, limits: PoolLimits) -> PoolKey {
        let pool = Pool {
            database,
            user,
            limits,
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            wait_dedicated: VecDeque::new(),
            dedicated_dial: None,
            clients: 0,
            dialing: 0,
            testing: 0,
            lent: 0,
            parked: 0,
            closing: 0,
            last_failure: None,
            last_lifetime_close: None,
            unused_since: None,
        };
        if let Some(key) = self.free_pools.pop() {
            self.pools[key.0 as usize] = pool;
            return key;
        }
        self.pools.push(pool);
        PoolKey(u32::try_from(self.pools.len() - 1).expect("pools are counted in u32"))
    }

    /// Forgets a pool that has no clients and no servers. False: it still has some.
    pub fn retire(&mut self, pool: PoolKey) -> bool {
        let is_unused = !self.is_used_at_all(pool);
        if is_unused {
            self.free_pools.push(pool);
        }
        is_unused
    }

    /// How long the pool has had no clients and no servers; starts to count at the first call.
    pub fn unused_for(&mut self, pool: PoolKey, now: Instant) -> Option<Duration> {
        let is_used = self.is_used_at_all(pool);
        let p = self.pool_mut(pool);
        if is_used {
            p.unused_since = None;
            return None;
        }
        Some(now.saturating_duration_since(*p.unused_since.get_or_insert(now)))
    }

    fn is_used_at_all(&self, pool: PoolKey) -> bool {
        let p = self.pool(pool);
        self.count(pool) > 0 || p.clients > 0 || p.is_hungry()
    }

    pub fn set_limits(&mut self, pool: PoolKey, limits: PoolLimits) {
        self.pool_mut(pool).limits = limits;
    }

    /// A client of `worker` needs a server now.
    pub fn borrow(&mut self, pool: PoolKey, client: ClientId, worker: WorkerId, now: Instant) -> Borrow {
        if !self.is_paused(pool)
            && self.pool(pool).waiting.is_empty()
            && let Some(server) = self.fresh_idle(pool, worker, now)
        {
            self.place(server, Place::Lent(client), now);
            self.book_mut(server).worker = worker;
            return Borrow::Lend(server);
        }
        self.pool_mut(pool).waiting.push_back(Waiter { client, worker, since: now });
        self.hungry.insert(pool);
        Borrow::Wait
    }

    /// Takes a client out of the queue. False: it is not there, so a server is already on its way to it.
    pub fn stop_waiting(&mut self, pool: PoolKey, client: ClientId) -> bool {
        let p = self.pool_mut(pool);
        let before = p.waiting.len() + p.wait_dedicated.len();
        p.waiting.retain(|w| w.client != client);
        p.wait_dedicated.retain(|w| w.client != client);
        let found = p.waiting.len() + p.wait_dedicated.len() < before;
        self.forget_if_sated(pool);
        found
    }

    /// The lease is over and the connection is clean: nothing owed, unsent or buffered.
    pub fn give_back(&mut self, server: ServerKey, now: Instant) -> Settled {
        debug_assert!(matches!(self.book(server).place, Place::Lent(_)));
        self.settle(server, now)
    }

    /// The lease that ends now does not count as a use: a lifetime of zero lets it live.
    pub fn excuse(&mut self, server: ServerKey) {
        self.book_mut(server).is_excused = true;
    }

    /// A dial or a check went well.
    pub fn ready(&mut self, server: ServerKey, now: Instant) -> Settled {
        debug_assert!(matches!(self.book(server).place, Place::Dialing | Place::Testing));
        if self.book(server).place == Place::Dialing {
            self.book_mut(server).connected = now;
            let pool = self.book(server).pool;
            self.pool_mut(pool).last_failure = None;
        }
        self.settle(server, now)
    }

    /// A dial failed: the slot is free again and the pool rests for `login_retry`. Some: the dial was for this client
    /// alone, which waits no longer; the pool does not suffer for what one client may not do.
    pub fn dial_failed(&mut self, server: ServerKey, now: Instant) -> Option<ClientId> {
        let (pool, dedicated_to) = (self.book(server).pool, self.book(server).dedicated_to);
        match dedicated_to {
            Some(client) => drop(self.stop_waiting(pool, client)),
            None => self.pool_mut(pool).last_failure = Some(now),
        }
        self.remove(server);
        dedicated_to
    }

    /// The connection is gone, whatever place it had.
    pub fn remove(&mut self, server: ServerKey) {
        let Some(book) = self.servers.get_mut(server.0 as usize).and_then(Option::take) else {
            debug_assert!(false, "a server is removed once");
            return;
        };
        let pool = self.pool_mut(book.pool);
        match book.place {
            Place::Dialing => pool.end_dial(),
            Place::Idle => pool.idle.retain(|s| *s != server),
            Place::Testing => pool.testing -= 1,
            Place::Lent(_) => pool.lent -= 1,
            Place::Parked => pool.parked -= 1,
            Place::Closing => pool.closing -= 1,
        }
        let (database, user) = (pool.database, pool.user);
        self.databases[database.0 as usize].servers -= 1;
        self.users[user.0 as usize].servers -= 1;
        self.free.push(server.0);
    }

    /// A cancel request is about to go to this server on behalf of `client`. False: the client does not hold it now.
    pub fn begin_cancel(&mut self, server: ServerKey, client: ClientId) -> bool {
        let Some(book) = self.servers.get_mut(server.0 as usize).and_then(Option::as_mut) else {
            return false;
        };
        if book.place != Place::Lent(client) {
            return false;
        }
        book.cancels += 1;
        true
    }

    /// The cancel connection was closed by Postgres. Some: the server was parked for it and is settled now.
    pub fn end_cancel(&mut self, server: ServerKey, now: Instant) -> Option<Settled> {
        let book = self.servers.get_mut(server.0 as usize)?.as_mut()?;
        book.cancels = book.cancels.saturating_sub(1);
        if book.cancels > 0 || book.place != Place::Parked {
            return None;
        }
        Some(self.settle(server, now))
    }

    /// Pools whose clients wait, in key order.
    pub fn hungry(&self) -> impl Iterator<Item = PoolKey> + '_ {
        self.hungry.iter().copied()
    }

    /// Clients that wait and cannot hope for a server: the last dial failed, and the pool has none that may serve them
    /// once it comes back.
    pub fn is_hopeless(&self, pool: PoolKey) -> bool {
        let serves = |b: &ServerBook| {
            let may_come_back = !matches!(b.place, Place::Dialing | Place::Closing);
            b.pool == pool && may_come_back && !b.obsolete && b.dedicated_to.is_none()
        };
        self.pool(pool).last_failure.is_some() && !self.servers.iter().flatten().any(serves)
    }

    /// Empties the queue of a pool whose clients are to be told of a failure.
    pub fn take_waiters(&mut self, pool: PoolKey) -> Vec<ClientId> {
        let taken = self.pool_mut(pool).waiting.drain(..).map(|w| w.client).collect();
        self.forget_if_sated(pool);
        taken
    }

    /// Takes an idle server out of the pool for good; `remove` follows.
    pub fn start_closing(&mut self, server: ServerKey, now: Instant) {
        self.place(server, Place::Closing, now);
    }

    /// A server that moved with its socket to another worker.
    pub fn moved(&mut self, server: ServerKey, worker: WorkerId) {
        self.book_mut(server).worker = worker;
    }

    fn settle(&mut self, server: ServerKey, now: Instant) -> Settled {
        let book = self.book(server);
        let pool = book.pool;
        if let Some(client) = book.dedicated_to {
            return self.settle_dedicated(server, client, now);
        }
        if book.cancels > 0 {
            self.place(server, Place::Parked, now);
            return Settled::Parked;
        }
        if let Some(reason) = self.must_close(server, now) {
            return Settled::Close(reason);
        }
        if self.owes_room(pool, now) {
            return Settled::Close(CloseReason::Evicted);
        }
        let Some(waiter) = self.next_waiter(pool, self.book(server).worker) else {
            self.place(server, Place::Idle, now);
            return Settled::Idle;
        };
        self.place(server, Place::Lent(waiter.client), now);
        self.book_mut(server).worker = waiter.worker;
        Settled::Hand { client: waiter.client }
    }

    /// The oldest waiter of this worker, unless the oldest of all has waited so much longer that a move is due.
    fn next_waiter(&mut self, pool: PoolKey, worker: WorkerId) -> Option<Waiter> {
        let waiting = &mut self.pool_mut(pool).waiting;
        let oldest = waiting.front()?;
        let local = waiting
            .iter()
            .position(|w| w.worker == worker)
            .filter(|i| waiting[*i].since.saturating_duration_since(oldest.since) <= LOCAL_PREFERENCE_MAX);
        let waiter = waiting.remove(local.unwrap_or(0));
        self.forget_if_sated(pool);
        waiter
    }

    /// An idle server that may be lent without asking it first.
    fn fresh_idle(&self, pool: PoolKey, worker: WorkerId, now: Instant) -> Option<ServerKey> {
        let server = self.pick_idle(pool, Some(worker))?;
        match self.rules.check_after {
            Some(age) if now.saturating_duration_since(self.book(server).since) > age => None,
            _ => Some(server),
        }
    }

    /// LIFO: a warm backend has its plans and caches at hand. With round robin the one that rested longest.
    pub(super) fn pick_idle(&self, pool: PoolKey, worker: Option<WorkerId>) -> Option<ServerKey> {
        let idle = &self.pool(pool).idle;
        if self.rules.round_robin {
            return idle.front().copied();
        }
        let local = |s: &&ServerKey| worker.is_some_and(|w| self.book(**s).worker == w);
        idle.iter().rev().find(local).or_else(|| idle.back()).copied()
    }

    /// The one mover: takes a server out of its place and into another.
    fn place(&mut self, server: ServerKey, to: Place, now: Instant) {
        let book = self.book_mut(server);
        let (pool, from) = (book.pool, book.place);
        book.place = to;
        book.since = now;
        let p = self.pool_mut(pool);
        match from {
            Place::Dialing => p.end_dial(),
            Place::Testing => p.testing -= 1,
            Place::Lent(_) => p.lent -= 1,
            Place::Parked => p.parked -= 1,
            Place::Closing => p.closing -= 1,
            Place::Idle if p.idle.back() == Some(&server) => drop(p.idle.pop_back()),
            Place::Idle => p.idle.retain(|s| *s != server),
        }
        match to {
            Place::Dialing => p.dialing += 1,
            Place::Testing => p.testing += 1,
            Place::Lent(_) => p.lent += 1,
            Place::Parked => p.parked += 1,
            Place::Closing => p.closing += 1,
            Place::Idle => p.idle.push_back(server),
        }
    }

    fn forget_if_sated(&mut self, pool: PoolKey) {
        if !self.pool(pool).is_hungry() {
            self.hungry.remove(&pool);
        }
    }

    fn pool(&self, pool: PoolKey) -> &Pool {
        &self.pools[pool.0 as usize]
    }

    fn pool_mut(&mut self, pool: PoolKey) -> &mut Pool {
        &mut self.pools[pool.0 as usize]
    }

    fn book(&self, server: ServerKey) -> &ServerBook {
        self.servers[server.0 as usize]
            .as_ref()
            .expect("a server key is used only while the server is in the ledger")
    }

    fn book_mut(&mut self, server: ServerKey) -> &mut ServerBook {
        self.servers[server.0 as usize]
            .as_mut()
            .expect("a server key is used only while the server is in the ledger")
    }
}

impl Pool {
    fn is_hungry(&self) -> bool {
        !self.waiting.is_empty() || !self.wait_dedicated.is_empty()
    }

    fn end_dial(&mut self) {
        self.dialing -= 1;
        self.dedicated_dial = None;
    }
}
