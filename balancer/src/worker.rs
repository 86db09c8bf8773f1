//! One worker thread: a current-thread runtime, its own idle upstream connections, its own spare memory. Tasks never
//! leave it; what workers share is in `Running`.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;

use crate::access_log::Journal;
use crate::clock::Clock;
use crate::downstream;
use crate::logic::upstreams::Group;
use crate::metrics::{PeerMetrics, ZoneMetrics};
use crate::relay::scratch::Spare;
use crate::running::{Listener, Running, Socket};
use crate::upstream_conns::UpstreamConns;
use crate::wire::Wire;

/// Commands wait here while a worker is busy; the master sends a handful in its life.
const COMMANDS_MAX: usize = 64;
/// How often idle upstream connections are looked through.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after an accept that failed for lack of descriptors or memory: trying again at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub enum Command {
    /// From the next request on, this generation counts.
    Reload(Arc<Running>),
    /// The same configuration with other upstream servers; `done` learns when it counts here.
    Adopt { running: Arc<Running>, done: oneshot::Sender<()> },
    /// No new connections; idle ones close now, busy ones after their answer; what is left at the deadline is cut.
    Drain { deadline: Option<Duration> },
    /// Everything ends now.
    Stop,
}

/// The master's end of a worker.
#[derive(Debug)]
pub struct WorkerHandle {
    commands: mpsc::Sender<Command>,
    thread: std::thread::JoinHandle<()>,
}

impl WorkerHandle {
    pub async fn send(&self, command: Command) {
        // A worker that has ended needs no command.
        let _ = self.commands.send(command).await;
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Blocks until the worker has ended. False when it panicked.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

/// Starts worker number `index`.
pub fn spawn(index: usize, running: Arc<Running>) -> io::Result<WorkerHandle> {
    let (commands, mailbox) = mpsc::channel(COMMANDS_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let tasks = LocalSet::new();
        let worker = Worker::new(index, running);
        tasks.block_on(&runtime, worker.run(mailbox));
    })?;
    Ok(WorkerHandle { commands, thread })
}

/// The present configuration as one worker holds it. Requests keep the one they began with.
#[derive(Debug)]
pub struct Generation {
    pub running: Arc<Running>,
    /// By group and server.
    pub peers: Vec<Vec<Arc<PeerMetrics>>>,
    /// By their place in `Http::zones`.
    pub zones: Vec<Arc<ZoneMetrics>>,
}

impl Generation {
    fn new(running: Arc<Running>) -> Rc<Generation> {
        let of_group = |group: &Arc<Group>| {
            group.peers().iter().map(|peer| running.metrics.peer(group.name(), &peer.name)).collect()
        };
        let peers = running.upstreams.groups().iter().map(of_group).collect();
        let zones = running.settings.http.zones.iter();
        let zones = zones.map(|(kind, name)| running.metrics.zone(*kind, name)).collect();
        Rc::new(Generation { running, peers, zones })
    }
}

/// What the tasks of one worker share.
#[derive(Debug)]
pub struct Worker {
    pub index: usize,
    pub clock: Clock,
    pub spare: Spare,
    pub idle: UpstreamConns,
    generation: RefCell<Rc<Generation>>,
    journal: Journal,
    draining: Cell<bool>,
    connections: Connections,
    /// Rises with each connection: `$connection`.
    serial: Cell<u64>,
    random: Cell<u64>,
    seed: u64,
}

impl Worker {
    fn new(index: usize, running: Arc<Running>) -> Rc<Worker> {
        let mut seed = [0u8; 8];
        // The seed spreads load and request ids; without the kernel's randomness the clock must do.
        if getrandom::fill(&mut seed).is_err() {
            seed = (running.started.elapsed().as_nanos() as u64).to_ne_bytes();
        }
        let worker = Worker {
            index,
            clock: Clock::new(running.started),
            spare: Spare::default(),
            idle: UpstreamConns::default(),
            journal: Journal::new(running.logs.clone()),
            generation: RefCell::new(Generation::new(running)),
            draining: Cell::new(false),
            connections: Connections::default(),
            serial: Cell::new(0),
            random: Cell::new(u64::from_ne_bytes(seed) | 1),
            seed: u64::from_ne_bytes(seed),
        };
        worker.arrange_idle();
        Rc::new(worker)
    }

    /// The generation that counts for a request that begins now.
    pub fn generation(&self) -> Rc<Generation> {
        self.generation.borrow().clone()
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// 128 bits that no other request of this process has, the same each time they are asked for.
    pub fn request_id(&self, connection: u64, request: u64) -> [u8; 16] {
        let mix = |mut x: u64| {
            x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ x >> 31
        };
        let high = mix(self.seed ^ connection.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let low = mix(high ^ request.wrapping_mul(0xd1b5_4a32_d192_ed03));
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    }

    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub fn next_serial(&self) -> u64 {
        self.serial.set(self.serial.get() + 1);
        self.serial.get()
    }

    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// xorshift64: for choices and ids, not for secrets.
    pub fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }

    async fn run(self: Rc<Worker>, mut mailbox: mpsc::Receiver<Command>) {
        let mut doors = Doors::default();
        doors.open(&self);
        tokio::task::spawn_local(tidy(self.clone()));
        let scribe = self.clone();
        tokio::task::spawn_local(async move { scribe.journal.run().await });
        let deadline = loop {
            match mailbox.recv().await {
                Some(Command::Reload(running)) => {
                    self.bound_last_era();
                    *self.generation.borrow_mut() = Generation::new(running);
                    self.journal.forget_unused();
                    self.arrange_idle();
                    doors.open(&self);
                }
                Some(Command::Adopt { running, done }) => {
                    *self.generation.borrow_mut() = Generation::new(running);
                    self.arrange_idle();
                    // Who asked may have left.
                    let _ = done.send(());
                }
                Some(Command::Drain { deadline }) => break deadline,
                Some(Command::Stop) | None => return self.journal.flush(),
            }
        };
        doors.close(&self);
        self.draining.set(true);
        self.idle.close_all();
        self.connections.wake_all();
        let deadline = deadline.unwrap_or(Duration::from_secs(365 * 24 * 3600));
        tokio::select! {
            () = self.connections.all_closed() => {}
            () = tokio::time::sleep(deadline) => {}
            () = stopped(&mut mailbox) => {}
        }
        self.journal.flush();
    }

    /// nginx: what began under the old configuration has `worker_shutdown_timeout` to end. Without it, all the time.
    fn bound_last_era(self: &Rc<Worker>) {
        let era = self.connections.begin_era();
        let Some(timeout) = self.generation().running.settings.main.worker_shutdown_timeout else { return };
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(timeout).await;
            worker.connections.cut(era);
        });
    }

    fn arrange_idle(&self) {
        let generation = self.generation();
        let addresses =
            |group: &Group| group.peers().iter().map(|peer| peer.address.clone()).collect::<Vec<_>>();
        let groups = generation.running.upstreams.groups();
        let groups: Vec<_> = groups.iter().map(|group| (group.name(), addresses(group))).collect();
        self.idle.arrange(&groups);
    }
}

/// While draining only the order to stop counts.
async fn stopped(mailbox: &mut mpsc::Receiver<Command>) {
    while let Some(command) = mailbox.recv().await {
        if matches!(command, Command::Stop) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

async fn tidy(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(TIDY_INTERVAL);
    loop {
        ticks.tick().await;
        worker.spare.tidy();
        let generation = worker.generation();
        let upstreams = &generation.running.settings.http.upstreams;
        worker.idle.tidy(|group| upstreams[group].keepalive.timeout, Instant::now());
    }
}

/// The open connections of clients: who to wake when the worker drains.
#[derive(Debug, Default)]
pub struct Connections {
    entries: RefCell<Vec<Option<Entry>>>,
    free: RefCell<Vec<usize>>,
    len: Cell<usize>,
    era: Cell<u64>,
    closed: Notify,
}

/// What a connection holds of its entry.
#[derive(Debug)]
pub struct Seat {
    pub place: usize,
    pub is_cut: Rc<Cell<bool>>,
}

/// One open connection.
#[derive(Debug)]
struct Entry {
    waker: Waker,
    /// Rises with each reload.
    era: u64,
    is_cut: Rc<Cell<bool>>,
}

impl Connections {
    pub fn len(&self) -> usize {
        self.len.get()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A connection has been accepted; its task has yet to run. From here on a worker that drains waits for it.
    fn expect_one(&self) {
        self.len.set(self.len.get() + 1);
    }

    /// Enters the task that polls, which is expected; its waker stays the same for its life.
    pub fn enter(&self, waker: &Waker) -> Seat {
        let mut entries = self.entries.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or(entries.len());
        if place == entries.len() {
            entries.push(None);
        }
        let is_cut = Rc::new(Cell::new(false));
        entries[place] = Some(Entry { waker: waker.clone(), era: self.era.get(), is_cut: is_cut.clone() });
        Seat { place, is_cut }
    }

    pub fn leave(&self, place: usize) {
        self.entries.borrow_mut()[place] = None;
        self.free.borrow_mut().push(place);
        self.len.set(self.len.get() - 1);
        if self.is_empty() {
            self.closed.notify_waiters();
        }
    }

    fn wake_all(&self) {
        self.entries.borrow().iter().flatten().for_each(|entry| entry.waker.wake_by_ref());
    }

    /// A reload: those who come later are of another era. Gives the one that has ended.
    fn begin_era(&self) -> u64 {
        self.era.replace(self.era.get() + 1)
    }

    /// `worker_shutdown_timeout` after a reload: what is left from that era or before ends now.
    fn cut(&self, era: u64) {
        for entry in self.entries.borrow().iter().flatten().filter(|entry| entry.era <= era) {
            entry.is_cut.set(true);
            entry.waker.wake_by_ref();
        }
    }

    async fn all_closed(&self) {
        while !self.is_empty() {
            self.closed.notified().await;
        }
    }
}

/// The listening sockets of a worker, each with the task that accepts from it.
#[derive(Debug, Default)]
struct Doors {
    open: Vec<Door>,
}

/// One listening socket, shared with the task that accepts from it.
#[derive(Debug)]
struct Door {
    listener: Arc<Listener>,
    acceptor: Rc<Acceptor>,
    /// Which of the listens of the present generation it is.
    position: Rc<Cell<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Doors {
    /// Opens what is new in the current generation, closes what is gone; sockets that stay are not touched.
    fn open(&mut self, worker: &Rc<Worker>) {
        let running = worker.generation().running.clone();
        let mut before = std::mem::take(&mut self.open);
        for (position, listener) in running.listeners.iter().enumerate() {
            match before.iter().position(|door| Arc::ptr_eq(&door.listener, listener)) {
                Some(found) => {
                    let door = before.swap_remove(found);
                    door.position.set(position);
                    self.open.push(door);
                }
                None => self.open.extend(Door::open(worker, listener, position)),
            }
        }
        before.into_iter().for_each(|door| door.close(worker));
    }

    fn close(&mut self, worker: &Rc<Worker>) {
        self.open.drain(..).for_each(|door| door.close(worker));
    }
}

impl Door {
    fn open(worker: &Rc<Worker>, listener: &Arc<Listener>, position: usize) -> Option<Door> {
        let address = &listener.listen.address;
        let acceptor = match listener.socket(worker.index).and_then(Acceptor::new) {
            Ok(acceptor) => Rc::new(acceptor),
            Err(cause) => {
                tracing::error!(%address, %cause, "cannot accept on {address}: {cause}");
                return None;
            }
        };
        let position = Rc::new(Cell::new(position));
        let task = tokio::task::spawn_local(accept(worker.clone(), acceptor.clone(), position.clone()));
        Some(Door { listener: listener.clone(), acceptor, position, task })
    }

    /// Clients whose connection the kernel has already accepted are served, not reset.
    fn close(self, worker: &Rc<Worker>) {
        self.task.abort();
        while let Some((wire, peer)) = self.acceptor.accept_waiting() {
            welcome(worker, wire, peer, &self.position);
        }
    }
}

#[derive(Debug)]
enum Acceptor {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Acceptor {
    fn new(socket: Socket) -> io::Result<Acceptor> {
        Ok(match socket {
            Socket::Tcp(listener) => Acceptor::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Socket::Unix(listener) => Acceptor::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Wire, Option<std::net::SocketAddr>)>> {
        match self {
            Acceptor::Tcp(listener) => {
                let (tcp, peer) = ready!(listener.poll_accept(cx))?;
                // Fails only on a client that has left already; reading will say so.
                let _ = tcp.set_nodelay(true);
                Poll::Ready(Ok((Wire::Tcp(tcp), Some(peer))))
            }
            Acceptor::Unix(listener) => listener.poll_accept(cx).map_ok(|(unix, _)| (Wire::Unix(unix), None)),
        }
    }

    /// A connection that waits in the kernel's queue. Asks the kernel itself: tokio knows only what it was last told.
    fn accept_waiting(&self) -> Option<(Wire, Option<std::net::SocketAddr>)> {
        let socket = match self {
            Acceptor::Tcp(listener) => SockRef::from(listener),
            Acceptor::Unix(listener) => SockRef::from(listener),
        };
        let (stream, peer) = socket.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        match self {
            Acceptor::Tcp(_) => {
                stream.set_tcp_nodelay(true).ok()?;
                let tcp = tokio::net::TcpStream::from_std(stream.into()).ok()?;
                Some((Wire::Tcp(tcp), peer.as_socket()))
            }
            Acceptor::Unix(_) => {
                Some((Wire::Unix(tokio::net::UnixStream::from_std(stream.into()).ok()?), None))
            }
        }
    }
}

fn welcome(worker: &Rc<Worker>, wire: Wire, peer: Option<std::net::SocketAddr>, position: &Rc<Cell<usize>>) {
    let generation = worker.generation();
    let connections_max = generation.running.settings.events.worker_connections;
    if worker.connections.len() >= connections_max {
        generation.running.metrics.connections_dropped.fetch_add(1, Relaxed);
        tracing::error!("{connections_max} worker_connections are not enough");
        return;
    }
    generation.running.metrics.connections_accepted.fetch_add(1, Relaxed);
    worker.connections.expect_one();
    tokio::task::spawn_local(downstream::serve(worker.clone(), wire, peer, position.clone()));
}

async fn accept(worker: Rc<Worker>, acceptor: Rc<Acceptor>, position: Rc<Cell<usize>>) {
    loop {
        match poll_fn(|cx| acceptor.poll_accept(cx)).await {
            Ok((wire, peer)) => welcome(&worker, wire, peer, &position),
            // The client left before we came to it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(cause) => {
                tracing::error!(%cause, "accept failed: {cause}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
