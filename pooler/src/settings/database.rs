//! The entries of `[databases]`, `[users]` and `[peers]` as values.

use std::path::PathBuf;
use std::time::Duration;

use super::values::{LoadBalanceHosts, PoolMode, Secret};

/// Where a Postgres server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// The folder of a unix socket.
    Unix(PathBuf),
    /// Linux's abstract socket namespace, without the leading `@`.
    Abstract(String),
}

impl Host {
    /// As written in a connection string: `/folder`, `@name`, else a host.
    pub fn parse(text: &str) -> Host {
        match text.as_bytes().first() {
            Some(b'/') => Host::Unix(PathBuf::from(text)),
            Some(b'@') => Host::Abstract(text[1..].to_string()),
            _ => Host::Tcp(text.to_string()),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Host::Tcp(name) => f.write_str(name),
            Host::Unix(folder) => write!(f, "{}", folder.display()),
            Host::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// One entry of `[databases]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// The name that clients ask for; `*` in the pattern.
    pub name: String,
    /// The name on the server.
    pub dbname: String,
    /// Empty: the unix socket in `unix_socket_dir`.
    pub hosts: Vec<Host>,
    pub port: u16,
    /// The forced user: each client uses the server as this user.
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub auth_user: Option<String>,
    pub auth_query: Option<String>,
    pub auth_dbname: Option<String>,
    pub pool_size: Option<u32>,
    pub min_pool_size: Option<u32>,
    pub reserve_pool_size: Option<u32>,
    pub max_db_connections: Option<u32>,
    pub max_db_client_connections: Option<u32>,
    pub pool_mode: Option<PoolMode>,
    pub load_balance_hosts: LoadBalanceHosts,
    pub server_lifetime: Option<Duration>,
    pub query_wait_timeout: Option<Duration>,
    pub connect_query: Option<String>,
    /// client_encoding, datestyle, timezone, application_name: sent when a server connection starts.
    pub startup: Vec<(&'static str, String)>,
    /// Made from `*`; forgotten after autodb_idle_timeout.
    pub auto: bool,
}

/// Postgres' port, where none is given.
const POSTGRES_PORT: u16 = 5432;

impl Database {
    /// An entry that says nothing but its name.
    pub fn new(name: &str) -> Database {
        Database {
            name: name.to_string(),
            dbname: name.to_string(),
            hosts: Vec::new(),
            port: POSTGRES_PORT,
            user: None,
            password: None,
            auth_user: None,
            auth_query: None,
            auth_dbname: None,
            pool_size: None,
            min_pool_size: None,
            reserve_pool_size: None,
            max_db_connections: None,
            max_db_client_connections: None,
            pool_mode: None,
            load_balance_hosts: LoadBalanceHosts::RoundRobin,
            server_lifetime: None,
            query_wait_timeout: None,
            connect_query: None,
            startup: Vec::new(),
            auto: false,
        }
    }

    /// What the pattern `*` gives for a name.
    pub fn named(&self, name: &str) -> Database {
        let dbname = if self.dbname == "*" { name.to_string() } else { self.dbname.clone() };
        Database { name: name.to_string(), dbname, auto: true, ..self.clone() }
    }

    /// As SHOW DATABASES prints it; None when the unix socket in `unix_socket_dir` is meant.
    pub fn host_text(&self) -> Option<String> {
        let texts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        (!texts.is_empty()).then(|| texts.join(","))
    }

    /// True when connections made for the old entry must not serve the new one.
    pub fn needs_new_servers(&self, new: &Database) -> bool {
        let server = |d: &Database| (d.dbname.clone(), d.hosts.clone(), d.port, d.load_balance_hosts);
        let login = |d: &Database| (d.user.clone(), d.connect_query.clone());
        let lookup = |d: &Database| (d.auth_dbname.clone(), d.auth_query.clone());
        server(self) != server(new)
            || login(self) != login(new)
            || lookup(self) != lookup(new)
            || self.startup != new.startup
    }
}

/// One entry of `[users]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSettings {
    pub pool_mode: Option<PoolMode>,
    pub pool_size: Option<u32>,
    pub reserve_pool_size: Option<u32>,
    pub max_user_connections: Option<u32>,
    pub max_user_client_connections: Option<u32>,
    pub query_timeout: Option<Duration>,
    pub query_wait_timeout: Option<Duration>,
    pub idle_transaction_timeout: Option<Duration>,
    pub transaction_timeout: Option<Duration>,
    pub client_idle_timeout: Option<Duration>,
}

/// One entry of `[peers]`: another pooler behind the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub id: u16,
    pub host: Host,
    pub port: u16,
    pub pool_size: Option<u32>,
}
