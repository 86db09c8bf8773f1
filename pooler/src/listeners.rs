//! The sockets that clients come in by: opened by us, passed by a service manager, or taken over from another process;
//! and the tasks that accept from them.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context;
use chassis::listen;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use crate::house::{House, Phase};
use crate::settings::Settings;
use crate::systemd::Passed;
use crate::worker::Accepted;

/// After EMFILE: long enough for somebody to leave, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All sockets that are listened to. `metrics` is no door for clients, but moves along with the others.
#[derive(Debug, Default)]
pub struct Listeners {
    pub tcp: Vec<std::net::TcpListener>,
    pub unix: Vec<UnixSocket>,
    pub metrics: Option<std::net::TcpListener>,
}

/// A unix socket and the file that is removed at the end; none for an abstract one or one that is not ours.
#[derive(Debug)]
pub struct UnixSocket {
    pub listener: StdUnixListener,
    pub path: Option<PathBuf>,
}

/// Copies of the sockets that are being accepted from: for SHOW FDS, and for a process that takes over.
#[derive(Debug, Default)]
pub struct Doors {
    open: Mutex<Listeners>,
}

impl Listeners {
    /// What the settings name.
    pub fn open(settings: &Settings) -> anyhow::Result<Listeners> {
        let mut listeners = Listeners::default();
        for address in addresses(settings)? {
            let options = listen::Tcp { backlog: settings.listen_backlog, reuse_port: settings.so_reuseport };
            match listen::tcp(address, options) {
                Ok(listener) => {
                    tracing::info!("listening on {address}");
                    listeners.tcp.push(listener);
                }
                // One that the machine lacks must not keep the others from being served.
                Err(error) => tracing::warn!("{error}"),
            }
        }
        anyhow::ensure!(
            settings.listen_addr.is_empty() || !listeners.tcp.is_empty(),
            "failed to listen on any address in listen_addr list: {}",
            settings.listen_addr.list.join(", ")
        );
        listeners.unix.extend(unix_socket(settings)?);
        listeners.metrics = metrics_listener(settings)?;
        anyhow::ensure!(
            !listeners.tcp.is_empty() || !listeners.unix.is_empty(),
            "nowhere to listen on: listen_addr and unix_socket_dir are both empty"
        );
        Ok(listeners)
    }

    /// What a service manager opened for us takes the place of what the settings name.
    pub fn from_manager(passed: Vec<Passed>, settings: &Settings) -> anyhow::Result<Listeners> {
        let mut listeners = Listeners { metrics: metrics_listener(settings)?, ..Listeners::default() };
        if !settings.listen_addr.is_empty() {
            tracing::warn!("sockets passed from service manager, listen_addr ignored");
        }
        for socket in passed {
            tracing::info!("socket passed from service manager: {socket:?}");
            match socket {
                Passed::Tcp(listener) => {
                    listener.set_nonblocking(true)?;
                    listeners.tcp.push(listener);
                }
                Passed::Unix(listener) => {
                    listener.set_nonblocking(true)?;
                    listeners.unix.push(UnixSocket { listener, path: None });
                }
            }
        }
        Ok(listeners)
    }

    /// Accepts until the phase says otherwise.
    pub fn accept(self, house: &Arc<House>, mailboxes: &[mpsc::Sender<Accepted>]) -> anyhow::Result<()> {
        *house.doors.lock() = self.duplicate()?;
        for listener in self.tcp {
            let listener = TcpListener::from_std(listener)?;
            tokio::task::spawn_local(accept_tcp(listener, house.clone(), mailboxes.to_vec()));
        }
        for socket in self.unix {
            let listener = UnixListener::from_std(socket.listener)?;
            tokio::task::spawn_local(accept_unix(listener, house.clone(), mailboxes.to_vec()));
        }
        Ok(())
    }

    fn duplicate(&self) -> io::Result<Listeners> {
        let unix = |socket: &UnixSocket| {
            Ok(UnixSocket { listener: socket.listener.try_clone()?, path: socket.path.clone() })
        };
        Ok(Listeners {
            tcp: self.tcp.iter().map(std::net::TcpListener::try_clone).collect::<io::Result<_>>()?,
            unix: self.unix.iter().map(unix).collect::<io::Result<_>>()?,
            metrics: self.metrics.as_ref().map(std::net::TcpListener::try_clone).transpose()?,
        })
    }
}

impl Doors {
    /// Connections are refused from here on, once the accepting tasks have seen the phase: a copy that stays open would
    /// keep them in a queue that nobody reads.
    pub fn close_tcp(&self) {
        self.lock().tcp.clear();
    }

    pub fn listeners(&self) -> io::Result<Listeners> {
        self.lock().duplicate()
    }

    /// The sockets belong to another process now, and so do their files.
    pub fn give_up(&self) {
        *self.lock() = Listeners::default();
    }

    /// The end: nobody should find a file behind which nobody listens.
    pub fn remove_files(&self) {
        for path in self.lock().unix.iter().filter_map(|socket| socket.path.as_ref()) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Number and address of each; None for a unix socket.
    pub fn facts(&self) -> Vec<(RawFd, Option<SocketAddr>)> {
        let open = self.lock();
        let tcp = open.tcp.iter().map(|l| (l.as_raw_fd(), l.local_addr().ok()));
        tcp.chain(open.unix.iter().map(|s| (s.listener.as_raw_fd(), None))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.open.lock().expect("no code panics while it holds the listening sockets")
    }
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
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

fn unix_socket(settings: &Settings) -> anyhow::Result<Option<UnixSocket>> {
    let folder = &settings.unix_socket_dir;
    if folder.is_empty() {
        return Ok(None);
    }
    let name = format!(".s.PGSQL.{}", settings.listen_port);
    if let Some(abstract_name) = folder.strip_prefix('@') {
        let full = format!("{abstract_name}/{name}");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(full.as_bytes())?;
        let listener =
            StdUnixListener::bind_addr(&address).with_context(|| format!("cannot listen on unix:@{full}"))?;
        listener.set_nonblocking(true)?;
        tracing::info!("listening on unix:@{full}");
        return Ok(Some(UnixSocket { listener, path: None }));
    }
    let path = PathBuf::from(folder).join(name);
    let listener =
        listen::unix(&path, settings.unix_socket_mode.0).context("failed to create unix socket")?;
    give_to_group(&path, &settings.unix_socket_group)?;
    tracing::info!("listening on unix:{}", path.display());
    Ok(Some(UnixSocket { listener, path: Some(path) }))
}

/// `unix_socket_group`: a name, or a number.
fn give_to_group(path: &Path, group: &str) -> anyhow::Result<()> {
    if group.is_empty() {
        return Ok(());
    }
    let by_name = nix::unistd::Group::from_name(group)?.map(|found| found.gid);
    let gid = by_name
        .or_else(|| group.parse().ok().map(nix::unistd::Gid::from_raw))
        .with_context(|| format!("unix_socket_group: there is no group \"{group}\""))?;
    nix::unistd::chown(path, None, Some(gid))
        .with_context(|| format!("unix_socket_group: {} cannot be given to {group}", path.display()))
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

async fn accept_tcp(listener: TcpListener, house: Arc<House>, mailboxes: Vec<mpsc::Sender<Accepted>>) {
    loop {
        // Before looking: a change in between must not be missed.
        let changed = house.phase_wake.notified();
        match (house.phase(), house.is_suspended()) {
            (Phase::Running, false) => {}
            (Phase::Running, true) => {
                changed.await;
                continue;
            }
            _ => return take_in_queue(listener, &house, &mailboxes).await,
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = changed => continue,
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

/// Who is in the kernel's queue has connected: to close the socket on him would reset him.
async fn take_in_queue(listener: TcpListener, house: &House, mailboxes: &[mpsc::Sender<Accepted>]) {
    if !matches!(house.phase(), Phase::WaitForClients | Phase::WaitForServers) {
        return;
    }
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        hand_over(house, mailboxes, Accepted::Tcp(stream, peer)).await;
    }
}

/// The unix socket stays open during a shutdown and a SUSPEND, for operators.
async fn accept_unix(listener: UnixListener, house: Arc<House>, mailboxes: Vec<mpsc::Sender<Accepted>>) {
    loop {
        let changed = house.phase_wake.notified();
        if house.phase() == Phase::Moving {
            return;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = changed => continue,
        };
        match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => hand_over(&house, &mailboxes, Accepted::Unix(stream)).await,
            Err(error) => {
                tracing::warn!("accept failed: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn hand_over(house: &House, mailboxes: &[mpsc::Sender<Accepted>], accepted: Accepted) {
    house.clients.announce();
    let worker = usize::from(house.clients.least_loaded(house.spread.in_use()));
    // A full mailbox makes the kernel's queue grow instead of ours.
    let _ = mailboxes[worker].send(accepted).await;
}
