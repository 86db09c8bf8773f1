//! Upstream groups: their servers, their method, their connections kept alive. Values only; the live state of
//! servers is in `logic/upstreams.rs`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use md5::{Digest as _, Md5};

use super::naming::{NamedServer, Naming};
use super::template::Template;

/// Index of a group in `Http::upstreams`. Not stable over reloads: names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub usize);

#[derive(Debug, Clone)]
pub struct Upstream {
    pub id: UpstreamId,
    /// As written: `django_backend`, or host and port for an implicit group.
    pub name: Box<str>,
    pub origin: Origin,
    pub method: Method,
    /// Every address of every server, primaries first; a name with three addresses gives three.
    pub peers: Vec<Peer>,
    /// Servers with `resolve`; the peers that they have by now are among `peers`.
    pub named: Vec<NamedServer>,
    pub naming: Naming,
    pub keepalive: Keepalive,
    pub sticky: Option<Arc<Sticky>>,
    /// `queue`: who comes while no server can be picked waits here.
    pub queue: Option<QueueTerms>,
    /// `zone`: the group can be seen and changed through the API.
    pub zone: Option<Box<str>>,
    /// `state`: where servers that were added at run time survive a restart.
    pub state_file: Option<PathBuf>,
}

impl Upstream {
    /// How much of an IPv6 address `ip_hash` looks at.
    pub fn ipv6_bits(&self) -> u8 {
        match self.method {
            Method::IpHash { ipv6_bits } => ipv6_bits,
            _ => 128,
        }
    }
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
    LeastTime(LeastTime),
    IpHash {
        /// How many bits of an IPv6 address make the key: 128 as in nginx, 64 where clients change the rest.
        ipv6_bits: u8,
    },
    Hash {
        key: Template,
        /// `hash_balance_factor`: no server gets more than so many percent of the average load; 0: no bound.
        balance_percent: u32,
    },
    ConsistentHash {
        key: Template,
        balance_percent: u32,
    },
    Random,
    /// `random two`: the better of two.
    RandomTwo(Better),
}

impl Method {
    /// For `$balancer_why`.
    pub fn name(&self) -> &'static str {
        match self {
            Method::RoundRobin => "round_robin",
            Method::LeastConn => "least_conn",
            Method::LeastTime(_) => "least_time",
            Method::IpHash { .. } => "ip_hash",
            Method::Hash { .. } => "hash",
            Method::ConsistentHash { .. } => "hash_consistent",
            Method::Random => "random",
            Method::RandomTwo(_) => "random_two",
        }
    }
}

/// By what the better of two is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    LeastConn,
    LeastTime(Until),
}

/// `least_time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeastTime {
    pub until: Until,
    /// Requests that are still under way count with the time they have taken so far.
    pub inflight: bool,
}

/// Up to where the time of an answer is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Header,
    LastByte,
}

/// `queue LENGTH [timeout=TIME]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueTerms {
    pub len_max: usize,
    pub timeout: Duration,
}

/// `sticky`: how a client finds back to the server it had.
#[derive(Debug)]
pub struct Sticky {
    /// Tells the server's id, or with `learn` the session; the first that is not empty counts.
    pub lookup: Vec<Template>,
    pub kind: StickyKind,
}

#[derive(Debug)]
pub enum StickyKind {
    Route,
    Cookie(StickyCookie),
    Learn(StickyLearn),
}

/// `sticky cookie NAME …`: what the cookie that we set says.
#[derive(Debug)]
pub struct StickyCookie {
    pub name: Box<[u8]>,
    pub expires: Option<CookieExpires>,
    pub domain: Option<Template>,
    pub path: Option<Box<[u8]>>,
    pub samesite: Option<Template>,
    pub httponly: bool,
    pub secure: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieExpires {
    Max,
    After(Duration),
}

/// `sticky learn …`.
#[derive(Debug)]
pub struct StickyLearn {
    pub create: Vec<Template>,
    pub zone: Box<str>,
    /// As many as nginx keeps in a zone of that size.
    pub sessions_max: usize,
    pub timeout: Duration,
    /// `header`: a session is learnt as soon as the head of the answer has come.
    pub at_header: bool,
}

/// One address of one `server` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub address: Address,
    /// What `$upstream_addr` shows, rendered once.
    pub name: Box<str>,
    pub terms: Terms,
    /// The line of the server with `resolve` whose address this is.
    pub line: Option<u32>,
}

/// What a `server` line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The argument as written, e.g. `web-1:8000`: what consistent hashing hashes.
    pub server: Box<str>,
    /// What sticky sessions know the server by: `route=`, or nginx's hash of its name.
    pub sid: Sid,
    pub weight: u32,
    /// 0: unlimited.
    pub max_conns: u32,
    /// 0: failures are not counted.
    pub max_fails: u32,
    pub fail_timeout: Duration,
    /// Zero: full weight at once.
    pub slow_start: Duration,
    pub tier: Tier,
    pub duty: Duty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    Primary,
    /// `backup`: only while no primary can be picked.
    Backup,
}

/// What the operator wants of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    Up,
    /// Only requests of clients that stick to it.
    Drain,
    Down,
}

/// A server's name for sticky sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sid {
    /// `route=`.
    Route(Box<str>),
    /// The MD5 of the address as `$upstream_addr` shows it, in hexadecimal, as in nginx.
    OfName(Box<str>),
}

impl Sid {
    pub fn of_name(name: &str) -> Sid {
        let hex = |byte: &u8| {
            [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        };
        Sid::OfName(Md5::digest(name.as_bytes()).iter().flat_map(hex).collect())
    }

    pub fn text(&self) -> &str {
        match self {
            Sid::Route(text) | Sid::OfName(text) => text,
        }
    }

    /// `route=` as written; empty where there is none.
    pub fn route(&self) -> &str {
        match self {
            Sid::Route(text) => text,
            Sid::OfName(_) => "",
        }
    }
}

impl Terms {
    /// nginx's defaults.
    pub fn new(server: &str) -> Terms {
        Terms {
            server: server.into(),
            sid: Sid::OfName("".into()),
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            slow_start: Duration::ZERO,
            tier: Tier::Primary,
            duty: Duty::Up,
        }
    }
}

impl Peer {
    /// A server of a `server` line at one of its addresses.
    pub fn at(address: Address, mut terms: Terms) -> Peer {
        let name: Box<str> = address.to_string().into();
        if terms.sid.route().is_empty() {
            terms.sid = Sid::of_name(&name);
        }
        Peer { address, name, terms, line: None }
    }
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
