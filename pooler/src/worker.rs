//! One thread: a current-thread runtime, its clients, and the memory that they share while they are polled.

mod moved;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgwire::frame;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

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

/// How often deadlines are looked at: no timer is armed per query.
const TICK: Duration = Duration::from_millis(100);

/// One read takes at most this much. Larger results come in several reads; idle clients hold none of it.
pub const READ_LEN: usize = 64 * 1024;

/// Accepted sockets on their way to a worker.
pub const MAILBOX_LEN: usize = 1024;

/// A socket that was accepted, not yet known to any runtime.
pub enum Accepted {
    Tcp(std::net::TcpStream, std::net::SocketAddr),
    Unix(std::os::unix::net::UnixStream),
    /// A client of the process that we take over from.
    Moved(Box<Parcel>),
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
                    tokio::task::spawn_local(async move { worker.serve_moved(*parcel).await });
                }
                None => return self.house.tasks.drain_started().await,
            }
        }
    }

    async fn serve(self: Rc<Self>, opened: std::io::Result<(Wire, Endpoint, Endpoint)>) {
        let (wire, peer, local) = match opened {
            Ok(opened) => opened,
            Err(error) => return tracing::warn!("accepted socket cannot be used: {error}"),
        };
        self.house.tune(&wire);
        let newcomer = Newcomer { id: self.house.next_id(), worker: self.id, peer, local, fd: wire.fd() };
        let entry = self.house.clients.enter(newcomer, self.house.settings_cached(|s| s.peer_id));
        // Leaves the list however this task ends.
        let _presence = Presence { house: self.house.clone(), entry: entry.clone() };
        let mut talk = Talk::new(wire);
        // Boxed: the login's future is large and gone once it is over.
        let logged_in = Box::pin(login::log_in_in_time(&self, &mut talk, &entry)).await;
        match logged_in {
            Ok(login::LoggedIn::Client { pool, session, lease }) => {
                let _member = Member::new(&self.house, &pool);
                let (wire, sent_ahead) = talk.into_parts();
                let client = crate::client::Client::new(self.clone(), entry, pool, wire, *session);
                client.run(sent_ahead, lease).await;
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

    /// One look at all clients of this worker per tick.
    async fn watch_deadlines(self: Rc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let (settings, now) = (self.house.settings(), Instant::now());
            let phase = self.house.phase();
            self.house.clients.each_of_worker(self.id, |entry| {
                if phase == Phase::Moving {
                    entry.wake();
                }
                if let Some(order) = due(entry, &settings, phase, now) {
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

/// Keeps a client in the list while it is there.
struct Presence {
    house: Arc<House>,
    entry: Arc<ClientEntry>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.house.clients.leave(&self.entry);
        self.house.phase_wake.notify_waiters();
    }
}

/// Counts a client in its pool while it is there.
struct Member {
    house: Arc<House>,
    pool: crate::logic::ledger::PoolKey,
}

impl Member {
    fn new(house: &Arc<House>, pool: &crate::pool::PoolInfo) -> Member {
        house.pools.join(pool.key);
        Member { house: house.clone(), pool: pool.key }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.house.pools.leave(self.pool);
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
        Doing::Busy if over(settings.query_timeout(user)) => Some(Order::QueryTimeout),
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
    let text = |a: std::net::SocketAddr| (a.ip().to_canonical().to_string(), a.port());
    Ok((wire, text(peer), text(local)))
}

fn open_unix(stream: std::os::unix::net::UnixStream) -> std::io::Result<(Wire, Endpoint, Endpoint)> {
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let pid = stream.peer_cred().ok().and_then(|c| c.pid()).unwrap_or(0);
    let path = stream.local_addr().ok().and_then(|a| a.as_pathname().map(ToOwned::to_owned));
    let port = path.and_then(|p| p.extension().and_then(|e| e.to_str()?.parse().ok())).unwrap_or(0);
    Ok((Wire::unix(stream), (format!("unix({pid})"), port), ("unix".to_string(), port)))
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
