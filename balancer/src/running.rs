//! What all workers share for one generation of the configuration: settings, sockets, the state of the upstreams.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::access_log::LogFiles;
use crate::conf::listen::Listen;
use crate::conf::settings::Settings;
use crate::logic::upstreams::Set;
use crate::metrics::Metrics;

#[derive(Debug)]
pub struct Running {
    pub settings: Arc<Settings>,
    /// In the order of `settings.http.listens`.
    pub listeners: Vec<Arc<Listener>>,
    pub upstreams: Arc<Set>,
    /// The same in every generation.
    pub logs: Arc<LogFiles>,
    /// The same in every generation.
    pub metrics: Arc<Metrics>,
    /// The moment from which `now` counts: the same in every generation.
    pub started: Instant,
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

impl Listener {
    /// The socket from which this worker accepts: a duplicate, as tokio wants to own it.
    pub fn socket(&self, worker_index: usize) -> io::Result<Socket> {
        match &self.sockets[worker_index % self.sockets.len()] {
            Socket::Tcp(listener) => listener.try_clone().map(Socket::Tcp),
            Socket::Unix(listener) => listener.try_clone().map(Socket::Unix),
        }
    }
}
