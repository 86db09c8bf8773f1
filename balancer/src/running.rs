//! What all workers share for one generation of the configuration: settings, sockets, the state of the upstreams.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::mpsc;

use crate::access_log::{HeldFiles, LogFiles};
use crate::conf::listen::Listen;
use crate::conf::settings::Settings;
use crate::control::changes::Change;
use crate::limits::Limits;
use crate::logic::upstreams::Set;
use crate::metrics::Metrics;
use crate::names::Resolver;

#[derive(Debug)]
pub struct Running {
    pub settings: Arc<Settings>,
    /// In the order of `settings.http.listens`.
    pub listeners: Vec<Arc<Listener>>,
    pub upstreams: Arc<Set>,
    /// By `ResolverId`.
    pub resolvers: Arc<[Arc<Resolver>]>,
    /// What limits have counted.
    pub limits: Arc<Limits>,
    /// The same in every generation.
    pub logs: Arc<LogFiles>,
    pub held_logs: HeldFiles,
    /// The same in every generation.
    pub metrics: Arc<Metrics>,
    /// The moment from which `now` counts: the same in every generation.
    pub started: Instant,
    /// Rises with each configuration that is taken over, and when that was.
    pub era: (u64, SystemTime),
    /// Where the API asks for changes: the master's ear, the same in every generation.
    pub changes: mpsc::Sender<Change>,
}

impl Running {
    /// The same configuration with other groups.
    pub fn with_upstreams(&self, upstreams: Set) -> Running {
        Running {
            settings: self.settings.clone(),
            listeners: self.listeners.clone(),
            upstreams: Arc::new(upstreams),
            resolvers: self.resolvers.clone(),
            limits: self.limits.clone(),
            logs: self.logs.clone(),
            held_logs: self.held_logs.clone(),
            metrics: self.metrics.clone(),
            started: self.started,
            era: self.era,
            changes: self.changes.clone(),
        }
    }
}

/// The open sockets of one `listen`. A reload that keeps the address keeps its sockets: none that is listening is closed
/// while its `listen` is there, as who waits in its queue would be reset.
#[derive(Debug)]
pub struct Listener {
    pub listen: Arc<Listen>,
    /// One, or with `reuseport` one for each worker; more where there have been more workers, fewer where the user that we
    /// have become may not bind more.
    pub sockets: Vec<Arc<Socket>>,
}

#[derive(Debug)]
pub enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Listener {
    /// Of two generations: the one goes on with the sockets of the other.
    pub fn goes_on(&self, other: &Listener) -> bool {
        Arc::ptr_eq(&self.sockets[0], &other.sockets[0])
    }

    /// Those from which a worker accepts. With `reuseport` they are spread; without, all are everybody's.
    pub fn sockets_of(&self, worker: usize, workers: usize) -> impl Iterator<Item = &Arc<Socket>> {
        let (is_spread, len) = (self.listen.options.reuseport, self.sockets.len());
        let sockets = self.sockets.iter().enumerate();
        sockets
            .filter(move |(at, _)| !is_spread || is_own((*at, len), (worker, workers)))
            .map(|(_, socket)| socket)
    }
}

/// Whether the one accepts from the other; each comes with how many there are of its kind.
fn is_own((socket, sockets): (usize, usize), (worker, workers): (usize, usize)) -> bool {
    socket % workers == worker || worker % sockets == socket
}

impl Socket {
    /// A duplicate, as tokio wants to own it.
    pub fn try_clone(&self) -> io::Result<Socket> {
        match self {
            Socket::Tcp(listener) => listener.try_clone().map(Socket::Tcp),
            Socket::Unix(listener) => listener.try_clone().map(Socket::Unix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_has_a_worker_and_each_worker_a_socket() {
        for (sockets, workers) in (1..6).flat_map(|sockets| (1..6).map(move |workers| (sockets, workers))) {
            let own = |socket, worker| is_own((socket, sockets), (worker, workers));
            assert!((0..sockets).all(|socket| (0..workers).any(|worker| own(socket, worker))));
            assert!((0..workers).all(|worker| (0..sockets).any(|socket| own(socket, worker))));
            let pairs = (0..sockets).flat_map(|socket| (0..workers).map(move |worker| (socket, worker)));
            let shared = pairs.filter(|(socket, worker)| own(*socket, *worker)).count();
            assert_eq!(shared, sockets.max(workers), "none more than needed");
        }
    }
}
