//! Upstream groups: their servers, their method, their connections kept alive. Values only; the live state of
//! servers is in `logic/upstreams.rs`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::template::Template;

/// Index of a group in `Http::upstreams`. Not stable over reloads: names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub usize);

#[derive(Debug)]
pub struct Upstream {
    pub id: UpstreamId,
    /// As written: `django_backend`, or host and port for an implicit group.
    pub name: Box<str>,
    pub origin: Origin,
    pub method: Method,
    /// Every address of every server, in the order of the configuration; a name with three addresses gives three.
    pub peers: Vec<Peer>,
    pub keepalive: Keepalive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An `upstream` block.
    Block,
    /// `proxy_pass http://host:port` that names no block. nginx: one server, or as many as the name has addresses.
    Implicit,
}

/// How the next server is chosen.
#[derive(Debug, Clone)]
pub enum Method {
    RoundRobin,
    LeastConn,
    IpHash,
    Hash {
        key: Template,
    },
    ConsistentHash {
        key: Template,
    },
    Random,
    /// `random two least_conn`.
    RandomTwo,
}

/// One address of one `server` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The `server` argument as written, e.g. `web-1:8000`.
    pub server: Box<str>,
    pub address: Address,
    /// What `$upstream_addr` shows, rendered once.
    pub name: Box<str>,
    pub weight: u32,
    /// 0: unlimited.
    pub max_conns: u32,
    /// 0: failures are not counted.
    pub max_fails: u32,
    pub fail_timeout: Duration,
    pub backup: bool,
    pub down: bool,
}

/// Where to dial.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `keepalive*` of a group. nginx 1.29.7 and later keep connections by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle connections kept per worker; 0 keeps none.
    pub idle_max: usize,
    pub requests_max: u64,
    /// Longest life of a connection.
    pub time: Duration,
    /// Longest idle time.
    pub timeout: Duration,
}
