//! Active health checks: which servers are asked for what, and what a good answer looks like. Who asks: prober.rs.

use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;

use super::upstream::UpstreamId;
use crate::logic::proxy_protocol;
use crate::tls::connect::TlsPeer;

/// `health_check` of one location.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    pub group: UpstreamId,
    pub interval: Duration,
    /// Each pause is longer by up to so much.
    pub jitter: Duration,
    pub terms: CheckTerms,
    pub asks: Asks,
    /// In place of the server's own.
    pub port: Option<u16>,
    /// What `Host` says.
    pub host: Box<str>,
    /// `proxy_pass https://…`: checks speak TLS too, to whom `proxy_ssl_name` says.
    pub tls: Option<TlsPeer>,
    /// `proxy_protocol`: servers that demand its header demand it of checks.
    pub protocol: Option<proxy_protocol::Version>,
    /// Servers that are sent requests in HTTP/2 are checked in it.
    pub is_http2: bool,
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
}

/// What a server is asked.
#[derive(Debug, Clone)]
pub enum Asks {
    /// For a page, which must look like this.
    Page { uri: Box<str>, matcher: Arc<Match> },
    /// Whether it serves, by gRPC's health checking protocol; `also_good` is a status that says so too.
    Grpc { service: Box<str>, also_good: u32 },
}

/// How many answers in a row turn a server's state, and whether it must pass one before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckTerms {
    /// Which check of its group this is: a server has a state in each.
    pub place: usize,
    pub fails: u32,
    pub passes: u32,
    pub mandatory: bool,
}

/// A `match` block: every rule must hold.
#[derive(Debug, Default)]
pub struct Match {
    pub status: Option<StatusRule>,
    pub headers: Vec<HeaderRule>,
    pub body: Option<BodyRule>,
}

/// `status [!] CODE | FROM-TO …`.
#[derive(Debug)]
pub struct StatusRule {
    pub ranges: Vec<(u16, u16)>,
    pub negated: bool,
}

/// `header …`.
#[derive(Debug)]
pub struct HeaderRule {
    /// Lower-case.
    pub name: Box<[u8]>,
    pub test: HeaderTest,
    pub negated: bool,
}

#[derive(Debug)]
pub enum HeaderTest {
    Present,
    Equals(Box<[u8]>),
    Pattern(Regex),
}

/// `body ~ PATTERN` or `body !~ PATTERN`.
#[derive(Debug)]
pub struct BodyRule {
    pub pattern: Regex,
    pub negated: bool,
}

impl Match {
    /// What a check without `match=` asks for.
    pub fn success() -> Match {
        let status = StatusRule { ranges: vec![(200, 399)], negated: false };
        Match { status: Some(status), ..Match::default() }
    }
}
