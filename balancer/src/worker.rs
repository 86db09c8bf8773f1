//! One worker thread: a current-thread runtime, its own idle upstream connections, its own spare memory. Tasks never
//! leave it; what workers share is in `Running`.

mod chores;
pub mod connections;
mod doors;
pub mod room;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use crate::access_log::Journal;
use crate::burst::Burst;
use crate::clock::Clock;
use crate::logic::upstreams::Group;
use crate::metrics::{PeerMetrics, ZoneMetrics};
use crate::pool::Pool;
use crate::relay::scratch::Spare;
use crate::running::Running;
use crate::upstream_conns::UpstreamConns;
use chores::Chores;
use connections::Connections;
use doors::Doors;

/// Commands wait here while a worker is busy; the master sends a handful in its life.
const COMMANDS_MAX: usize = 64;
/// Tasks run before the worker looks for news of sockets again: nginx's `epoll_events`. A look of tokio's may bring 1024, of
/// which the second half then waits for one more look; most looks bring far fewer, so that all of them are served, and their
/// memory is left, before others come. With tokio's 61 a request cost 2 to 9 % more.
const POLLS_PER_LOOK: u32 = 512;
/// How often idle upstream connections are looked through.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub enum Command {
    /// From the next request on, this generation counts; `done` learns when who waits at a listener that goes is let in.
    Reload { running: Arc<Running>, done: oneshot::Sender<()> },
    /// The same configuration with other upstream servers; `done` learns when it counts here.
    Adopt { running: Arc<Running>, done: oneshot::Sender<()> },
    /// No new connections but those that wait, `done` learns when these are let in; idle ones close now, busy ones after
    /// their answer; what is left at the deadline is cut.
    Drain { deadline: Option<Duration>, done: oneshot::Sender<()> },
    /// Everything ends now.
    Stop,
}

/// The master's end of a worker.
#[derive(Debug)]
pub struct WorkerHandle {
    pub index: usize,
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
    let (started, has_started) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // A runtime of local tasks and no `LocalSet` on one: that would be woken, by a write to its own eventfd, in
        // each round in which a socket had something to say.
        let runtime = Builder::new_current_thread()
            .event_interval(POLLS_PER_LOOK)
            .enable_all()
            .build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => {
                let _ = started.send(Ok(()));
                runtime.block_on(Worker::new(index, running).run(mailbox));
            }
            Err(cause) => drop(started.send(Err(cause))),
        }
    })?;
    has_started.recv().unwrap_or_else(|_| Err(io::Error::other("the worker ended at once")))?;
    Ok(WorkerHandle { index, commands, thread })
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
    pub bursts: Pool<Burst>,
    pub idle: UpstreamConns,
    generation: RefCell<Rc<Generation>>,
    journal: Journal,
    draining: Cell<bool>,
    connections: Rc<Connections>,
    /// When the operator was last told that connections are sent away.
    warned: Cell<Option<Instant>>,
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
            bursts: Pool::default(),
            idle: UpstreamConns::default(),
            journal: Journal::new(running.logs.clone()),
            connections: Connections::new(running.metrics.clone()),
            generation: RefCell::new(Generation::new(running)),
            draining: Cell::new(false),
            warned: Cell::default(),
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
        let (mut doors, mut chores) = (Doors::default(), Chores::default());
        doors.open(&self, &self.generation(), &mut chores);
        chores.begin(tidy(self.clone()));
        let scribe = self.clone();
        chores.begin(async move { scribe.journal.run().await });
        let (deadline, drained) = loop {
            let command = tokio::select! {
                command = mailbox.recv() => command,
                () = chores.lost() => {
                    tracing::error!(alert = true, "worker {} ends: it has lost a task of its own", self.index);
                    return self.end();
                }
            };
            match command {
                Some(Command::Reload { running, done }) => {
                    self.bound_last_era();
                    let before = self.generation.replace(Generation::new(running));
                    self.journal.start_over();
                    self.arrange_idle();
                    doors.open(&self, &before, &mut chores);
                    // Who asked may have left, here and below.
                    let _ = done.send(());
                }
                Some(Command::Adopt { running, done }) => {
                    *self.generation.borrow_mut() = Generation::new(running);
                    self.arrange_idle();
                    let _ = done.send(());
                }
                Some(Command::Drain { deadline, done }) => break (deadline, done),
                Some(Command::Stop) | None => return self.end(),
            }
        };
        doors.close(&self);
        let _ = drained.send(());
        self.draining.set(true);
        self.idle.close_all();
        self.connections.wake_all();
        let deadline = deadline.unwrap_or(Duration::from_secs(365 * 24 * 3600));
        tokio::select! {
            () = self.connections.all_clients_left() => {}
            () = tokio::time::sleep(deadline) => {}
            () = stopped(&mut mailbox) => {}
        }
        self.end();
    }

    /// What is still open goes with the runtime, and is logged as cut by us.
    fn end(&self) {
        self.connections.cut(self.connections.begin_era());
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
        worker.bursts.tidy();
        let generation = worker.generation();
        let upstreams = &generation.running.settings.http.upstreams;
        worker.idle.tidy(|group| upstreams[group].keepalive.timeout, Instant::now());
    }
}
