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

/// The open sockets of one `listen`. The same value in two generations: the sockets stay open over the reload.
#[derive(Debug)]
pub struct Listener {
    pub listen: Arc<Listen>,
    /// One for all workers, or with `reuseport` one for each.
    pub sockets: Vec<Socket>,
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
    /// The socket from which this worker accepts: a duplicate, as tokio wants to own it.
    pub fn socket(&self, worker_index: usize) -> io::Result<Socket> {
        match &self.sockets[worker_index % self.sockets.len()] {
            Socket::Tcp(listener) => listener.try_clone().map(Socket::Tcp),
            Socket::Unix(listener) => listener.try_clone().map(Socket::Unix),
        }
    }
}
