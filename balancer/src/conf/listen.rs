//! Listening sockets and how a connection and a host name find their server block.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::location::{Captures, Pattern, Server};
use super::upstream::Address;
use crate::tls::server::ServerTls;

/// One socket to open. `listen 127.0.0.1:80` beside `listen 80` shares the socket of the latter, as in nginx.
#[derive(Debug)]
pub struct Listen {
    pub address: Address,
    pub options: SocketOptions,
    /// Server blocks by the connection's own local address, where the configuration names some on this port.
    pub by_local: Vec<(IpAddr, Arc<Names>)>,
    pub names: Arc<Names>,
}

impl Listen {
    /// Whether [`Listen::names_for`] depends on the local address (asking the kernel for it costs a call).
    pub fn needs_local(&self) -> bool {
        !self.by_local.is_empty()
    }

    /// The server blocks for a connection that came in on this local address.
    pub fn names_for(&self, local: Option<IpAddr>) -> &Arc<Names> {
        let found = local.and_then(|local| self.by_local.iter().find(|(address, _)| *address == local));
        found.map_or(&self.names, |(_, names)| names)
    }
}

/// Options of `listen` that concern the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOptions {
    pub backlog: u32,
    /// One socket per worker; otherwise all workers accept from one.
    pub reuseport: bool,
    pub ipv6only: bool,
    pub rcvbuf: Option<usize>,
    pub sndbuf: Option<usize>,
    pub so_keepalive: Option<SocketKeepalive>,
    /// A connection is accepted when there is something to read.
    pub deferred: bool,
    pub fastopen: Option<i32>,
}

/// `so_keepalive=`; what it leaves out is the kernel's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKeepalive {
    Off,
    On { idle: Option<Duration>, interval: Option<Duration>, count: Option<u32> },
}

/// The server blocks that share an address, and which of them a host name means.
#[derive(Debug)]
pub struct Names {
    /// `listen … ssl`.
    pub is_tls: bool,
    /// Each connection begins with a header of the PROXY protocol.
    pub is_proxied: bool,
    /// `listen … http2`: as `http2 on` in all of its blocks.
    pub is_http2: bool,
    pub default: Arc<Server>,
    /// Lower-case names without wildcards.
    pub exact: HashMap<Box<[u8]>, Arc<Server>>,
    /// `*.example.com` and `.example.com`: with the leading dot, longest first.
    pub suffixes: Vec<(Box<[u8]>, Arc<Server>)>,
    /// `www.example.*`: with the trailing dot, longest first.
    pub prefixes: Vec<(Box<[u8]>, Arc<Server>)>,
    pub patterns: Vec<(Arc<Pattern>, Arc<Server>)>,
    /// Each name leads to the default: no host needs to be looked up.
    pub is_single: bool,
}

impl Names {
    /// `host` is lower-case and has no port. Exact names, then longest suffix, longest prefix, first pattern.
    pub fn find(&self, host: &[u8]) -> &Arc<Server> {
        self.find_with_groups(host).0
    }

    /// As [`Names::find`], with the groups of the pattern that matched.
    pub fn find_with_groups(&self, host: &[u8]) -> (&Arc<Server>, Option<Captures>) {
        if self.is_single || host.is_empty() && !self.exact.contains_key(host) {
            return (&self.default, None);
        }
        if let Some(server) = self.exact.get(host) {
            return (server, None);
        }
        let suffix = self.suffixes.iter().find(|(suffix, _)| host.ends_with(suffix));
        if let Some((_, server)) = suffix {
            return (server, None);
        }
        let prefix = self.prefixes.iter().find(|(prefix, _)| host.starts_with(prefix));
        if let Some((_, server)) = prefix {
            return (server, None);
        }
        for (pattern, server) in &self.patterns {
            if let Some(captures) = pattern.captures(host) {
                return (server, Some(captures));
            }
        }
        (&self.default, None)
    }

    /// What a handshake for this name is made with. As in nginx: a block without a certificate of its own shows that of
    /// the default server.
    pub fn tls_for(&self, name: Option<&str>) -> &Arc<ServerTls> {
        let server = self.find(name.unwrap_or_default().as_bytes());
        if server.tls.is_ready() { &server.tls } else { &self.default.tls }
    }

    /// For `is_single`, once all names are there. A pattern has more to tell than the server: its groups.
    pub fn lead_to_default_only(&self) -> bool {
        let named = self.suffixes.iter().chain(&self.prefixes).map(|(_, server)| server);
        self.patterns.is_empty()
            && self.exact.values().chain(named).all(|server| Arc::ptr_eq(server, &self.default))
    }
}
