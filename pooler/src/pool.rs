//! Borrowing and giving back servers: one short lock around the ledger, shared by all workers so that limits are exact.
//! The lock is never held across an await, a system call or a log line.

mod chores;
mod dedicated;
mod moving;
mod orders;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::error::End;
use crate::house::House;
use crate::logic::ledger::{
    Borrow, CloseReason, GroupKey, Ledger, PoolKey, PoolLimits, Rules, ServerKey, Settled, WorkerId,
};
use crate::logic::parameters::{self, Parameters};
use crate::server::{Server, ServerInfo};
use crate::settings::{Database, LoadBalanceHosts, Settings};
use crate::stats::DatabaseStats;

pub use dedicated::ReplicationStart;
pub use moving::Bringer;
pub use view::{PoolView, ServerView};

/// What a waiting client gets: a server, or why there will be none.
pub type Grant = Result<Box<Server>, End>;

/// All pools of the process. On cache lines of its own: every transaction takes this lock twice, and what lies beside it in
/// the house is read by all workers in each poll.
#[repr(align(128))]
pub struct Pools {
    state: Mutex<State>,
}

/// What is known of one pool beside its place in the ledger. Never changes; a RELOAD that changes it makes a new one.
pub struct PoolInfo {
    pub key: PoolKey,
    pub database: Arc<Database>,
    /// The user of the clients, or the forced one.
    pub user: String,
    pub is_forced_user: bool,
    pub stats: Arc<DatabaseStats>,
    learned: Mutex<Learned>,
}

/// What its servers and clients taught us.
#[derive(Default)]
struct Learned {
    /// ParameterStatus as the last login gave them: what a client is welcomed with.
    welcome: Option<Arc<Welcome>>,
    /// Why the last login failed.
    failure: Option<Failure>,
    /// How to log in as this user: what the client's own login has proved.
    credential: Option<Credential>,
    next_host: usize,
}

/// What a server said about itself at login.
#[derive(Debug)]
pub struct Welcome {
    /// All ParameterStatus messages, in order.
    pub statuses: Vec<(String, String)>,
    /// The tracked ones among them.
    pub parameters: Arc<Parameters>,
}

/// A login to Postgres that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    pub sqlstate: String,
    pub text: String,
    pub at: Instant,
    /// Postgres itself refused; else it could not be reached, or is not ready yet.
    pub is_refusal: bool,
}

/// What proves to Postgres who we are.
#[derive(Clone)]
pub enum Credential {
    /// A password, or a stored form of one.
    Stored(crate::settings::Secret),
    /// Of a client's own SCRAM exchange.
    ScramKeys(pgwire::auth::scram::Keys),
}

struct State {
    ledger: Ledger,
    /// By pool key; None where a pool has been retired.
    pools: Vec<Option<Arc<PoolInfo>>>,
    by_name: HashMap<(String, String), PoolKey>,
    databases: HashMap<String, GroupKey>,
    users: HashMap<String, GroupKey>,
    /// By server key: connections that nobody holds, idle or parked.
    shelf: Vec<Option<Box<Server>>>,
    /// By server key: facts about each connection, wherever it is.
    infos: Vec<Option<Arc<ServerInfo>>>,
    waiting: HashMap<u64, oneshot::Sender<Grant>>,
    /// How to log in for clients that wait for a connection of their own.
    replications: HashMap<u64, Arc<ReplicationStart>>,
    disabled: std::collections::HashSet<String>,
}

/// A server in a client's hands. Dropping it closes the connection: forgetting is safe.
pub struct Lease {
    house: Arc<House>,
    server: Option<Box<Server>>,
    /// Why it is closed when it is.
    reason: &'static str,
}

/// Who asks for a server.
#[derive(Clone, Copy)]
pub struct Borrower {
    pub client: u64,
    pub worker: WorkerId,
    pub now: Instant,
    /// Waits for a pool whose logins fail, too: a client that is logging in itself, and can wait for nothing else.
    pub is_patient: bool,
}

/// The answer to `Pools::borrow`.
pub enum Borrowed {
    Now(Lease),
    Later(Waiting),
}

/// A place in the queue. Dropping it leaves the queue.
pub struct Waiting {
    house: Arc<House>,
    pool: PoolKey,
    client: u64,
    worker: WorkerId,
    grant: oneshot::Receiver<Grant>,
    is_over: bool,
}

impl Pools {
    pub fn new(settings: &Settings) -> Pools {
        let state = State {
            ledger: Ledger::new(rules(settings)),
            pools: Vec::new(),
            by_name: HashMap::new(),
            databases: HashMap::new(),
            users: HashMap::new(),
            shelf: Vec::new(),
            infos: Vec::new(),
            waiting: HashMap::new(),
            replications: HashMap::new(),
            disabled: std::collections::HashSet::new(),
        };
        Pools { state: Mutex::new(state) }
    }

    /// The pool of a database and a user; made when it is not there.
    pub fn pool(&self, house: &House, database: &Arc<Database>, user: &str) -> Arc<PoolInfo> {
        let settings = house.settings();
        let mut state = self.lock();
        let name = (database.name.clone(), user.to_string());
        if let Some(key) = state.by_name.get(&name) {
            return state.info(*key);
        }
        let database_limit = settings.max_db_connections(database) as usize;
        let user_limit = settings.max_user_connections(user) as usize;
        let database_group = state.enter_database(&name.0, database_limit);
        let State { ledger, users, .. } = &mut *state;
        let user_group = *users.entry(name.1.clone()).or_insert_with(|| ledger.add_user(user_limit));
        let key = ledger.add_pool(database_group, user_group, limits(&settings, database, user));
        let info = Arc::new(PoolInfo {
            key,
            database: database.clone(),
            user: user.to_string(),
            is_forced_user: database.user.is_some(),
            stats: house.stats.database(&database.name),
            learned: Mutex::default(),
        });
        let slot = key.0 as usize;
        if state.pools.len() <= slot {
            state.pools.resize_with(slot + 1, || None);
        }
        state.pools[slot] = Some(info.clone());
        state.by_name.insert(name, key);
        info
    }

    /// A server for this client: one that is idle, or a place in the queue.
    pub fn borrow(&self, house: &Arc<House>, info: &PoolInfo, by: Borrower) -> Result<Borrowed, End> {
        let Borrower { client, worker, now, .. } = by;
        let pool = info.key;
        let mut state = self.lock();
        if let Borrow::Lend(key) = state.ledger.borrow(pool, client, worker, now) {
            let mut server = state.take_from_shelf(key);
            drop(state);
            // Before a move: a socket that has just moved has no news to tell yet.
            if let Err(reason) = server.check_idle() {
                self.close(house, server, &reason);
                return self.borrow(house, info, by);
            }
            match server.into_worker(worker) {
                Ok(server) => return Ok(Borrowed::Now(Lease::new(house, server))),
                Err(error) => {
                    tracing::warn!("moving a server connection to another worker failed: {error}");
                    self.forget(house, key);
                }
            }
            return self.borrow(house, info, by);
        }
        if !by.is_patient && state.ledger.is_hopeless(pool) {
            state.ledger.stop_waiting(pool, client);
            drop(state);
            // Nobody waits, so nobody else would try again.
            self.retry_dial(house, info, worker);
            return Err(End::login_failing(info.failure().as_ref()));
        }
        if let Some(limit) = state.ledger.reached_limit(pool) {
            info.stats.part(worker).count_limit(limit);
        }
        let (sender, grant) = oneshot::channel();
        state.waiting.insert(client, sender);
        drop(state);
        self.run_chores(house, pool, worker);
        let waiting = Waiting { house: house.clone(), pool, client, worker, grant, is_over: false };
        Ok(Borrowed::Later(waiting))
    }

    /// A clean server comes back, or is new, or has passed its check.
    pub(crate) fn settle(&self, house: &Arc<House>, server: Box<Server>, is_new: bool) {
        debug_assert!(server.is_clean(), "a server that owes replies is never pooled");
        let now = Instant::now();
        let (key, pool) = (server.key, server.pool);
        let mut state = self.lock();
        state.ledger.moved(key, server.worker);
        let settled = if is_new { state.ledger.ready(key, now) } else { state.ledger.give_back(key, now) };
        let closed = state.carry_out(settled, server);
        drop(state);
        if let Some((server, reason)) = closed {
            self.close(house, server, reason.text());
            house.keeper_wake.notify_one();
        } else if is_new {
            self.run_chores(house, pool, 0);
        }
    }

    /// A server is gone. The caller has dropped it, or will.
    pub(crate) fn forget(&self, house: &House, key: ServerKey) {
        let mut state = self.lock();
        state.ledger.remove(key);
        state.infos[key.0 as usize] = None;
        drop(state);
        // Somebody may wait for the room.
        house.keeper_wake.notify_one();
    }

    fn close(&self, house: &House, mut server: Box<Server>, reason: &str) {
        log_closing(house, &server.info, reason);
        server.farewell();
        self.forget(house, server.key);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the ledger")
    }
}

impl State {
    fn info(&self, pool: PoolKey) -> Arc<PoolInfo> {
        self.pools[pool.0 as usize].clone().expect("a pool key is used only while the pool is there")
    }

    fn take_from_shelf(&mut self, key: ServerKey) -> Box<Server> {
        self.shelf[key.0 as usize].take().expect("an idle server is on the shelf")
    }

    fn put_on_shelf(&mut self, server: Box<Server>) {
        let slot = server.key.0 as usize;
        if self.shelf.len() <= slot {
            self.shelf.resize_with(slot + 1, || None);
        }
        self.shelf[slot] = Some(server);
    }

    /// Does what the ledger decided. Some: the server has to be closed.
    fn carry_out(&mut self, settled: Settled, server: Box<Server>) -> Option<(Box<Server>, CloseReason)> {
        match settled {
            Settled::Hand { client } => {
                self.replications.remove(&client);
                let sender = self.waiting.remove(&client).expect("who waits in the ledger has a sender");
                // The receiver leaves the queue under this lock before it is dropped, so somebody is there.
                if let Err(Ok(server)) = sender.send(Ok(server)) {
                    return Some((server, CloseReason::Obsolete));
                }
            }
            Settled::Idle | Settled::Parked => self.put_on_shelf(server),
            Settled::Close(reason) => return Some((server, reason)),
        }
        None
    }
}

impl Lease {
    fn new(house: &Arc<House>, server: Box<Server>) -> Lease {
        Lease {
            house: house.clone(),
            server: Some(server),
            reason: "client disconnect while server was not ready",
        }
    }

    pub fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("a lease holds its server until it is given back")
    }

    pub fn info(&self) -> &Arc<ServerInfo> {
        &self.server.as_ref().expect("a lease holds its server until it is given back").info
    }

    /// Goes on with it on another worker. Where that fails, the connection is lost.
    pub fn into_worker(mut self, worker: WorkerId) -> std::io::Result<Lease> {
        if let Some(server) = self.server.take() {
            let key = server.key;
            let moved =
                server.into_worker(worker).inspect_err(|_| self.house.pools.forget(&self.house, key))?;
            self.server = Some(moved);
        }
        Ok(self)
    }

    /// Back to the pool: to the next waiter, or on top of the idle ones.
    pub fn give_back(mut self) {
        let Some(server) = self.server.take() else { return };
        self.house.pools.settle(&self.house, server, false);
    }

    /// Back to the pool as if it had never been lent: its greeting was all that was wanted.
    pub fn give_back_unused(mut self) {
        let Some(server) = self.server.take() else { return };
        self.house.pools.lock().ledger.excuse(server.key);
        self.house.pools.settle(&self.house, server, false);
    }

    /// Closes the connection, for this reason.
    pub fn close(mut self, reason: &str) {
        if let Some(server) = self.server.take() {
            self.house.pools.close(&self.house, server, reason);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.house.pools.close(&self.house, server, self.reason);
        }
    }
}

impl Waiting {
    pub fn poll(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<Lease, End>> {
        use std::future::Future;
        let grant = std::task::ready!(std::pin::Pin::new(&mut self.grant).poll(cx));
        self.is_over = true;
        std::task::Poll::Ready(self.accept(grant.unwrap_or_else(|_| Err(End::shutdown()))))
    }

    fn accept(&self, grant: Grant) -> Result<Lease, End> {
        let server = grant?;
        let key = server.key;
        server.into_worker(self.worker).map(|server| Lease::new(&self.house, server)).map_err(|error| {
            self.house.pools.forget(&self.house, key);
            End::server_gone(&format!("moving a connection failed: {error}"))
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.house.pools.lock();
        let was_waiting = state.ledger.stop_waiting(self.pool, self.client);
        state.waiting.remove(&self.client);
        state.replications.remove(&self.client);
        drop(state);
        // A server was on its way: it goes to the next one.
        if !was_waiting && let Ok(Ok(server)) = self.grant.try_recv() {
            self.house.pools.settle(&self.house, server, false);
        }
    }
}

impl Welcome {
    /// `extra`: track_extra_parameters.
    pub fn new(statuses: Vec<(String, String)>, extra: &[String]) -> Welcome {
        let mut tracked = Parameters::default();
        for (name, value) in &statuses {
            if let Some((name, _)) = parameters::tracked(name, extra)
                && let Some(more) = tracked.with(name, value, true)
            {
                tracked = more;
            }
        }
        Welcome { statuses, parameters: Arc::new(tracked) }
    }
}

impl PoolInfo {
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        self.learned().welcome.clone()
    }

    pub fn set_welcome(&self, welcome: Arc<Welcome>) {
        let mut learned = self.learned();
        learned.welcome = Some(welcome);
        learned.failure = None;
    }

    /// The next client to log in waits for a new server's greeting.
    pub fn forget_welcome(&self) {
        self.learned().welcome = None;
    }

    pub fn failure(&self) -> Option<Failure> {
        self.learned().failure.clone()
    }

    /// Where one host is kept to, the next one gets its chance.
    pub fn set_failure(&self, failure: Failure) {
        let mut learned = self.learned();
        learned.failure = Some(failure);
        if self.database.load_balance_hosts == LoadBalanceHosts::Disable {
            learned.next_host = learned.next_host.wrapping_add(1);
        }
    }

    pub fn credential(&self) -> Option<Credential> {
        self.learned().credential.clone()
    }

    pub fn set_credential(&self, credential: Credential) {
        self.learned().credential = Some(credential);
    }

    /// Round robin over several hosts.
    pub fn next_host(&self, count: usize, advance: bool) -> usize {
        let mut learned = self.learned();
        let host = learned.next_host % count.max(1);
        if advance {
            learned.next_host = host + 1;
        }
        host
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().expect("no code panics while it holds what a pool has learned")
    }
}

pub(crate) fn rules(settings: &Settings) -> Rules {
    let some = |d: std::time::Duration| (!d.is_zero()).then_some(d);
    let checks = settings.server_check() != crate::settings::ServerCheck::Off;
    Rules {
        round_robin: settings.server_round_robin,
        check_after: checks.then_some(settings.server_check_delay),
        idle_timeout: some(settings.server_idle_timeout),
        login_retry: settings.server_login_retry,
        // 0 = the reserve is never used.
        reserve_after: some(settings.reserve_pool_timeout).unwrap_or(std::time::Duration::MAX),
    }
}

pub(crate) fn limits(settings: &Settings, database: &Database, user: &str) -> PoolLimits {
    PoolLimits {
        size: settings.pool_size(database, user) as usize,
        reserve: settings.reserve_pool_size(database, user) as usize,
        min: settings.min_pool_size(database) as usize,
        lifetime: settings.server_lifetime(database),
        keep_without_clients: database.user.is_some(),
    }
}

pub(crate) fn log_closing(house: &House, info: &ServerInfo, reason: &str) {
    if house.settings().log_disconnections {
        tracing::info!(
            "{} closing because: {reason} (age={}s)",
            info.name,
            info.connected.elapsed().as_secs()
        );
    }
}
