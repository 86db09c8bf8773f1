//! `resolver`: which name servers are asked, and the servers of upstreams that are known by a name only.

use std::net::SocketAddr;
use std::time::Duration;

use super::upstream::Terms;
use crate::logic::resolver;

/// Index of a resolver in `Http::resolvers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolverId(pub usize);

/// `resolver ADDRESS… [valid=] [ipv4=] [ipv6=] [status_zone=]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverTerms {
    pub servers: Box<[SocketAddr]>,
    pub valid: Option<Duration>,
    pub ipv4: bool,
    pub ipv6: bool,
    pub status_zone: Option<Box<str>>,
}

impl ResolverTerms {
    /// What decisions depend on.
    pub fn for_logic(&self) -> resolver::Terms {
        resolver::Terms { servers: self.servers.len(), valid: self.valid, ipv4: self.ipv4, ipv6: self.ipv6 }
    }
}

/// What holds for names in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Naming {
    pub resolver: Option<ResolverId>,
    /// `resolver_timeout`.
    pub timeout: Duration,
}

/// `server NAME resolve`: its addresses come and go as name servers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedServer {
    /// Which `server` line of its group: what its peers are known by.
    pub line: u32,
    pub host: Box<str>,
    pub port: u16,
    /// `service=`: SRV records tell the servers.
    pub service: Option<Box<str>>,
    pub terms: Terms,
}
