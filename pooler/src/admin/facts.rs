//! What the core tells the console and the metrics, and what the console asks of the core: plain rows and commands.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use pgwire::startup::Replication;

use crate::logic::ledger::Limit;
use crate::settings::{Database, LoadBalanceHosts, Peer, PoolMode, Settings};
use crate::stats::BUCKETS;

/// What an operator wants done. SHOW is one of them: the core answers with facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Show(Show),
    /// Parsed and checked by `Settings::with_set`; the core swaps the settings.
    Set {
        key: String,
        value: String,
    },
    Reload,
    /// Waits until no server is lent and all are closed; None = all databases.
    Pause(Option<String>),
    Resume(Option<String>),
    Disable(String),
    Enable(String),
    Reconnect(Option<String>),
    /// Closes clients and servers at once; the database stays paused.
    Kill(Option<String>),
    KillClient(u64),
    Suspend,
    /// Ours: another process takes over the sockets, see moving.rs.
    HandOver,
    Shutdown(Shutdown),
    /// Waits until the servers that RECONNECT or RELOAD marked are gone.
    WaitClose(Option<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    Now,
    WaitForServers,
    WaitForClients,
}

/// Which table is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    ActiveSockets,
    Clients,
    Config,
    Databases,
    DnsHosts,
    DnsZones,
    Fds,
    Help,
    Lists,
    Mem,
    PeerPools,
    Peers,
    Pools,
    Servers,
    Sockets,
    State,
    Stats,
    StatsAverages,
    StatsTotals,
    Totals,
    Users,
    Version,
}

impl Show {
    /// Rows of clients and servers are many: they are gathered only for those that print them.
    pub fn needs_sockets(self) -> bool {
        matches!(self, Show::Clients | Show::Servers | Show::Sockets | Show::ActiveSockets | Show::Fds)
    }
}

/// How the core answered a command.
#[derive(Clone, Debug)]
pub enum Outcome {
    Done,
    /// Done, but the operator should know this.
    DoneWith(&'static str),
    Facts(Box<Facts>),
    Refused(Refusal),
}

/// Why a command was not carried out, in PgBouncer's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no such database: {0}")]
    NoSuchDatabase(String),
    #[error("database {0} is not paused")]
    NotPaused(String),
    #[error("already suspended/paused")]
    AlreadyPaused,
    #[error("cannot suspend with paused databases")]
    PausedDatabases,
    #[error("pooler is not paused/suspended")]
    NothingPaused,
    #[error("pooler is shutting down")]
    ShuttingDown,
    #[error("only a process of the same user may take over, through the unix socket")]
    NotOurselves,
    #[error("client not found")]
    NoSuchClient,
    #[error("SET failed")]
    Set,
    #[error("RELOAD failed, see logs for additional details")]
    Reload,
}

/// One look at the whole pooler. `Default` gives a pooler in which nothing happens.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// None only in `Default`.
    pub settings: Option<Arc<Settings>>,
    pub pools: Vec<PoolRow>,
    /// Filled when `Show::needs_sockets`, and for the metrics.
    pub sockets: Vec<SocketRow>,
    pub stats: Vec<StatsRow>,
    /// Time over which averages are taken: since the older snapshot of each `StatsRow`.
    pub stats_elapsed: Duration,
    pub databases: Vec<DatabaseRow>,
    pub users: Vec<UserRow>,
    pub peers: Vec<Peer>,
    pub peer_pools: Vec<PeerPoolRow>,
    pub lists: Lists,
    pub state: State,
    pub mem: Vec<MemRow>,
    pub dns_hosts: Vec<DnsHostRow>,
    pub fds: Vec<FdRow>,
    pub errors: Vec<ErrorCount>,
    pub workers: Workers,
}

/// The threads that serve clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Workers {
    pub all: usize,
    pub in_use: usize,
    /// Clients that went from one to another.
    pub changes: u64,
}

/// One pool: a database and a user.
#[derive(Clone, Debug)]
pub struct PoolRow {
    pub database: String,
    pub user: String,
    pub cl_active: u32,
    pub cl_waiting: u32,
    pub cl_active_cancel_req: u32,
    pub cl_waiting_cancel_req: u32,
    pub sv_active: u32,
    pub sv_active_cancel: u32,
    pub sv_being_canceled: u32,
    pub sv_idle: u32,
    pub sv_used: u32,
    pub sv_tested: u32,
    pub sv_login: u32,
    /// How long the oldest waiter has waited.
    pub max_wait: Duration,
    pub pool_mode: PoolMode,
    /// None when the database has one host.
    pub load_balance_hosts: Option<LoadBalanceHosts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    Active,
    Waiting,
    ActiveCancelReq,
    WaitingCancelReq,
    Login,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    Active,
    Idle,
    Used,
    Tested,
    /// Dialling or logging in.
    New,
    ActiveCancel,
    BeingCanceled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    Client(ClientState),
    Server(ServerState),
}

/// An end of a connection; `unix` has the port in its socket's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// One client or server connection.
#[derive(Clone, Debug)]
pub struct SocketRow {
    pub state: SocketState,
    pub user: Option<String>,
    pub database: Option<String>,
    pub replication: Replication,
    pub address: Address,
    pub local_address: Address,
    pub connect_time: SystemTime,
    pub request_time: SystemTime,
    /// How long the client has been waiting for a server.
    pub wait: Duration,
    pub close_needed: bool,
    /// What the log calls it: `C-0x…`, `S-0x…`.
    pub ptr: u64,
    /// `ptr` of the other side of the lease.
    pub link: Option<u64>,
    /// 0 = unknown.
    pub remote_pid: u32,
    /// Empty without TLS, else such as `TLSv1.3/TLS_AES_256_GCM_SHA384`.
    pub tls: String,
    pub application_name: String,
    pub prepared_statements: u32,
    pub id: u64,
    pub buffers: Buffers,
}

/// Bytes on their way through a connection, for SHOW SOCKETS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    pub recv_pos: u32,
    pub pkt_pos: u32,
    pub pkt_remain: u32,
    pub send_pos: u32,
    pub send_remain: u32,
    pub pkt_avail: u32,
    pub send_avail: u32,
}

impl Buffers {
    pub fn is_empty(self) -> bool {
        self.recv_pos == 0 && self.pkt_remain == 0 && self.pkt_avail == 0 && self.send_avail == 0
    }
}

/// Counters of a database since the start; times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub server_assignments: u64,
    pub transactions: u64,
    pub queries: u64,
    /// From clients.
    pub received_bytes: u64,
    /// To clients.
    pub sent_bytes: u64,
    pub transaction_micros: u64,
    pub query_micros: u64,
    pub wait_micros: u64,
    pub client_parses: u64,
    pub server_parses: u64,
    pub binds: u64,
    pub client_logins: u64,
}

/// How long things took, counted by bucket. See stats/histogram.rs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    pub counts: [u64; BUCKETS],
    pub micros: u64,
}

/// What PgBouncer's tables do not have, of one database since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    pub waits: Durations,
    pub queries: Durations,
    pub transactions: Durations,
    pub logins: Durations,
    /// Parse, Bind and Describe of a named statement that the server had already.
    pub prepared_hits: u64,
    /// In the order of `Limit::ALL`.
    pub limits_reached: [u64; Limit::ALL.len()],
}

/// Statistics of one database.
#[derive(Clone, Debug)]
pub struct StatsRow {
    pub database: String,
    pub now: Counters,
    pub detail: Detail,
    /// As they were `Facts::stats_elapsed` ago: PgBouncer keeps two snapshots, one stats_period apart, and takes the older.
    pub older: Counters,
}

/// One database; those made from `*` and the console's own included.
#[derive(Clone, Debug)]
pub struct DatabaseRow {
    pub database: Arc<Database>,
    pub connections: u32,
    pub clients: u32,
    pub paused: bool,
    pub disabled: bool,
}

#[derive(Clone, Debug)]
pub struct UserRow {
    pub name: String,
    pub connections: u32,
    pub clients: u32,
}

#[derive(Clone, Debug)]
pub struct PeerPoolRow {
    pub peer_id: u16,
    pub cl_active_cancel_req: u32,
    pub cl_waiting_cancel_req: u32,
    pub sv_active_cancel: u32,
    pub sv_login: u32,
}

/// Lengths of the pooler's lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    pub databases: u32,
    pub users: u32,
    pub peers: u32,
    pub pools: u32,
    pub peer_pools: u32,
    pub free_clients: u32,
    pub used_clients: u32,
    pub login_clients: u32,
    pub free_servers: u32,
    pub used_servers: u32,
    pub dns_names: u32,
    pub dns_zones: u32,
    pub dns_queries: u32,
    pub dns_pending: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Active,
    Paused,
    Suspended,
}

/// One kind of object in memory.
#[derive(Clone, Debug)]
pub struct MemRow {
    pub name: &'static str,
    pub size_bytes: u32,
    pub used: u32,
    pub free: u32,
}

#[derive(Clone, Debug)]
pub struct DnsHostRow {
    pub hostname: String,
    pub ttl_s: u64,
    pub addresses: Vec<String>,
}

/// One open socket, for SHOW FDS. Cancel keys and passwords are left out: nobody needs them to look at sockets.
#[derive(Clone, Debug)]
pub struct FdRow {
    pub fd: i32,
    /// pooler, client or server.
    pub task: &'static str,
    pub user: Option<String>,
    pub database: Option<String>,
    pub address: Address,
    pub link_fd: i32,
}

/// Errors sent to clients, by kind and code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCount {
    /// client, server, pool or us: whose fault it was.
    pub kind: &'static str,
    pub sqlstate: String,
    pub count: u64,
}
