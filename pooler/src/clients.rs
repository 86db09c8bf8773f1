//! Every client connection of the process: who it is, what it does since when, and how to tell it to end.

mod endpoint;

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use futures_util::task::AtomicWaker;
use pgwire::startup::Replication;

use crate::logic::cancel_key::ClientKey;
use crate::logic::ledger::WorkerId;
use crate::pool::PoolInfo;

pub use endpoint::Endpoint;

/// The clients of one worker.
type Part = Mutex<HashMap<u64, Arc<ClientEntry>>>;

/// All clients, in one part per worker so that workers do not meet here.
pub struct Clients {
    parts: Box<[Part]>,
    by_key: Mutex<HashMap<ClientKey, Arc<ClientEntry>>>,
    count: AtomicUsize,
    /// Accepted, and on their way to a worker.
    arriving: AtomicUsize,
    admission: Mutex<()>,
    whole: Mutex<()>,
    started: Instant,
}

/// What a client is doing; each state has its own deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    LoggingIn,
    Idle,
    Waiting,
    /// Its server takes its parameters; what it asked for comes after.
    Syncing,
    Busy,
    IdleInTransaction,
    /// Its cancel request waits for its turn.
    CancelWaiting,
    /// Its cancel request is on its way.
    Cancelling,
}

/// An order to a client's task, from the worker's tick or the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    None,
    LoginTimeout,
    QueryWaitTimeout,
    QueryTimeout,
    TransactionTimeout,
    IdleTransactionTimeout,
    ClientIdleTimeout,
    Killed,
    DatabaseGone,
    Shutdown,
    SuspendTimeout,
    /// A cancel request came while it waited for a server.
    Cancelled,
    /// Say that it waits, and go on.
    NoticeWait,
    /// The server it holds is to be closed: leave it now if that can be.
    ServerObsolete,
}

const DOINGS: [Doing; 8] = [
    Doing::LoggingIn,
    Doing::Idle,
    Doing::Waiting,
    Doing::Syncing,
    Doing::Busy,
    Doing::IdleInTransaction,
    Doing::CancelWaiting,
    Doing::Cancelling,
];

const ORDERS: [Order; 14] = [
    Order::None,
    Order::LoginTimeout,
    Order::QueryWaitTimeout,
    Order::QueryTimeout,
    Order::TransactionTimeout,
    Order::IdleTransactionTimeout,
    Order::ClientIdleTimeout,
    Order::Killed,
    Order::DatabaseGone,
    Order::Shutdown,
    Order::SuspendTimeout,
    Order::Cancelled,
    Order::NoticeWait,
    Order::ServerObsolete,
];

pub struct ClientEntry {
    pub id: u64,
    /// What the log calls it.
    pub ptr: u64,
    worker: AtomicU16,
    pub peer: Endpoint,
    pub local: Endpoint,
    pub connected_at: SystemTime,
    pub connected: Instant,
    pub key: ClientKey,
    /// Number of its socket, for SHOW FDS.
    pub fd: RawFd,
    pub login: OnceLock<Login>,
    pub tls: OnceLock<String>,
    doing: AtomicU8,
    since_us: AtomicU64,
    transaction_us: AtomicU64,
    request_us: AtomicU64,
    /// `ptr` of the server it holds; 0 = none.
    pub link: AtomicU64,
    pub prepared: AtomicU64,
    order: AtomicU8,
    is_noticed: AtomicU8,
    is_suspended: AtomicBool,
    is_lively: AtomicBool,
    waker: AtomicWaker,
    started: Instant,
}

/// A client that was just accepted, or came from another process.
pub struct Newcomer {
    pub id: u64,
    pub worker: WorkerId,
    pub peer: Endpoint,
    pub local: Endpoint,
    pub fd: RawFd,
}

/// What is known of a client once it has logged in.
pub struct Login {
    pub database: String,
    pub user: String,
    /// None for the console.
    pub pool: Option<Arc<PoolInfo>>,
    pub application_name: String,
    pub replication: Replication,
}

impl Clients {
    pub fn new(workers: usize) -> Clients {
        Clients {
            parts: (0..workers).map(|_| Mutex::default()).collect(),
            by_key: Mutex::default(),
            count: AtomicUsize::new(0),
            arriving: AtomicUsize::new(0),
            admission: Mutex::default(),
            whole: Mutex::default(),
            started: Instant::now(),
        }
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Enters a client that was just accepted. With a peer_id its key says who made it.
    pub fn enter(&self, newcomer: Newcomer, peer_id: u16) -> Arc<ClientEntry> {
        let mut by_key = self.keys();
        let key = loop {
            let key = ClientKey::new(random_u64(), peer_id);
            if !by_key.contains_key(&key) {
                break key;
            }
        };
        let entry = Arc::new(ClientEntry::new(newcomer, key, SystemTime::now(), self.started));
        by_key.insert(key, entry.clone());
        drop(by_key);
        self.list(entry)
    }

    /// Enters a client from another process, with the key that it has had since then.
    pub fn enter_moved(&self, newcomer: Newcomer, key: ClientKey, since: SystemTime) -> Arc<ClientEntry> {
        let entry = Arc::new(ClientEntry::new(newcomer, key, since, self.started));
        self.keys().insert(key, entry.clone());
        self.list(entry)
    }

    fn list(&self, entry: Arc<ClientEntry>) -> Arc<ClientEntry> {
        self.part(entry.worker()).insert(entry.id, entry.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        entry
    }

    /// The client is gone.
    pub fn leave(&self, entry: &ClientEntry) {
        self.part(entry.worker()).remove(&entry.id);
        self.keys().remove(&entry.key);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// The client goes on with another worker.
    pub fn change_worker(&self, entry: &Arc<ClientEntry>, to: WorkerId) {
        let _whole = self.whole();
        self.part(entry.worker()).remove(&entry.id);
        entry.worker.store(to, Ordering::Relaxed);
        self.part(to).insert(entry.id, entry.clone());
    }

    pub fn by_key(&self, key: ClientKey) -> Option<Arc<ClientEntry>> {
        self.keys().get(&key).cloned()
    }

    pub fn of_worker(&self, worker: WorkerId) -> Vec<Arc<ClientEntry>> {
        self.part(worker).values().cloned().collect()
    }

    /// Looks at each client of a worker without copying the list.
    pub fn each_of_worker(&self, worker: WorkerId, mut look: impl FnMut(&ClientEntry)) {
        for entry in self.part(worker).values() {
            look(entry);
        }
    }

    /// An order to one client, if it is still there.
    pub fn give(&self, worker: WorkerId, client: u64, order: Order) {
        let entry = self.part(worker).get(&client).cloned();
        if let Some(entry) = entry {
            entry.give(order);
        }
    }

    pub fn all(&self) -> Vec<Arc<ClientEntry>> {
        let _whole = self.whole();
        (0..self.parts.len()).flat_map(|w| self.of_worker(w as WorkerId)).collect()
    }

    /// Held by whoever counts clients against a limit, until the new one is counted as well.
    pub fn admission(&self) -> std::sync::MutexGuard<'_, ()> {
        self.admission.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Clients that have logged in and fit.
    pub fn count_of(&self, fits: impl Fn(&Login) -> bool) -> usize {
        let _whole = self.whole();
        let mut count = 0;
        for worker in 0..self.parts.len() {
            self.each_of_worker(worker as WorkerId, |entry| {
                count += usize::from(entry.login.get().is_some_and(&fits));
            });
        }
        count
    }

    /// A socket was accepted: nobody may think that all have gone before a worker has entered it.
    pub fn announce(&self) {
        self.arriving.fetch_add(1, Ordering::AcqRel);
    }

    /// A worker has it.
    pub fn arrived(&self) {
        self.arriving.fetch_sub(1, Ordering::AcqRel);
    }

    /// Nobody is left but operators.
    pub fn is_all_console(&self) -> bool {
        self.arriving.load(Ordering::Acquire) == 0
            && self.count_of(|login| login.pool.is_none()) == self.len()
    }

    /// The one with the fewest clients among the first so many workers.
    pub fn least_loaded(&self, in_use: usize) -> WorkerId {
        let len = |w: &usize| self.parts[*w].lock().expect("counting does not panic").len();
        (0..in_use).min_by_key(len).unwrap_or(0) as WorkerId
    }

    /// Held where all parts are looked at, one after the other, so that nobody goes from one to another meanwhile.
    fn whole(&self) -> MutexGuard<'_, ()> {
        self.whole.lock().expect("no code panics while it holds all clients")
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<ClientKey, Arc<ClientEntry>>> {
        self.by_key.lock().expect("no code panics while it holds the keys of clients")
    }

    fn part(&self, worker: WorkerId) -> MutexGuard<'_, HashMap<u64, Arc<ClientEntry>>> {
        self.parts[usize::from(worker)].lock().expect("no code panics while it holds the list of clients")
    }
}

impl ClientEntry {
    fn new(newcomer: Newcomer, key: ClientKey, connected_at: SystemTime, started: Instant) -> ClientEntry {
        let Newcomer { id, worker, peer, local, fd } = newcomer;
        let now = Instant::now();
        ClientEntry {
            id,
            // Looks like PgBouncer's pointers, and says nothing about our memory.
            ptr: 0x5500_0000_0000 + id * 0x100,
            worker: AtomicU16::new(worker),
            peer,
            local,
            connected_at,
            connected: now,
            key,
            fd,
            login: OnceLock::new(),
            tls: OnceLock::new(),
            doing: AtomicU8::new(Doing::LoggingIn as u8),
            since_us: AtomicU64::new(micros(started, now)),
            transaction_us: AtomicU64::new(0),
            request_us: AtomicU64::new(micros(started, now)),
            link: AtomicU64::new(0),
            prepared: AtomicU64::new(0),
            order: AtomicU8::new(Order::None as u8),
            is_noticed: AtomicU8::new(0),
            is_suspended: AtomicBool::new(false),
            is_lively: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            started,
        }
    }

    pub fn worker(&self) -> WorkerId {
        self.worker.load(Ordering::Relaxed)
    }

    /// Its relay ran since this was asked last.
    pub fn take_liveliness(&self) -> bool {
        self.is_lively.swap(false, Ordering::Relaxed)
    }

    pub fn doing(&self) -> Doing {
        DOINGS[usize::from(self.doing.load(Ordering::Relaxed))]
    }

    #[inline]
    pub fn set_doing(&self, doing: Doing, now: Instant) {
        self.doing.store(doing as u8, Ordering::Relaxed);
        self.since_us.store(micros(self.started, now), Ordering::Relaxed);
    }

    /// Whether its server still has a query of ours to answer, before those of the client.
    #[inline]
    pub fn note_sync(&self, is_syncing: bool) {
        let doing = match (self.doing(), is_syncing) {
            (Doing::Syncing, false) => Doing::Busy,
            (Doing::Syncing, true) | (_, false) => return,
            (_, true) => Doing::Syncing,
        };
        self.doing.store(doing as u8, Ordering::Relaxed);
    }

    /// How long it has been doing this.
    pub fn doing_for(&self, now: Instant) -> Duration {
        Duration::from_micros(micros(self.started, now).saturating_sub(self.since_us.load(Ordering::Relaxed)))
    }

    #[inline]
    pub fn start_transaction(&self, now: Instant) {
        let at = micros(self.started, now);
        self.transaction_us.store(at, Ordering::Relaxed);
        self.request_us.store(at, Ordering::Relaxed);
    }

    #[inline]
    pub fn end_transaction(&self) {
        self.transaction_us.store(0, Ordering::Relaxed);
    }

    pub fn in_transaction_for(&self, now: Instant) -> Option<Duration> {
        let at = self.transaction_us.load(Ordering::Relaxed);
        (at > 0).then(|| Duration::from_micros(micros(self.started, now).saturating_sub(at)))
    }

    pub fn requested_at(&self) -> SystemTime {
        let after = Duration::from_micros(self.request_us.load(Ordering::Relaxed));
        let connected_after = self.connected.saturating_duration_since(self.started);
        self.connected_at + after.saturating_sub(connected_after)
    }

    /// Tells the client's task to do something. A later order does not replace one that ends it.
    pub fn give(&self, order: Order) {
        let replace = |old: u8| {
            let weak = [Order::None, Order::NoticeWait, Order::ServerObsolete];
            weak.iter().any(|weak| old == *weak as u8).then_some(order as u8)
        };
        if self.order.fetch_update(Ordering::AcqRel, Ordering::Acquire, replace).is_ok() {
            self.waker.wake();
        }
    }

    #[inline]
    pub fn has_order(&self) -> bool {
        self.order.load(Ordering::Acquire) != Order::None as u8
    }

    pub fn take_order(&self) -> Order {
        ORDERS[usize::from(self.order.swap(Order::None as u8, Ordering::AcqRel))]
    }

    /// Called whenever the relay runs.
    pub fn listen_for_orders(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
        self.is_lively.store(true, Ordering::Relaxed);
    }

    /// Its task should look whether the house is suspended.
    pub fn wake(&self) {
        self.waker.wake();
    }

    pub fn set_suspended(&self, suspended: bool) {
        self.is_suspended.store(suspended, Ordering::Release);
    }

    pub fn is_suspended(&self) -> bool {
        self.is_suspended.load(Ordering::Acquire)
    }

    /// True once per wait.
    pub fn notice_once(&self) -> bool {
        self.is_noticed.swap(1, Ordering::Relaxed) == 0
    }

    pub fn forget_notice(&self) {
        self.is_noticed.store(0, Ordering::Relaxed);
    }

    /// `C-0x…: db/user@address:port`, the beginning of each log line about it.
    pub fn name(&self) -> String {
        let login = self.login.get();
        let database = login.map_or("(nodb)", |l| &l.database);
        let user = login.map_or("(nouser)", |l| &l.user);
        self.name_as(database, user)
    }

    pub fn name_as(&self, database: &str, user: &str) -> String {
        format!("C-0x{:x}: {database}/{user}@{}", self.ptr, self.peer)
    }
}

fn micros(started: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(started).as_micros()).unwrap_or(u64::MAX)
}

pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    u64::from_ne_bytes(bytes)
}
