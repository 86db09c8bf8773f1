//! One Postgres connection: socket, what is unsent and unread, and what is known of its state.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use pgwire::Head;
use pgwire::backend::{self, TransactionStatus, kind};
use pgwire::frame::HEAD_LEN;
use pgwire::report::Received;
use pgwire::startup::{CancelKey, Replication};

use crate::logic::ledger::{PoolKey, ServerKey, WorkerId};
use crate::logic::replies::Verdict;
use crate::logic::session::ServerState;
use crate::outbox::Outbox;
use crate::pool::Welcome;
use crate::wire::Wire;

/// Where a server is and how to cancel what it does.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: Address,
    pub key: CancelKey,
    pub is_tls: bool,
    /// The name in the server's certificate.
    pub tls_name: String,
}

/// An address that was dialed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp(std::net::SocketAddr),
    Unix(std::path::PathBuf),
    Abstract(String),
}

/// What the console shows of a server; the parts that change are counters.
#[derive(Debug)]
pub struct ServerInfo {
    pub id: u64,
    pub ptr: u64,
    /// Number of its socket, for SHOW FDS.
    pub fd: std::os::fd::RawFd,
    /// `S-0x…: db/user@host:port`, the beginning of its log lines.
    pub name: String,
    pub target: Target,
    pub host: String,
    pub port: u16,
    pub local: (String, u16),
    pub tls: String,
    pub connected_at: SystemTime,
    pub connected: Instant,
    pub prepared: AtomicU64,
    pub replication: Replication,
    /// What it said about itself at login.
    pub welcome: Arc<Welcome>,
}

/// `Send`, without `Rc` and timers: it moves between workers, though only when it is quiet.
#[derive(Debug)]
pub struct Server {
    pub key: ServerKey,
    pub pool: PoolKey,
    pub worker: WorkerId,
    pub wire: Wire,
    pub state: ServerState,
    pub unsent: Outbox,
    /// The beginning of a message whose rest has not come.
    pub unread: Vec<u8>,
    pub info: Arc<ServerInfo>,
}

const fn assert_send<T: Send>() {}
const _: () = assert_send::<Server>();

impl ServerInfo {
    /// Looks like PgBouncer's pointers, and says nothing about our memory.
    pub fn ptr_of(id: u64) -> u64 {
        0x5600_0000_0000 + id * 0x100
    }

    pub fn name_of(ptr: u64, database: &str, user: &str, host: &str, port: u16) -> String {
        format!("S-0x{ptr:x}: {database}/{user}@{host}:{port}")
    }
}

impl Server {
    /// Nothing owed, unsent or unread, and no transaction: it may serve another client.
    pub fn is_clean(&self) -> bool {
        self.state.is_free() && self.unsent.is_empty() && self.unread.is_empty() && !self.wire.has_unsent()
    }

    /// No byte waits in our buffers; what the connection is in the middle of, it takes along.
    pub fn is_quiet(&self) -> bool {
        self.unsent.is_empty() && self.unread.is_empty() && !self.wire.has_unsent()
    }

    /// Makes the runtime of this worker drive the socket.
    pub fn into_worker(mut self: Box<Self>, worker: WorkerId) -> io::Result<Box<Self>> {
        if self.worker == worker {
            return Ok(self);
        }
        debug_assert!(self.is_quiet());
        self.wire = self.wire.into_this_runtime()?;
        self.worker = worker;
        Ok(self)
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unsent.poll_flush(&mut self.wire, cx)
    }

    /// Sends a query of our own and waits for its end. Only for a server that nobody holds.
    pub async fn run_own(&mut self, sql: &str) -> Result<(), String> {
        let mut out = Vec::new();
        self.state.push_own_query(sql, &mut out);
        self.wire.write_all(&out).await.map_err(|e| e.to_string())?;
        let mut buffer = vec![0; 4096];
        while !self.state.queue.is_drained() {
            let len = self.wire.read(&mut buffer).await.map_err(|e| e.to_string())?;
            if len == 0 {
                return Err("server conn crashed?".to_string());
            }
            self.unread.extend_from_slice(&buffer[..len]);
            self.on_own_bytes()?;
        }
        self.unread.shrink_to(0);
        Ok(())
    }

    /// Looks whether something happened while nobody held the server; free where nothing did.
    #[inline]
    pub fn check_idle(&mut self) -> Result<(), String> {
        if self.wire.has_news() { self.on_idle_news() } else { Ok(()) }
    }

    /// What came while nobody holds the server. Err: it cannot be used any more, with the reason.
    pub fn on_idle_news(&mut self) -> Result<(), String> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut buffer = [0; 4096];
        loop {
            match self.wire.poll_read(&mut cx, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Err("server conn crashed?".to_string()),
                Poll::Ready(Ok(len)) => {
                    self.unread.extend_from_slice(&buffer[..len]);
                    self.on_own_bytes()?;
                }
            }
        }
    }

    fn on_own_bytes(&mut self) -> Result<(), String> {
        let unread = std::mem::take(&mut self.unread);
        let mut rest = unread.as_slice();
        while let Some(head) = Head::parse(rest).map_err(|e| e.to_string())? {
            if rest.len() < head.total_len() {
                break;
            }
            let (message, behind) = rest.split_at(head.total_len());
            self.on_own_message(head, &message[HEAD_LEN..])?;
            rest = behind;
        }
        self.unread = rest.to_vec();
        Ok(())
    }

    fn on_own_message(&mut self, head: Head, body: &[u8]) -> Result<(), String> {
        if head.kind == kind::ERROR {
            return Err(Received::parse(body).map_or_else(|e| e.to_string(), |r| r.summary()));
        }
        if head.kind == kind::PARAMETER_STATUS {
            if let Ok((name, value)) = backend::parse_parameter_status(body)
                && let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value))
                && self.state.parameters.get(name).is_some()
                && let Some(changed) = self.state.parameters.with(name, value, true)
            {
                self.state.parameters = Arc::new(changed);
            }
            return Ok(());
        }
        match self.state.on_own_reply(head.kind) {
            Verdict::Swallow | Verdict::Forward => {}
            Verdict::OwnFailed | Verdict::OutOfStep => return Err("unexpected reply".to_string()),
        }
        if head.kind == kind::READY_FOR_QUERY {
            self.state.status = TransactionStatus::parse(body).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Sends the goodbye that Postgres expects; its loss does no harm.
    pub fn farewell(&mut self) {
        if self.unsent.is_empty() {
            self.wire.try_farewell(b"X\0\0\0\x04");
        }
    }

    pub fn note_prepared(&self) {
        self.info.prepared.store(self.state.statements.len() as u64, Ordering::Relaxed);
    }

    /// Writes now what goes, keeps the rest.
    pub fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        self.unsent.send(&mut self.wire, cx, bytes)
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let len = ready!(self.wire.poll_read(cx, into))?;
        Poll::Ready(Ok(len))
    }
}
