//! The assembly: listeners, workers, keeper, signals, the way out. What main and the tests call.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use chassis::listen;
use chassis::signals::{Signal, Signals};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::cli::Start;
use crate::clients::Order;
use crate::console;
use crate::house::{House, Phase};
use crate::logic::ledger::WorkerId;
use crate::settings::Settings;
use crate::worker::{Accepted, MAILBOX_LEN, Worker};
use crate::{keeper, metrics};

/// After EMFILE: long enough for somebody to leave, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long an immediate end waits for goodbyes to be written.
const GOODBYE: Duration = Duration::from_millis(200);

/// Serves until the process is told to end.
pub fn run(start: Start) -> anyhow::Result<()> {
    let settings = start.settings;
    let workers = match settings.worker_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n as usize,
    };
    let listeners = Listeners::open(&settings)?;
    let metrics_listener = metrics_listener(&settings)?;
    let house = Arc::new(House::new(settings, start.log, workers));
    // The pooler starts without the TLS that cannot be set up, as PgBouncer does; the log says what is wrong.
    let _ = house.apply_tls();
    let mut mailboxes = Vec::new();
    let mut threads = Vec::new();
    for id in 1..workers {
        let (sender, receiver) = mpsc::channel(MAILBOX_LEN);
        mailboxes.push(sender);
        threads.push(spawn_worker(house.clone(), id as WorkerId, receiver)?);
    }
    let (sender, receiver) = mpsc::channel(MAILBOX_LEN);
    mailboxes.insert(0, sender);
    let runtime = runtime()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let signals = Signals::new().context("cannot listen for signals")?;
        let worker = Worker::new(0, house.clone());
        tokio::task::spawn_local(worker.run(receiver));
        tokio::task::spawn_local(keeper::run(house.clone()));
        tokio::task::spawn_local(keeper::watch_statistics(house.clone()));
        if let Some(listener) = metrics_listener {
            house
                .tasks
                .spawn_local("metrics", chassis::ops::serve(listener, ops(&house), house.tasks.clone()));
        }
        let accepting = listeners.accept(&house, &mailboxes)?;
        (start.ready)();
        until_end(&house, signals, accepting).await;
        Ok::<(), anyhow::Error>(())
    })?;
    // The threads hold only clients that were told to go; the process ends with them or without.
    Ok(())
}

/// Sockets that are open but not yet listened to.
struct Listeners {
    tcp: Vec<std::net::TcpListener>,
    unix: Option<(StdUnixListener, PathBuf)>,
}

/// The tasks that accept, which end with the phase.
struct Accepting {
    unix_path: Option<PathBuf>,
}

impl Listeners {
    fn open(settings: &Settings) -> anyhow::Result<Listeners> {
        let mut tcp = Vec::new();
        for address in addresses(settings)? {
            let options = listen::Tcp { backlog: settings.listen_backlog, reuse_port: settings.so_reuseport };
            let listener =
                listen::tcp(address, options).with_context(|| format!("cannot listen on {address}"))?;
            tracing::info!("listening on {address}");
            tcp.push(listener);
        }
        let unix = unix_listener(settings)?;
        Ok(Listeners { tcp, unix })
    }

    fn accept(self, house: &Arc<House>, mailboxes: &[mpsc::Sender<Accepted>]) -> anyhow::Result<Accepting> {
        for listener in self.tcp {
            let listener = TcpListener::from_std(listener)?;
            tokio::task::spawn_local(accept_tcp(listener, house.clone(), mailboxes.to_vec()));
        }
        let mut unix_path = None;
        if let Some((listener, path)) = self.unix {
            let listener = UnixListener::from_std(listener)?;
            tokio::task::spawn_local(accept_unix(listener, house.clone(), mailboxes.to_vec()));
            unix_path = Some(path);
        }
        Ok(Accepting { unix_path })
    }
}

fn addresses(settings: &Settings) -> anyhow::Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for name in settings.listen_addr.iter() {
        let port = settings.listen_port;
        if name == "*" {
            all.push(SocketAddr::from(([0, 0, 0, 0], port)));
            if has_ipv6() {
                all.push(SocketAddr::from(([0u16; 8], port)));
            }
            continue;
        }
        let found =
            (name, port).to_socket_addrs().with_context(|| format!("listen_addr: no address \"{name}\""))?;
        all.extend(found);
    }
    all.sort();
    all.dedup();
    Ok(all)
}

fn has_ipv6() -> bool {
    std::net::TcpListener::bind(("::1", 0)).is_ok()
}

fn unix_listener(settings: &Settings) -> anyhow::Result<Option<(StdUnixListener, PathBuf)>> {
    let folder = &settings.unix_socket_dir;
    if folder.is_empty() {
        return Ok(None);
    }
    let name = format!(".s.PGSQL.{}", settings.listen_port);
    if let Some(abstract_name) = folder.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        let full = format!("{abstract_name}/{name}");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(full.as_bytes())?;
        let listener =
            StdUnixListener::bind_addr(&address).with_context(|| format!("cannot listen on @{full}"))?;
        listener.set_nonblocking(true)?;
        tracing::info!("listening on unix:@{full}");
        return Ok(Some((listener, PathBuf::new())));
    }
    let path = PathBuf::from(folder).join(name);
    let listener = listen::unix(&path, settings.unix_socket_mode.0)
        .with_context(|| format!("cannot listen on unix:{}", path.display()))?;
    tracing::info!("listening on unix:{}", path.display());
    Ok(Some((listener, path)))
}

async fn accept_tcp(listener: TcpListener, house: Arc<House>, mailboxes: Vec<mpsc::Sender<Accepted>>) {
    while house.phase() == Phase::Running {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = house.phase_wake.notified() => continue,
        };
        match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => hand_over(&house, &mailboxes, Accepted::Tcp(stream, peer)).await,
            Err(error) => {
                tracing::warn!("accept failed: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The unix socket stays open during a shutdown, for operators.
async fn accept_unix(listener: UnixListener, house: Arc<House>, mailboxes: Vec<mpsc::Sender<Accepted>>) {
    loop {
        match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => hand_over(&house, &mailboxes, Accepted::Unix(stream)).await,
            Err(error) => {
                tracing::warn!("accept failed: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn hand_over(house: &House, mailboxes: &[mpsc::Sender<Accepted>], accepted: Accepted) {
    let worker = usize::from(house.clients.least_loaded());
    // A full mailbox makes the kernel's queue grow instead of ours.
    let _ = mailboxes[worker].send(accepted).await;
}

fn spawn_worker(
    house: Arc<House>,
    id: WorkerId,
    mailbox: mpsc::Receiver<Accepted>,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let runtime = runtime()?;
    let work = move || LocalSet::new().block_on(&runtime, Worker::new(id, house).run(mailbox));
    std::thread::Builder::new().name(format!("worker-{id}")).spawn(work).context("cannot start a thread")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

fn metrics_listener(settings: &Settings) -> anyhow::Result<Option<std::net::TcpListener>> {
    if settings.metrics_listen_port == 0 {
        return Ok(None);
    }
    let address = (settings.metrics_listen_addr.as_str(), settings.metrics_listen_port);
    let address = address.to_socket_addrs()?.next().context("metrics_listen_addr: no address")?;
    match listen::tcp(address, listen::Tcp { backlog: 16, reuse_port: false }) {
        Ok(listener) => Ok(Some(listener)),
        // The pool matters more than its figures: two poolers on one machine both start.
        Err(error) => {
            tracing::warn!("metrics are off: {error}");
            Ok(None)
        }
    }
}

fn ops(house: &Arc<House>) -> chassis::ops::Ops {
    let (for_metrics, for_ready) = (house.clone(), house.clone());
    chassis::ops::Ops {
        metrics: Arc::new(move || metrics::render(&console::gather(&for_metrics, true))),
        ready: Arc::new(move || for_ready.phase() == Phase::Running),
    }
}

/// Obeys signals and the console until nothing is left to wait for.
async fn until_end(house: &Arc<House>, mut signals: Signals, accepting: Accepting) {
    loop {
        if is_over(house) {
            break;
        }
        tokio::select! {
            signal = signals.next() => on_signal(house, signal),
            () = house.phase_wake.notified() => {}
        }
        if house.phase() == Phase::WaitForServers {
            send_idle_clients_away(house);
        }
    }
    // A fast exit is one: sockets just close, as in PgBouncer.
    if house.phase() != Phase::Ending {
        say_goodbye(house).await;
    }
    if let Some(path) = accepting.unix_path {
        let _ = std::fs::remove_file(path);
    }
}

/// Who is left, operators among them, is told.
async fn say_goodbye(house: &House) {
    for client in house.clients.all() {
        client.give(Order::Shutdown);
    }
    let _ = tokio::time::timeout(GOODBYE, async {
        while !house.clients.is_empty() {
            house.phase_wake.notified().await;
        }
    })
    .await;
}

fn is_over(house: &House) -> bool {
    match house.phase() {
        Phase::Running => false,
        Phase::WaitForClients => house.clients.count_of(|l| l.pool.is_some()) == 0,
        Phase::WaitForServers => house.pools.is_quiet(),
        Phase::Ending => true,
    }
}

fn on_signal(house: &Arc<House>, signal: Signal) {
    match signal {
        Signal::Hangup => {
            tracing::info!("got SIGHUP, re-reading config");
            if let Err(error) = house.log.reopen() {
                tracing::error!("{error}");
            }
            // What is wrong is in the log.
            let _ = console::reload(house);
        }
        Signal::Terminate if house.phase() == Phase::Running => {
            tracing::info!("got SIGTERM, shutting down, waiting for all clients disconnect");
            house.advance(Phase::WaitForClients);
        }
        Signal::Interrupt if house.phase() == Phase::Running => {
            tracing::info!("got SIGINT, shutting down, waiting for all servers connections to be released");
            house.pools.pause(house, None);
            house.advance(Phase::WaitForServers);
        }
        Signal::Terminate | Signal::Interrupt => {
            tracing::info!("got SIGTERM while shutting down, fast exit");
            house.advance(Phase::Ending);
        }
        Signal::Quit => {
            tracing::info!("got SIGQUIT, fast exit");
            house.advance(Phase::Ending);
        }
        Signal::Usr1 => {
            tracing::info!("got SIGUSR1, pausing all activity");
            house.pools.pause(house, None);
        }
        Signal::Usr2 if house.phase() != Phase::Running => {
            tracing::info!("got SIGUSR2 while shutting down, ignoring");
        }
        Signal::Usr2 => {
            tracing::info!("got SIGUSR2, continuing from PAUSE");
            house.pools.resume(house, None);
        }
        Signal::WindowChange => {}
    }
}

/// WAIT_FOR_SERVERS: whoever holds no server has nothing to wait for.
fn send_idle_clients_away(house: &House) {
    for client in house.clients.all() {
        // A session that holds its server ends by itself.
        let has_server = client.link.load(Ordering::Relaxed) > 0;
        let is_idle = matches!(client.doing(), crate::clients::Doing::Idle | crate::clients::Doing::Waiting);
        if is_idle && !has_server && client.login.get().is_some_and(|l| l.pool.is_some()) {
            client.give(Order::Shutdown);
        }
    }
}
