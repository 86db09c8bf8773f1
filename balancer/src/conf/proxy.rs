//! `proxy_*`: where a location sends a request and how the request and its answer are changed on the way.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::cookies::Cookies;
use super::location::Pattern;
use super::naming::Naming;
use super::template::Template;
use super::upstream::UpstreamId;
use super::variables::{Facts, HeaderName, WithGroups};
use crate::logic::h1::is_lower_of;
use crate::logic::proxy_protocol;
use crate::tls::client::UpstreamTls;

/// `proxy_pass`.
#[derive(Debug)]
pub struct ProxyPass {
    pub target: Target,
    pub uri: UriForm,
    /// What `$proxy_host` says where the target is fixed: host, and port where it is written.
    pub host: Box<[u8]>,
    /// What `$proxy_port` says where the target is fixed.
    pub port: Box<[u8]>,
    /// `proxy_redirect default`: what a redirect that starts with the first gets in its place.
    pub default_redirect: Option<TextPair>,
    /// How to speak to an `https://` upstream; also given where only the request will tell (`Target::Dynamic`).
    pub tls: Option<Arc<UpstreamTls>>,
}

impl ProxyPass {
    /// The group, where the configuration fixes one.
    pub fn group(&self) -> Option<UpstreamId> {
        match self.target {
            Target::Group(id) => Some(id),
            Target::Dynamic { .. } => None,
        }
    }
}

/// What is replaced, and by what.
pub type TextPair = (Box<[u8]>, Box<[u8]>);

#[derive(Debug)]
pub enum Target {
    Group(UpstreamId),
    /// The URL has variables: rendered per request, then looked up among the groups, else taken as an address.
    /// Names that are neither are asked for as `naming` says.
    Dynamic {
        url: Template,
        naming: Naming,
    },
}

/// What is sent as the request's target.
#[derive(Debug)]
pub enum UriForm {
    /// `proxy_pass http://group;`: as received.
    AsReceived,
    /// `proxy_pass http://group/base/;` in a prefix location: the location's path is replaced by the base.
    Replace { with: Box<[u8]>, prefix_len: usize },
    /// With variables: the URI that the rendered URL has, where it has one.
    OfUrl,
}

/// Everything else that `proxy_*` directives say; shared by locations that inherit it unchanged.
#[derive(Debug)]
pub struct Proxy {
    pub connect_timeout: Duration,
    pub send_timeout: Duration,
    pub read_timeout: Duration,
    pub version: Version,
    /// Off: each piece goes to the client at once, and a slow client slows the upstream. On: what has come is passed on
    /// all the same, and what the client is slow to take is held as `backlog` says.
    pub buffering: bool,
    pub backlog: BacklogTerms,
    pub request_buffering: bool,
    pub buffer_len: usize,
    pub next: NextUpstream,
    /// The headers to send in place of the client's own: `Host` and `Connection` by default, in order.
    pub set_headers: Box<[SetHeader]>,
    /// Names in `set_headers`: the client's own header of that name is not passed on.
    pub replaced: HeaderSet,
    /// `proxy_hide_header` with nginx's own list, less `proxy_pass_header`.
    pub hidden: HeaderSet,
    pub pass_request_headers: bool,
    pub pass_request_body: bool,
    /// Fields that come after the answer's body are passed on.
    pub pass_trailers: bool,
    pub method: Option<Template>,
    pub body: Option<Template>,
    pub intercept_errors: bool,
    pub ignore_client_abort: bool,
    pub redirects: Redirects,
    pub cookies: Cookies,
    pub ignored: Ignored,
    pub bind: Option<Template>,
    pub socket_keepalive: bool,
    /// Ours: what is said before the first request of a connection.
    pub protocol: Option<proxy_protocol::Version>,
}

impl Proxy {
    /// A connection is of one client's and no other's.
    pub fn is_bound_to_client(&self) -> bool {
        self.bind.is_some() || self.protocol.is_some()
    }
}

/// How much of an answer is held for a slow client, and where.
#[derive(Debug, Clone)]
pub struct BacklogTerms {
    /// `proxy_buffers`: in memory.
    pub memory_len: usize,
    /// `proxy_max_temp_file_size`: in a file; 0: none.
    pub file_len_max: u64,
    /// `proxy_temp_path`.
    pub folder: Arc<Path>,
}

/// `proxy_ignore_headers`, as far as it concerns what an upstream may order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ignored {
    pub redirect: bool,
    pub limit_rate: bool,
    pub buffering: bool,
    pub charset: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

/// `proxy_set_header`. An empty value means: send no such header.
#[derive(Debug, Clone)]
pub struct SetHeader {
    /// As written.
    pub name: Box<[u8]>,
    pub hash: u32,
    pub value: Template,
}

/// `proxy_redirect`.
#[derive(Debug)]
pub enum Redirects {
    Off,
    /// The first rule whose text the URL starts with replaces it. `default`: after them, what `proxy_pass` names is
    /// replaced by the location's path.
    Rules {
        rules: Vec<RedirectRule>,
        default: bool,
    },
}

#[derive(Debug)]
pub struct RedirectRule {
    pub from: Matcher,
    pub to: Template,
}

impl RedirectRule {
    /// Appends the value as the rule has it; false, and nothing appended, where it does not fit.
    pub fn apply(&self, value: &[u8], facts: &dyn Facts, out: &mut Vec<u8>) -> bool {
        match &self.from {
            Matcher::Text(text) => {
                let from = text.to_bytes(facts);
                let Some(rest) = value.strip_prefix(&from[..]) else { return false };
                self.to.render(facts, out);
                out.extend_from_slice(rest);
            }
            Matcher::Pattern(pattern) => {
                let Some(captures) = pattern.captures(value) else { return false };
                self.to.render(&WithGroups { facts, captures }, out);
            }
        }
        true
    }
}

/// What is looked for at the start of a value, or anywhere by a pattern.
#[derive(Debug)]
pub enum Matcher {
    Text(Template),
    Pattern(Pattern),
}

/// `proxy_next_upstream` with its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextUpstream {
    pub error: bool,
    pub timeout: bool,
    pub invalid_header: bool,
    pub non_idempotent: bool,
    pub statuses: RetryStatuses,
    /// 0: as many as there are servers.
    pub tries_max: u32,
    /// Zero: no bound.
    pub time_max: Duration,
}

/// Which statuses ask for the next server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryStatuses(u8);

impl RetryStatuses {
    const KNOWN: [u16; 7] = [500, 502, 503, 504, 403, 404, 429];

    /// False when nginx knows no `http_STATUS` of that number.
    pub fn add(&mut self, status: u16) -> bool {
        let position = Self::KNOWN.iter().position(|known| *known == status);
        if let Some(bit) = position {
            self.0 |= 1 << bit;
        }
        position.is_some()
    }

    pub fn contains(self, status: u16) -> bool {
        let position = Self::KNOWN.iter().position(|known| *known == status);
        position.is_some_and(|bit| self.0 & 1 << bit != 0)
    }
}

/// A few header names, asked for each header of each message: a mask by length answers nearly every miss.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderSet {
    /// Bit `len % 64` is set for each name's length.
    lengths: u64,
    names: Vec<HeaderName>,
}

impl HeaderSet {
    pub fn insert(&mut self, name: &[u8]) {
        if !self.contains(name) {
            self.lengths |= 1 << (name.len() % 64);
            self.names.push(HeaderName::new(name));
        }
    }

    pub fn remove(&mut self, name: &[u8]) {
        self.names.retain(|known| !known.lower.eq_ignore_ascii_case(name));
        self.lengths = self.names.iter().fold(0, |mask, known| mask | 1 << (known.lower.len() % 64));
    }

    /// Any case.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.lengths & 1 << (name.len() % 64) != 0
            && self.names.iter().any(|known| known.lower.eq_ignore_ascii_case(name))
    }

    /// The same by a hash already at hand.
    pub fn contains_hashed(&self, hash: u32, name: &[u8]) -> bool {
        self.lengths & 1 << (name.len() % 64) != 0
            && self.names.iter().any(|known| known.hash == hash && is_lower_of(name, &known.lower))
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl FromIterator<&'static str> for HeaderSet {
    fn from_iter<T: IntoIterator<Item = &'static str>>(names: T) -> HeaderSet {
        let mut set = HeaderSet::default();
        names.into_iter().for_each(|name| set.insert(name.as_bytes()));
        set
    }
}
