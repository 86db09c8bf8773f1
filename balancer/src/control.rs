//! The master: opens what the configuration names, starts the workers, and acts on signals until the end.

pub mod changes;
mod crew;
pub mod errands;
pub mod handover;
mod process;
mod upgrade;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use chassis::listen::OpenFiles;
use chassis::ops::Ops;
use chassis::signals::{Signal, Signals};
use chassis::tasks::Tasks;
use nix::unistd::{Pid, getppid};

use tokio::sync::mpsc;

use self::changes::{CHANGES_MAX, Change};
use self::crew::Crew;
use self::handover::Inherited;
use crate::Outside;
use crate::access_log::LogFiles;
use crate::conf::settings::Main;
use crate::conf::upstream::Address;
use crate::conf::{self, Origin};
use crate::error_log::{ErrorLogs, Targets};
use crate::limits::Limits;
use crate::listeners;
use crate::logic::upstreams::Set;
use crate::metrics::Metrics;
use crate::names::{Names, resolvers};
use crate::panics;
use crate::prober::Prober;
use crate::running::{Listener, Running, Socket};
use crate::tls::sessions;

/// How often workers are looked after: one that died is replaced.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// What a stop waits for connections of the ops port.
const OPS_DRAIN: Duration = Duration::from_secs(1);

/// Prints as nginx does, to where a person looks while nothing runs yet.
#[allow(clippy::print_stderr, reason = "the error log is not open yet, or is not where the caller looks")]
pub fn complain(level: &str, what: &str) {
    eprintln!("balancer: [{level}] {what}");
}

/// Runs until it is told to stop.
pub fn serve(origin: Origin, outside: &Outside) -> ExitCode {
    let error_logs = ErrorLogs::to_stderr();
    let prepared = match prepare(&origin, &error_logs, outside) {
        Ok(prepared) => prepared,
        Err(what) => {
            complain("emerg", &what);
            error_logs.last_words(&origin, &what);
            return ExitCode::FAILURE;
        }
    };
    let main = prepared.running.settings.main.clone();
    error_logs.install();
    panics::tell(prepared.running.metrics.clone());
    if let Err(what) = process::settle(&main, prepared.is_successor) {
        complain("emerg", &what);
        tracing::error!("{what}");
        return ExitCode::FAILURE;
    }
    let ended = run(origin, error_logs, prepared);
    process::remove_pid_file(&main.pid);
    process::remove_pid_file(&upgrade::old(&main.pid));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the master cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All that can be refused: opened before the process goes to the background, so that its caller learns of it.
struct Prepared {
    running: Arc<Running>,
    ops: Option<std::net::TcpListener>,
    drain_timeout: Option<Duration>,
    files: OpenFiles,
    moot: Vec<String>,
    is_successor: bool,
    changes: mpsc::Receiver<Change>,
}

fn prepare(origin: &Origin, error_logs: &ErrorLogs, outside: &Outside) -> Result<Prepared, String> {
    let (settings, tree) = conf::load(origin).map_err(|error| error.to_string())?;
    error_logs.replace(Targets::open(&settings.main.error_logs, &settings.http.error_logs)?);
    let files = process::open_files(settings.main.worker_rlimit_nofile);
    let files = files.map_err(|error| format!("the limit of open files cannot be read: {error}"))?;
    let logs = Arc::new(LogFiles::default());
    let held_logs = logs.open(&settings.http.log_files)?;
    process::make_folders(&settings.http.body_folders, settings.main.user.as_ref())?;
    let workers = settings.main.worker_processes;
    let inherited = Inherited::receive(outside.descent);
    let mut inherited = inherited.map_err(|error| format!("taking over sockets failed: {error}"))?;
    let (asks, changes) = mpsc::channel(CHANGES_MAX);
    let known = inherited.take_known();
    let age = known.as_ref().map_or(Duration::ZERO, |known| known.age);
    let upstreams = Arc::new(Set::new(&settings.http, None, age));
    let metrics = Arc::new(Metrics::default());
    let generation = known.as_ref().map_or(1, |known| known.generation + 1);
    if let Some(known) = known {
        upstreams.recall(known.groups);
        metrics.recall(&known.counters);
    }
    let running = Running {
        listeners: listeners::open_with(&settings.http.listens, &[], workers, &mut inherited)?,
        upstreams,
        limits: Arc::new(Limits::new(&settings.http, None)),
        logs,
        held_logs,
        metrics,
        resolvers: resolvers(&settings.http),
        started: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
        era: (generation, SystemTime::now()),
        changes: asks,
        settings: Arc::new(settings),
    };
    let ops = outside.ops.or(running.settings.main.ops_listen);
    let ops = ops.map(|address| open_ops(address, &mut inherited)).transpose();
    let ops = ops.map_err(|error| error.to_string())?;
    let is_successor = inherited.is_successor();
    Ok(Prepared {
        running: Arc::new(running),
        ops,
        drain_timeout: outside.drain_timeout,
        files,
        moot: tree.moot(),
        is_successor,
        changes,
    })
}

fn open_ops(address: std::net::SocketAddr, inherited: &mut Inherited) -> io::Result<std::net::TcpListener> {
    match inherited.take(&Address::Tcp(address)).pop() {
        Some(Socket::Tcp(listener)) => Ok(listener),
        _ => chassis::listen::tcp(address, chassis::listen::Tcp::default()),
    }
}

fn run(origin: Origin, error_logs: ErrorLogs, prepared: Prepared) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tasks = Tasks::new();
        let signals = Signals::new()?;
        let current = Arc::new(RwLock::new(prepared.running.clone()));
        let mut master = Master {
            origin,
            error_logs,
            current,
            crew: Crew::default(),
            draining: Arc::default(),
            drain_timeout: prepared.drain_timeout,
            prober: Prober::new(tasks.clone()),
            names: Names::new(tasks.clone()),
            changes: prepared.changes,
            successor: None,
            predecessor: prepared.is_successor.then(getppid),
            ops_socket: prepared.ops.as_ref().map(std::net::TcpListener::try_clone).transpose()?,
            replaced: Vec::new(),
        };
        master.announce(prepared.files);
        prepared.moot.iter().for_each(|what| tracing::info!("{what}"));
        master.probe(&prepared.running);
        master.names.adopt(&prepared.running);
        master.settle_names().await;
        master.start_workers()?;
        if let Some(listener) = prepared.ops {
            tasks.spawn("ops", chassis::ops::serve(listener, master.ops(), tasks.clone()));
        }
        // Only now: whoever waits for this file may connect at once.
        if let Err(what) = process::write_pid_file(&prepared.running.settings.main.pid) {
            tracing::error!("{what}");
            return Err(io::Error::other(what));
        }
        // The last that is known of the first generation here: a reload lets go of it.
        drop(prepared.running);
        master.watch(signals).await;
        tasks.drain(OPS_DRAIN).await;
        Ok(())
    })
}

struct Master {
    origin: Origin,
    error_logs: ErrorLogs,
    /// Shared with the ops port.
    current: Arc<RwLock<Arc<Running>>>,
    crew: Crew,
    /// Shared with the ops port: a process that drains is not ready.
    draining: Arc<AtomicBool>,
    /// `BALANCER_DRAIN_TIMEOUT`.
    drain_timeout: Option<Duration>,
    prober: Prober,
    names: Names,
    changes: mpsc::Receiver<Change>,
    /// The process that USR2 has started to take our place.
    successor: Option<std::process::Child>,
    /// The process whose place we have taken, as long as it is there.
    predecessor: Option<Pid>,
    /// The ops port's, to be handed over.
    ops_socket: Option<std::net::TcpListener>,
    /// Generations that a reload has replaced, until nothing is under way in them.
    replaced: Vec<(u64, Weak<Running>)>,
}

impl Master {
    fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    fn running(&self) -> Arc<Running> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, next: Arc<Running>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Before the first request: who must pass a check first gets none until then.
    fn probe(&mut self, next: &Running) {
        self.prober.adopt(&next.settings.http.checks, &next.upstreams, next.started);
    }

    /// What the machine gives, in the words of what people ask: how many requests at once.
    fn announce(&self, files: OpenFiles) {
        let settings = &self.running().settings;
        let workers = settings.main.worker_processes;
        let asked = workers * settings.events.worker_connections;
        let given = usize::try_from(files.soft).unwrap_or(usize::MAX);
        tracing::info!(
            "balancer/{} started: {workers} worker threads x {} connections; {given} open files allow {} proxied \
             requests at once",
            env!("CARGO_PKG_VERSION"),
            settings.events.worker_connections,
            asked.min(given) / 2
        );
        if asked > given {
            tracing::warn!(
                "{asked} worker_connections exceed open file resource limit: {given}; raise it or lower them"
            );
        }
    }

    /// With what is known now: names may have been found since the generation was prepared.
    fn start_workers(&mut self) -> io::Result<()> {
        let running = self.running();
        self.crew.start(&running)
    }

    fn ops(&self) -> Ops {
        let (current, draining) = (self.current.clone(), self.draining.clone());
        let metrics = self.running().metrics.clone();
        Ops {
            metrics: Arc::new(move || metrics.render(&current)),
            ready: Arc::new(move || !draining.load(Relaxed)),
        }
    }

    async fn watch(&mut self, mut signals: Signals) {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        loop {
            tokio::select! {
                signal = signals.next() => self.on_signal(signal).await,
                Some(change) = self.changes.recv() => self.on_change(change).await,
                _ = ticks.tick() => self.look_after(),
            }
            if self.is_draining() && self.crew.is_empty() {
                tracing::info!("all workers have ended");
                return;
            }
        }
    }

    async fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Hangup if !self.is_draining() => self.reload().await,
            Signal::Quit => self.quit().await,
            Signal::Terminate | Signal::Interrupt => self.stop().await,
            Signal::Usr1 => {
                tracing::info!("reopening logs");
                self.error_logs.reopen();
                self.running().logs.reopen();
            }
            Signal::Usr2 => self.upgrade(),
            Signal::WindowChange => self.rest().await,
            Signal::Hangup => {}
        }
    }

    /// A new configuration takes the place of the old one, or, when anything in it cannot be had, nothing changes.
    async fn reload(&mut self) {
        let before = self.running();
        let metrics = &before.metrics;
        tracing::info!("reconfiguring");
        match self.next_generation(&before).await {
            Ok(next) => {
                metrics.reloads.fetch_add(1, Relaxed);
                self.take_over(&before, Arc::new(next)).await;
            }
            Err(what) => {
                metrics.reloads_failed.fetch_add(1, Relaxed);
                tracing::error!("{what}; the old configuration stays");
            }
        }
    }

    async fn next_generation(&self, before: &Running) -> Result<Running, String> {
        let origin = self.origin.clone();
        // Names are looked up while it is read, which may take long.
        let loaded = tokio::task::spawn_blocking(move || conf::load(&origin)).await;
        let (settings, _) = loaded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let workers = settings.main.worker_processes;
        let held_logs = before.logs.open(&settings.http.log_files)?;
        process::make_folders(&settings.http.body_folders, settings.main.user.as_ref())?;
        let error_logs = Targets::open(&settings.main.error_logs, &settings.http.error_logs)?;
        // Last: clients come in at once, and those of a configuration that is refused would be reset.
        let listeners = listeners::open(&settings.http.listens, &before.listeners, workers)?;
        self.error_logs.replace(error_logs);
        sessions::go_on(&settings.http.session_zones, &before.settings.http.session_zones);
        Ok(Running {
            listeners,
            upstreams: Arc::new(Set::new(&settings.http, Some(&before.upstreams), before.started.elapsed())),
            limits: Arc::new(Limits::new(&settings.http, Some(&before.limits))),
            logs: before.logs.clone(),
            held_logs,
            metrics: before.metrics.clone(),
            resolvers: resolvers(&settings.http),
            started: before.started,
            era: (before.era.0 + 1, SystemTime::now()),
            changes: before.changes.clone(),
            settings: Arc::new(settings),
        })
    }

    async fn take_over(&mut self, before: &Arc<Running>, next: Arc<Running>) {
        self.probe(&next);
        self.publish(next.clone());
        let stays = |listener: &Arc<Listener>| next.listeners.iter().any(|kept| kept.goes_on(listener));
        let gone = || before.listeners.iter().filter(|listener| !stays(listener));
        self.turn_away(gone());
        self.crew.reload(&next).await;
        self.close(gone());
        next.metrics.forget_others(&next);
        self.names.adopt(&next);
        self.replaced.push((before.era.0, Arc::downgrade(before)));
        rename_pid_file(&before.settings.main, &next.settings.main);
        tracing::info!("reconfigured");
    }

    /// Graceful: what is under way may end, for as long as both `worker_shutdown_timeout` and the environment let it.
    async fn quit(&mut self) {
        if self.draining.swap(true, Relaxed) {
            return;
        }
        tracing::info!("gracefully shutting down");
        self.prober.stop();
        let running = self.running();
        self.turn_away(running.listeners.iter());
        let bounds = [running.settings.main.worker_shutdown_timeout, self.drain_timeout];
        self.crew.drain(bounds.into_iter().flatten().min()).await;
        self.close(running.listeners.iter());
    }

    async fn stop(&mut self) {
        tracing::info!("stopping");
        self.crew.stop().await;
        if !self.draining.swap(true, Relaxed) {
            let running = self.running();
            self.turn_away(running.listeners.iter());
            self.close(running.listeners.iter());
        }
    }

    /// Before workers let in who waits at these listening sockets: afterwards nobody does, and they can be closed.
    fn turn_away<'l>(&self, gone: impl Iterator<Item = &'l Arc<Listener>>) {
        if !self.shares_sockets() {
            gone.for_each(|listener| listeners::turn_away(listener));
        }
    }

    /// Closes listening sockets, unless another process has them too: it goes on with them.
    fn close<'l>(&self, gone: impl Iterator<Item = &'l Arc<Listener>>) {
        if !self.shares_sockets() {
            gone.for_each(|listener| listeners::close(listener));
        }
    }

    /// Tells when the last request of a replaced configuration is over; in nginx that ends a worker process, and
    /// scripts wait for the line.
    fn look_after_replaced(&mut self) {
        self.replaced.retain(|(generation, running)| {
            let is_in_use = running.strong_count() > 0;
            if !is_in_use {
                tracing::info!("generation {generation} of the configuration exited with code 0");
            }
            is_in_use
        });
    }

    fn look_after(&mut self) {
        self.look_after_successor();
        self.look_after_replaced();
        self.crew.look_after(&self.running());
    }
}

fn rename_pid_file(before: &Main, next: &Main) {
    if before.pid == next.pid {
        return;
    }
    match process::write_pid_file(&next.pid) {
        Ok(()) => process::remove_pid_file(&before.pid),
        Err(what) => tracing::error!("{what}"),
    }
}

/// For tests and the stack: what a pid file says.
pub fn pid_of(path: &Path) -> Result<i32, String> {
    process::read_pid_file(path)
}
