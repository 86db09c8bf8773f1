//! Server blocks and their locations: how a path finds its location, and what a location says about a request.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::dress::{Dress, Rates};
use super::files::Files;
use super::guard::Guard;
pub use super::pattern::{Captures, Pattern};
use super::proxy::{Proxy, ProxyPass};
use super::rewrite::Step;
use super::settings::{AccessLog, LogId};
use super::template::Template;
use crate::logic::min_rate::MinRate;
use crate::tls::server::ServerTls;

/// One `server` block.
#[derive(Debug)]
pub struct Server {
    /// The first `server_name`, what `$server_name` says.
    pub name: Box<str>,
    pub head: HeadLimits,
    pub tls: Arc<ServerTls>,
    pub http2: Http2,
    /// `client_body_early_read`: values any of which asks for it.
    pub early_read: Box<[Template]>,
    /// `status_zone`, by its place in `Http::zones`.
    pub zone: Option<usize>,
    /// Run before a location is looked for.
    pub steps: Arc<[Step]>,
    pub locations: Locations,
    /// What applies where no location matches, and to errors before one is found.
    pub root: Arc<Location>,
}

/// `http2`, `http2_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2 {
    pub is_on: bool,
    pub streams_max: u32,
    pub body_preread_len: u32,
}

/// How request heads are read; known before the location is.
#[derive(Debug, Clone)]
pub struct HeadLimits {
    pub header_timeout: Duration,
    pub min_rate: Option<MinRate>,
    pub header_buffer_len: usize,
    pub large_buffers: usize,
    pub large_buffer_len: usize,
    pub headers_max: usize,
    pub ignore_invalid_headers: bool,
    pub underscores_in_headers: bool,
    pub merge_slashes: bool,
}

impl HeadLimits {
    /// How long a head is waited for of which so much has come.
    pub fn patience(&self, received_len: u64) -> Duration {
        let by_rate = self.min_rate.map_or(Duration::MAX, |rate| rate.patience(received_len));
        self.header_timeout.min(by_rate)
    }

    /// Who is late is so by the rate, and not by the time for a whole head.
    pub fn is_late_by_rate(&self, received_len: u64) -> bool {
        self.patience(received_len) < self.header_timeout
    }
}

/// The locations of one server (or those nested in one location).
#[derive(Debug, Default)]
pub struct Locations {
    pub exact: HashMap<Box<[u8]>, Arc<Location>>,
    /// Longest first.
    pub prefixes: Vec<Arc<Location>>,
    /// In the order written.
    pub patterns: Vec<(Pattern, Arc<Location>)>,
    pub named: HashMap<Box<str>, Arc<Location>>,
}

/// Which location a path found.
#[derive(Debug)]
pub enum Route<'a> {
    Location(&'a Arc<Location>, Option<Captures>),
    /// The path is a proxied prefix `/x/` without its slash: nginx answers 301 to the path with it.
    AddSlash(&'a Arc<Location>),
    Nothing,
}

impl Locations {
    /// nginx's order: exact, longest prefix, and unless that says `^~` the first pattern that matches; nested ones too.
    pub fn route(&self, path: &[u8]) -> Route<'_> {
        match self.search(path) {
            Found::Final(location, captures) => Route::Location(location, captures),
            Found::Prefix(location) => Route::Location(location, None),
            Found::AddSlash(location) => Route::AddSlash(location),
            Found::Nothing => Route::Nothing,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.patterns.is_empty() && self.named.is_empty()
    }

    fn search(&self, path: &[u8]) -> Found<'_> {
        let mut best = self.fixed(path);
        let mut patterns_too = true;
        if let Found::Prefix(location) = best {
            patterns_too = location.kind != LocationKind::PrefixFinal;
            match location.nested.search(path) {
                Found::Nothing => {}
                found => best = found,
            }
        }
        if matches!(best, Found::Final(..) | Found::AddSlash(_)) || !patterns_too {
            return best;
        }
        for (pattern, location) in &self.patterns {
            let Some(captures) = pattern.captures(path) else { continue };
            return match location.nested.search(path) {
                Found::Nothing => Found::Final(location, Some(captures)),
                Found::Prefix(inner) => Found::Final(inner, Some(captures)),
                found => found,
            };
        }
        best
    }

    /// Without patterns: exact, then the same text as a prefix, then a prefix that lacks only the slash, then the
    /// longest prefix.
    fn fixed(&self, path: &[u8]) -> Found<'_> {
        if let Some(location) = self.exact.get(path) {
            return Found::Final(location, None);
        }
        let mut slash = None;
        for location in &self.prefixes {
            if path.starts_with(&location.path) {
                let whole = location.path.len() == path.len();
                return slash.filter(|_| !whole).map_or(Found::Prefix(location), Found::AddSlash);
            }
            if location.adds_slash() && location.path.strip_suffix(b"/") == Some(path) {
                slash = Some(location);
            }
        }
        slash.map_or(Found::Nothing, Found::AddSlash)
    }
}

enum Found<'a> {
    /// No pattern of an outer block may overrule it.
    Final(&'a Arc<Location>, Option<Captures>),
    Prefix(&'a Arc<Location>),
    AddSlash(&'a Arc<Location>),
    Nothing,
}

/// One `location` block with everything that it inherits.
#[derive(Debug)]
pub struct Location {
    pub kind: LocationKind,
    /// The path or pattern as written.
    pub path: Box<[u8]>,
    pub nested: Locations,
    pub action: Action,
    /// `status_zone`, by its place in `Http::zones`.
    pub zone: Option<usize>,
    /// `set`, `if`, `rewrite`, `return`, `break`: they run when the request comes here.
    pub steps: Arc<[Step]>,
    pub proxy: Arc<Proxy>,
    pub files: Arc<Files>,
    pub body: BodyLimits,
    pub keepalive: ClientKeepalive,
    /// Longest pause between two writes to the client.
    pub send_timeout: Duration,
    pub lingering: Lingering,
    pub default_type: Box<[u8]>,
    /// `add_header`, in the order written.
    pub headers: Arc<[AddHeader]>,
    pub access: Arc<[AccessRule]>,
    pub guard: Arc<Guard>,
    pub dress: Arc<Dress>,
    pub rates: Arc<Rates>,
    /// `limit_except`: where requests of other methods go on.
    pub except: Option<Except>,
    pub error_log: LogId,
    pub log_not_found: bool,
    pub logs: Arc<[AccessLog]>,
    pub error_pages: Arc<[ErrorPage]>,
    pub recursive_error_pages: bool,
    pub real_ip: Option<Arc<RealIp>>,
    pub server_tokens: ServerTokens,
    /// `early_hints`: when a 103 is passed on; `None`: always.
    pub early_hints: Option<Arc<[Template]>>,
    pub absolute_redirect: bool,
    pub server_name_in_redirect: bool,
    pub port_in_redirect: bool,
    pub tcp_nodelay: bool,
    /// `reset_timedout_connection`.
    pub reset_timedout: bool,
    pub internal: bool,
}

impl Location {
    /// Whether anybody may come in, as often as they like.
    pub fn is_open(&self) -> bool {
        let guard = &self.guard;
        self.access.is_empty()
            && guard.basic.is_none()
            && guard.request.is_none()
            && guard.requests.limits.is_empty()
            && guard.connections.limits.is_empty()
    }

    fn adds_slash(&self) -> bool {
        matches!(self.kind, LocationKind::Prefix | LocationKind::PrefixFinal)
            && matches!(self.action, Action::Proxy(_))
            && self.path.len() > 1
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocationKind {
    /// The server block itself.
    Root,
    Exact,
    Prefix,
    /// `^~`: patterns are not tried.
    PrefixFinal,
    Pattern,
    Named,
}

/// `limit_except METHOD… { … }`.
#[derive(Debug)]
pub struct Except {
    /// As they are written in requests.
    pub methods: Box<[Box<[u8]>]>,
    pub location: Arc<Location>,
}

/// What a location does with a request.
#[derive(Debug)]
pub enum Action {
    Proxy(ProxyPass),
    /// `api`.
    Api {
        writes: bool,
    },
    /// `dashboard`: the page, and the path of the API that it reads.
    Dashboard {
        api: Box<str>,
    },
    /// `stub_status`.
    Status,
    /// None of them: the path is looked for among the files.
    Nothing,
}

/// `return CODE [TEXT|URL];`
#[derive(Debug, Clone)]
pub struct Return {
    pub status: u16,
    pub body: ReturnBody,
}

#[derive(Debug, Clone)]
pub enum ReturnBody {
    /// The built-in page of the status.
    Page,
    Text(Template),
    /// For 301, 302, 303, 307 and 308: the Location header.
    Redirect(Template),
    /// 444: close without an answer.
    Close,
}

#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// 0: unlimited.
    pub len_max: u64,
    /// Longest pause between two reads of the body.
    pub timeout: Duration,
    /// Of the whole of it, as far as the client is waited for.
    pub min_rate: Option<MinRate>,
    pub buffer_len: usize,
    pub spool: SpoolTerms,
}

/// Whether bodies go to files. Only where the configuration asks: by default none does.
#[derive(Debug, Clone)]
pub struct SpoolTerms {
    /// `client_body_in_file_only`.
    pub only: FileOnly,
    /// `$request_body_file` is asked for: a long body has a file.
    pub is_asked_for: bool,
    /// `client_body_temp_path`.
    pub folder: Arc<Path>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOnly {
    Off,
    /// Removed after the request.
    Clean,
    On,
}

impl SpoolTerms {
    pub fn is_wanted(&self) -> bool {
        self.is_demanded() || self.is_asked_for
    }

    pub fn is_demanded(&self) -> bool {
        self.only != FileOnly::Off
    }

    pub fn is_kept(&self) -> bool {
        self.only == FileOnly::On
    }
}

/// How long and for how many requests a client's connection is kept.
#[derive(Debug, Clone)]
pub struct ClientKeepalive {
    /// Zero: connections are not kept.
    pub timeout: Duration,
    /// `keepalive_min_timeout`: a shutdown spares connections that have been idle for less.
    pub min_timeout: Duration,
    /// What the `Keep-Alive: timeout=` header says, where it is asked for.
    pub header_timeout: Option<Duration>,
    pub requests_max: u64,
    pub time: Duration,
    pub disabled: DisabledFor,
}

/// `keepalive_disable`: browsers whose connections are not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DisabledFor {
    pub msie6: bool,
    pub safari: bool,
}

#[derive(Debug, Clone)]
pub struct Lingering {
    pub mode: LingeringMode,
    pub time: Duration,
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LingeringMode {
    Off,
    On,
    Always,
}

#[derive(Debug, Clone)]
pub struct AddHeader {
    pub name: Box<[u8]>,
    pub value: Template,
    /// Also on answers other than 200, 201, 204, 206, 301, 302, 303, 304, 307 and 308.
    pub always: bool,
}

/// `allow` and `deny`, first match wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    pub verdict: Verdict,
    pub who: Who,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    All,
    Unix,
    Net(IpNet),
}

/// `error_page CODE… [=[CODE]] TARGET`.
#[derive(Debug, Clone)]
pub struct ErrorPage {
    pub statuses: Vec<u16>,
    pub answer: ErrorAnswer,
    pub target: Template,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorAnswer {
    /// The status that led here.
    Same,
    /// `=CODE`.
    Status(u16),
    /// `=`: whatever the target answers.
    OfTarget,
}

/// `set_real_ip_from`, `real_ip_header`, `real_ip_recursive`.
#[derive(Debug, Clone)]
pub struct RealIp {
    pub trusted: Vec<Who>,
    pub source: RealIpSource,
    pub recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RealIpSource {
    /// A header, lower-case; `x-forwarded-for` is read from the right.
    Header(Box<[u8]>),
    ProxyProtocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerTokens {
    On,
    Off,
    Build,
}
