//! What all workers share: settings, pools, clients, statements, statistics. No work is done here.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use chassis::tasks::Tasks;
use tokio::sync::Notify;

use crate::clients::Clients;
use crate::derive::Derivations;
use crate::log::Log;
use crate::logic::statements::{Registry, Shared};
use crate::pool::Pools;
use crate::resolver::{Resolver, Ttl};
use crate::settings::Settings;
use crate::spread::Spread;
use crate::stats::Stats;
use crate::systemd::Notifier;
use crate::wire::Wire;

/// How far the process is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    Running,
    /// No new clients; ends when the last client has gone.
    WaitForClients,
    /// No new clients, nobody gets a server any more; ends when the last server is free.
    WaitForServers,
    /// Another process has taken over: ends when the last client has moved there, or has gone.
    Moving,
    Ending,
}

/// Whether clients are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    Serving,
    /// SUSPEND: nothing is read, what is in hand is sent.
    Suspended,
    /// Clients move to another process where they can.
    Moving,
}

pub struct House {
    settings: Mutex<Arc<Settings>>,
    settings_version: AtomicU64,
    pub pools: Pools,
    pub clients: Clients,
    pub resolver: Resolver,
    pub cancels: crate::cancel::Desk,
    pub stats: Stats,
    pub spread: Spread,
    pub tls: crate::tls::Contexts,
    statements: Mutex<Registry>,
    pub tasks: Tasks,
    /// Room has appeared, or a chore: the keeper should look now.
    pub keeper_wake: Notify,
    /// The phase has changed, or something it waits for.
    pub phase_wake: Notify,
    /// A client has left.
    pub client_gone: Notify,
    /// Deadlines, or how often they are to be looked at, have changed.
    pub deadlines_wake: Notify,
    phase: AtomicU8,
    standing: AtomicU8,
    /// The way to the process that takes over.
    pub movers: crate::moving::Movers,
    pub doors: crate::listeners::Doors,
    pub notifier: Notifier,
    last_id: AtomicU64,
    /// track_extra_parameters; only read at start.
    pub extra: Arc<[String]>,
    /// Seeds the mock salt of unknown users.
    pub login_secret: [u8; 32],
    pub derivations: Derivations,
    /// The file that LDAPCONF names. Set once, at the start.
    pub ldap_conf: OnceLock<PathBuf>,
    pub workers: usize,
    pub log: Log,
}

impl House {
    pub fn new(settings: Settings, log: Log, notifier: Notifier, workers: usize) -> House {
        let mut login_secret = [0; 32];
        getrandom::fill(&mut login_secret).expect("the kernel gives random bytes");
        House {
            pools: Pools::new(&settings),
            clients: Clients::new(workers),
            resolver: Resolver::default(),
            cancels: crate::cancel::Desk::default(),
            stats: Stats::new(workers),
            spread: Spread::new(workers, settings.worker_busy > 0),
            tls: crate::tls::Contexts::default(),
            statements: Mutex::default(),
            tasks: Tasks::new(),
            keeper_wake: Notify::new(),
            phase_wake: Notify::new(),
            client_gone: Notify::new(),
            deadlines_wake: Notify::new(),
            phase: AtomicU8::new(Phase::Running as u8),
            standing: AtomicU8::new(Standing::Serving as u8),
            movers: crate::moving::Movers::default(),
            doors: crate::listeners::Doors::default(),
            notifier,
            last_id: AtomicU64::new(0),
            extra: settings.track_extra_parameters.iter().map(str::to_string).collect(),
            login_secret,
            derivations: Derivations::new(workers),
            ldap_conf: OnceLock::new(),
            workers,
            log,
            settings_version: AtomicU64::new(settings.version),
            settings: Mutex::new(Arc::new(settings)),
        }
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.settings.lock().expect("swapping settings does not panic").clone()
    }

    /// Clients and servers are numbered together.
    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn settings_version(&self) -> u64 {
        self.settings_version.load(Ordering::Acquire)
    }

    /// One value out of the settings, without keeping them.
    pub fn settings_cached<T>(&self, read: impl FnOnce(&Settings) -> T) -> T {
        read(&self.settings.lock().expect("swapping settings does not panic"))
    }

    /// RELOAD or SET.
    pub fn replace_settings(&self, settings: Settings) -> Result<(), String> {
        if let Err(error) = self.log.apply(&settings.keys) {
            tracing::error!("{error}");
        }
        let version = settings.version;
        *self.settings.lock().expect("swapping settings does not panic") = Arc::new(settings);
        self.settings_version.store(version, Ordering::Release);
        self.pools.apply_settings(self);
        self.pools.open_minimum(self);
        self.keeper_wake.notify_one();
        self.deadlines_wake.notify_waiters();
        self.apply_tls().inspect_err(|what| tracing::error!("TLS setup failed: {what}"))
    }

    pub fn intern(&self, query: &[u8], types: &[u8]) -> Arc<Shared> {
        self.statements.lock().expect("interning does not panic").intern(query, types)
    }

    /// Contexts of TLS as the settings say. Where they cannot be, what was in force stays.
    /// Servers that were dialed under other rules are replaced.
    pub fn apply_tls(&self) -> Result<(), String> {
        let applied = self.tls.apply(&self.settings().keys)?;
        if applied.servers_changed {
            self.pools.reconnect(self, None);
        }
        Ok(())
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::WaitForClients,
            2 => Phase::WaitForServers,
            3 => Phase::Moving,
            _ => Phase::Ending,
        }
    }

    /// Only forward.
    pub fn advance(&self, phase: Phase) {
        let before = self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        if before == Phase::Running as u8 && phase != Phase::Running {
            self.notifier.stopping();
        }
        if phase == Phase::WaitForServers {
            // Who holds no server now gets none any more.
            self.pools.pause_all(self);
        }
        if phase == Phase::Moving {
            self.standing.store(Standing::Moving as u8, Ordering::Release);
        }
        self.deadlines_wake.notify_waiters();
        self.phase_wake.notify_waiters();
    }

    #[inline]
    pub fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            0 => Standing::Serving,
            1 => Standing::Suspended,
            _ => Standing::Moving,
        }
    }

    pub fn is_suspended(&self) -> bool {
        self.standing() == Standing::Suspended
    }

    /// SUSPEND begins, or ends. False: it was so already, or clients are on the move.
    pub fn set_suspended(&self, suspended: bool) -> bool {
        let (from, to) = match suspended {
            true => (Standing::Serving, Standing::Suspended),
            false => (Standing::Suspended, Standing::Serving),
        };
        let swapped =
            self.standing.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire);
        swapped.is_ok()
    }

    /// The addresses of a server's name.
    pub async fn resolve(&self, name: &str, port: u16) -> std::io::Result<Vec<std::net::SocketAddr>> {
        let ttl = self.settings_cached(|s| Ttl { found: s.dns_max_ttl, not_found: s.dns_nxdomain_ttl });
        self.resolver.resolve(name, port, ttl).await
    }

    /// How many statement texts clients and servers share.
    pub fn statement_count(&self) -> usize {
        self.statements.lock().expect("interning does not panic").len()
    }

    /// Names of statements that another process gave are not given again.
    pub fn start_statements_after(&self, id: u64) {
        self.statements.lock().expect("interning does not panic").start_after(id);
    }

    pub fn last_statement(&self) -> u64 {
        self.statements.lock().expect("interning does not panic").last_id()
    }

    /// Socket options of the settings, for a client.
    pub fn tune(&self, wire: &Wire) {
        if let Some(stream) = wire.tcp_stream() {
            self.tune_socket(&socket2::SockRef::from(stream));
        }
    }

    /// Socket options of the settings, for clients and servers alike.
    pub fn tune_socket(&self, socket: &socket2::Socket) {
        let settings = self.settings();
        // None of these failing makes a connection unusable.
        let _ = socket.set_tcp_nodelay(true);
        if settings.tcp_keepalive {
            // With no times given it only switches them on.
            let mut keepalive = socket2::TcpKeepalive::new();
            if !settings.tcp_keepidle.is_zero() {
                keepalive = keepalive.with_time(settings.tcp_keepidle);
            }
            if !settings.tcp_keepintvl.is_zero() {
                keepalive = keepalive.with_interval(settings.tcp_keepintvl);
            }
            if settings.tcp_keepcnt > 0 {
                keepalive = keepalive.with_retries(settings.tcp_keepcnt);
            }
            let _ = socket.set_tcp_keepalive(&keepalive);
        }
        let buffer = settings.tcp_socket_buffer as usize;
        if buffer > 0 {
            let _ = socket.set_recv_buffer_size(buffer);
            let _ = socket.set_send_buffer_size(buffer);
        }
        let user_timeout = settings.tcp_user_timeout.0;
        if !user_timeout.is_zero() {
            let _ = socket.set_tcp_user_timeout(Some(user_timeout));
        }
    }
}
