//! The whole configuration as one plain value. Swapped as a whole on reload; read through an `Arc`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::check::HealthCheck;
use super::guard::{ConnectionZone, RequestZone};
use super::listen::Listen;
use super::naming::ResolverTerms;
use super::template::Template;
use super::upstream::{Upstream, UpstreamId};
use super::variables::Variable;
use crate::metrics::ZoneKind;
use crate::tls::sessions::SessionZone;

/// What nginx.conf and everything it includes say.
#[derive(Debug)]
pub struct Settings {
    pub main: Main,
    pub events: Events,
    pub http: Http,
}

/// The main context.
#[derive(Debug, Clone)]
pub struct Main {
    /// Worker threads; `auto` is the number of cores.
    pub worker_processes: usize,
    pub worker_rlimit_nofile: Option<u64>,
    /// A nice value.
    pub worker_priority: Option<i32>,
    /// How long a drain may take before what is left is cut; `None` waits for ever, as nginx does.
    pub worker_shutdown_timeout: Option<Duration>,
    pub pid: PathBuf,
    pub error_logs: Vec<ErrorLog>,
    pub daemon: bool,
    pub user: Option<User>,
    /// Our own directive: metrics and health of the balancer itself.
    pub ops_listen: Option<SocketAddr>,
}

/// `user NAME [GROUP]`: whom workers run as when started by root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub group: Option<String>,
}

/// Which `error_log` lines hold: by what they say, so that a reload does not change it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct LogId(pub u64);

impl LogId {
    /// Those of the main context.
    pub const MAIN: LogId = LogId(0);
}

/// One `error_log` line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ErrorLog {
    pub target: ErrorTarget,
    pub level: ErrorLevel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ErrorTarget {
    Stderr,
    File(PathBuf),
}

/// nginx's levels, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorLevel {
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

/// The events context.
#[derive(Debug, Clone)]
pub struct Events {
    /// Connections per worker, clients' and upstreams' together.
    pub worker_connections: usize,
}

/// The http context, resolved: sockets to open, groups to balance over, files to log to.
#[derive(Debug, Default)]
pub struct Http {
    pub listens: Vec<Arc<Listen>>,
    /// Indexed by [`UpstreamId`]; `proxy_pass http://address` makes an implicit group, as in nginx.
    pub upstreams: Vec<Arc<Upstream>>,
    /// By [`group_key`].
    pub upstream_names: HashMap<Box<str>, UpstreamId>,
    pub checks: Vec<HealthCheck>,
    /// Every `resolver`, by `ResolverId`.
    pub resolvers: Vec<Arc<ResolverTerms>>,
    /// `$balancer_why` is asked for: reasons are noted as servers are chosen.
    pub explains: bool,
    /// What the configuration itself makes, for names that only a page tells.
    pub variables: HashMap<Box<str>, Variable>,
    /// Every `status_zone`.
    pub zones: Vec<(ZoneKind, Box<str>)>,
    /// Every zone of `ssl_session_cache`.
    pub session_zones: Vec<Arc<SessionZone>>,
    /// The distinct files that access logs are written to.
    pub log_files: Vec<Arc<Path>>,
    /// Where bodies of requests go that some location wants in files.
    pub body_folders: Vec<Arc<Path>>,
    /// What `limit_req_zone` and `limit_conn_zone` declare, by `ZoneId`.
    pub request_zones: Vec<Arc<RequestZone>>,
    pub connection_zones: Vec<Arc<ConnectionZone>>,
    /// The `error_log` lines of blocks that have their own.
    pub error_logs: Vec<(LogId, Vec<ErrorLog>)>,
    /// What `$hostname` says.
    pub hostname: Box<str>,
}

impl Http {
    pub fn upstream(&self, id: UpstreamId) -> &Arc<Upstream> {
        &self.upstreams[id.0]
    }

    /// The group a `proxy_pass` with variables names.
    pub fn upstream_named(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstream_names.get(&group_key(name)).map(|id| self.upstream(*id))
    }
}

/// What a group is found by: names of hosts know no case, names of files do.
pub fn group_key(name: &str) -> Box<str> {
    if name.starts_with("unix:") { name.into() } else { name.to_ascii_lowercase().into() }
}

/// `log_format NAME [escape=…] '…'`.
#[derive(Debug)]
pub struct LogFormat {
    pub name: Box<str>,
    pub escape: Escape,
    pub line: Template,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    Default,
    Json,
    None,
}

/// One `access_log` line of a location. Written by `access_log.rs`.
#[derive(Debug, Clone)]
pub struct AccessLog {
    pub target: LogTarget,
    pub format: Arc<LogFormat>,
    /// `buffer=`: bytes gathered before a write; `None` leaves it to the worker's own batch.
    pub buffer_len: Option<usize>,
    pub flush: Option<Duration>,
    /// `gzip`: how hard lines are packed.
    pub gzip: Option<u32>,
    /// `if=`: no line when this is empty or `0`.
    pub condition: Option<Template>,
}

/// Where lines go.
#[derive(Debug, Clone)]
pub enum LogTarget {
    File(Arc<Path>),
    /// A name with variables, below a folder where it is relative.
    Named {
        name: Template,
        folder: Arc<Path>,
        open: Option<OpenLogs>,
    },
}

/// `open_log_file_cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLogs {
    pub files_max: usize,
    pub inactive: Duration,
    pub uses_min: u32,
    pub valid: Duration,
}
