//! One thread: a current-thread runtime, its clients, and the memory that they share while they are polled.

mod moved;
mod relay;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgwire::frame;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use relay::{Member, Presence, Relay};

pub use relay::Traveller;

use crate::client::Client;
use crate::clients::{ClientEntry, Doing, Endpoint, Newcomer, Order};
use crate::error::{End, Fault};
use crate::house::{House, Phase};
use crate::logic::ledger::WorkerId;
use crate::logic::session::Mode;
use crate::moving::Parcel;
use crate::pool::Lease;
use crate::settings::Settings;
use crate::talk::Talk;
use crate::wire::Wire;
use crate::{console, login};

/// Deadlines are looked at this many times within the shortest of them,
const LOOKS_PER_DEADLINE: u32 = 10;
/// but not more often than this,
const LOOK_MIN: Duration = Duration::from_millis(100);
/// nor less.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// One read takes at most this much. Larger results come in several reads; idle clients hold none of it.
pub const READ_LEN: usize = 64 * 1024;

/// Sockets on their way to a worker.
pub const MAILBOX_LEN: usize = 1024;

/// A socket that was accepted, not yet known to any runtime.
pub enum Accepted {
    Tcp(std::net::TcpStream, std::net::SocketAddr),
    Unix(std::os::unix::net::UnixStream),
    /// A client of the process that we take over from.
    Moved(Box<Parcel>),
    /// A client of another worker.
    Traveller(Box<Traveller>),
}

pub struct Worker {
    pub id: WorkerId,
    pub house: Arc<House>,
    pub scratch: RefCell<Scratch>,
    hot: Cell<Hot>,
}

/// Settings that each transaction asks for, as of one version.
#[derive(Clone, Copy)]
struct Hot {
    version: u64,
    statement_limit: usize,
    resets_always: bool,
}

/// How deadlines are watched under these settings.
struct Watch {
    settings: Arc<Settings>,
    every: Duration,
    /// Clients are closed for being idle.
    ends_idle: bool,
}

/// Memory for the length of one poll.
pub struct Scratch {
    pub read: Box<[u8]>,
    pub made: Vec<u8>,
    pub replies: Vec<u8>,
}

impl Worker {
    pub fn new(id: WorkerId, house: Arc<House>) -> Rc<Worker> {
        let read = vec![0; READ_LEN].into_boxed_slice();
        let scratch = RefCell::new(Scratch { read, made: Vec::new(), replies: Vec::new() });
        let hot = Cell::new(Hot { version: u64::MAX, statement_limit: 0, resets_always: false });
        Rc::new(Worker { id, house, scratch, hot })
    }

    /// Takes in sockets until the process drains. Clients end with the tasks of this thread.
    pub async fn run(self: Rc<Self>, mut mailbox: mpsc::Receiver<Accepted>) {
        self.house.spread.sit(self.id);
        tokio::task::spawn_local(self.clone().watch_deadlines());
        loop {
            let accepted = tokio::select! {
                accepted = mailbox.recv() => accepted,
                () = self.house.tasks.drain_started() => return,
            };
            let worker = self.clone();
            match accepted {
                Some(Accepted::Tcp(stream, peer)) => {
                    tokio::task::spawn_local(async move { worker.serve(open_tcp(stream, peer)).await });
                }
                Some(Accepted::Unix(stream)) => {
                    tokio::task::spawn_local(async move { worker.serve(open_unix(stream)).await });
                }
                Some(Accepted::Moved(parcel)) => {
                    worker.serve_moved(*parcel);
                }
                Some(Accepted::Traveller(traveller)) => traveller.arrive(&worker),
                None => return self.house.tasks.drain_started().await,
            }
        }
    }

    async fn serve(self: Rc<Self>, opened: std::io::Result<(Wire, Endpoint, Endpoint)>) {
        let (wire, peer, local) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.house.clients.arrived();
                return tracing::warn!("accepted socket cannot be used: {error}");
            }
        };
        self.house.tune(&wire);
        let newcomer = Newcomer { id: self.house.next_id(), worker: self.id, peer, local, fd: wire.fd() };
        let entry = self.house.clients.enter(newcomer, self.house.settings_cached(|s| s.peer_id));
        self.house.clients.arrived();
        // Leaves the list however this task ends.
        let presence = Presence { house: self.house.clone(), entry: entry.clone() };
        let mut talk = Talk::new(wire);
        // Boxed: the login's future is large and gone once it is over.
        let logged_in = Box::pin(login::log_in_in_time(&self, &mut talk, &entry)).await;
        match logged_in {
            Ok(login::LoggedIn::Client { pool, session, lease }) => {
                let member = Member::new(&self.house, &pool);
                let (wire, sent_ahead) = talk.into_parts();
                let mut client = Client::new(self.clone(), entry, pool, wire, *session);
                client.start(sent_ahead, lease);
                tokio::task::spawn_local(Relay::new(client, presence, member));
            }
            Ok(login::LoggedIn::Console(console)) => {
                let end = Box::pin(console::run(&self, talk, &entry, console)).await;
                self.log_end(&entry, &end);
            }
            Err(end) => {
                self.log_end(&entry, &end);
                talk.wire.try_farewell(&end.message());
            }
        }
    }

    /// One look at all clients of this worker from time to time, often enough for the shortest deadline. Looking at an
    /// idle one costs a few nanoseconds, where arming a timer for each query would cost more.
    async fn watch_deadlines(self: Rc<Self>) {
        let mut watch = Watch::new(&self.house.settings());
        loop {
            let changed = self.house.deadlines_wake.notified();
            let _ = tokio::time::timeout(watch.period(self.house.phase()), changed).await;
            if watch.settings.version != self.house.settings_version() {
                watch = Watch::new(&self.house.settings());
            }
            let (phase, now) = (self.house.phase(), Instant::now());
            self.house.clients.each_of_worker(self.id, |entry| {
                if phase == Phase::Moving {
                    entry.wake();
                }
                if entry.doing() == Doing::Idle && !watch.ends_idle {
                    return;
                }
                if let Some(order) = due(entry, &watch.settings, phase, now) {
                    entry.give(order);
                }
            });
        }
    }

    pub fn statement_limit(&self) -> usize {
        self.hot().statement_limit
    }

    pub fn resets_always(&self) -> bool {
        self.hot().resets_always
    }

    /// Looked at in each transaction: kept beside the settings, so that no lock is taken for them.
    fn hot(&self) -> Hot {
        let (hot, version) = (self.hot.get(), self.house.settings_version());
        if hot.version == version {
            return hot;
        }
        let settings = self.house.settings();
        let hot = Hot {
            version,
            statement_limit: settings.max_prepared_statements as usize,
            resets_always: settings.server_reset_query_always && !settings.server_reset_query.is_empty(),
        };
        self.hot.set(hot);
        hot
    }

    /// Cleans a server after a session, then pools it; a server that cannot be cleaned is closed.
    pub fn reset_then_give_back(&self, mut lease: Lease) {
        let settings = self.house.settings();
        let sql = settings.server_reset_query.clone();
        if sql.is_empty() {
            return lease.give_back();
        }
        self.house.tasks.spawn_local("reset", async move {
            let limit = Duration::from_secs(30);
            let reset = tokio::time::timeout(limit, lease.server().run_own(&sql)).await;
            match reset {
                Ok(Ok(())) => {
                    lease.server().state.on_reset();
                    lease.give_back();
                }
                Ok(Err(reason)) => lease.close(&format!("reset query failed: {reason}")),
                Err(_) => lease.close("reset query timeout"),
            }
        });
    }

    pub fn log_end(&self, entry: &ClientEntry, end: &End) {
        self.house.stats.count_error(end);
        let settings = self.house.settings();
        let (name, age) = (entry.name(), entry.connected.elapsed().as_secs());
        if settings.log_disconnections {
            tracing::info!("{name} closing because: {} (age={age}s)", end.reason);
        }
        if settings.log_pooler_errors && end.sqlstate().is_some() && end.fault() != Fault::Server {
            tracing::warn!("{name} pooler error: {}", end.reason);
        }
        if self.house.phase() == Phase::WaitForClients {
            self.house.phase_wake.notify_waiters();
        }
    }
}

impl Watch {
    fn new(settings: &Arc<Settings>) -> Watch {
        let shortest = settings.client_deadlines().filter(|limit| !limit.is_zero()).min();
        let every = shortest.unwrap_or(LOOK_MAX) / LOOKS_PER_DEADLINE;
        Watch {
            settings: settings.clone(),
            every: every.clamp(LOOK_MIN, LOOK_MAX),
            ends_idle: settings.closes_idle_clients(),
        }
    }

    /// On the way out nobody should be waited for longer than needed.
    fn period(&self, phase: Phase) -> Duration {
        if phase == Phase::Running { self.every } else { LOOK_MIN }
    }
}

/// The order that a client's deadline asks for now.
fn due(entry: &ClientEntry, settings: &Settings, phase: Phase, now: Instant) -> Option<Order> {
    let doing = entry.doing();
    let waited = entry.doing_for(now);
    let over = |limit: Duration| !limit.is_zero() && waited > limit;
    let login = entry.login.get();
    let Some((login, pool)) = login.and_then(|l| Some((l, l.pool.as_ref()?))) else {
        let is_late = doing == Doing::LoggingIn && over(settings.client_login_timeout);
        return is_late.then_some(Order::LoginTimeout);
    };
    let user = login.user.as_str();
    let transaction_limit = settings.transaction_timeout(user);
    if !transaction_limit.is_zero() && entry.in_transaction_for(now).is_some_and(|t| t > transaction_limit) {
        return Some(Order::TransactionTimeout);
    }
    match doing {
        Doing::Waiting if phase == Phase::WaitForServers => Some(Order::Shutdown),
        Doing::Waiting if over(settings.query_timeout(user)) => Some(Order::QueryTimeout),
        Doing::Waiting if over(settings.query_wait_timeout(&pool.database, user)) => {
            Some(Order::QueryWaitTimeout)
        }
        Doing::Waiting if over(settings.query_wait_notify) && entry.notice_once() => Some(Order::NoticeWait),
        Doing::Syncing | Doing::Busy if over(settings.query_timeout(user)) => Some(Order::QueryTimeout),
        Doing::IdleInTransaction if over(settings.idle_transaction_timeout(user)) => {
            Some(Order::IdleTransactionTimeout)
        }
        Doing::Idle if over(settings.client_idle_timeout(user)) => Some(Order::ClientIdleTimeout),
        _ => None,
    }
}

fn open_tcp(
    stream: std::net::TcpStream,
    peer: std::net::SocketAddr,
) -> std::io::Result<(Wire, Endpoint, Endpoint)> {
    stream.set_nonblocking(true)?;
    let local = stream.local_addr()?;
    let wire = Wire::tcp(TcpStream::from_std(stream)?);
    Ok((wire, Endpoint::tcp(peer), Endpoint::tcp(local)))
}

fn open_unix(stream: std::os::unix::net::UnixStream) -> std::io::Result<(Wire, Endpoint, Endpoint)> {
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let process_id = stream.peer_cred().ok().and_then(|c| c.pid()).or(Some(0));
    let path = stream.local_addr().ok().and_then(|a| a.as_pathname().map(ToOwned::to_owned));
    let port = path.and_then(|p| p.extension().and_then(|e| e.to_str()?.parse().ok())).unwrap_or(0);
    let (peer, local) = (Endpoint::Unix { process_id, port }, Endpoint::Unix { process_id: None, port });
    Ok((Wire::unix(stream), peer, local))
}

/// The session's mode from the settings' word.
pub fn mode(mode: crate::settings::PoolMode) -> Mode {
    match mode {
        crate::settings::PoolMode::Session => Mode::Session,
        crate::settings::PoolMode::Transaction => Mode::Transaction,
        crate::settings::PoolMode::Statement => Mode::Statement,
    }
}

const _: () = assert!(READ_LEN > frame::HEAD_LEN);
