//! The values of variables, told from one request. Rendering them into heads and lines is the templates' part.

mod connection;
mod files;
mod ours;
mod proxied;
mod tls;

use std::net::SocketAddr;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::conf::location::{Location, Server};
use crate::conf::made::Memory;
use crate::conf::variables::{Facts, HeaderName, Variable};
use crate::downstream::Downstream;
use crate::logic::codings;
use crate::logic::h1::target::split_port;
use crate::logic::h1::{Field, Fields, fields, lines, write};
use crate::logic::passwords;
use crate::relay::scratch::Scratch;
use crate::relay::story::{Asked, Attempt, Limited, Story};
use crate::running::Running;
use crate::worker::Worker;

/// One request, as far as it has come.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    pub worker: &'a Worker,
    pub running: &'a Running,
    pub down: &'a Downstream,
    pub scratch: &'a Scratch,
    pub server: &'a Server,
    pub location: &'a Location,
    pub now: Instant,
}

impl Facts for Told<'_> {
    fn value(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        self.of_request(variable, out)
            .or_else(|| connection::value(self, variable, out))
            .or_else(|| proxied::value(self.down.arrival.proxied.as_deref(), variable, out))
            .or_else(|| tls::value(self.down.arrival.tls.as_deref(), variable, out))
            .or_else(|| self.of_answer(variable, out))
            .or_else(|| self.of_upstream(variable, out))
            .or_else(|| self.of_us(variable, out))
            .or_else(|| files::value(self, variable, out))
            .or_else(|| ours::value(self, variable, out))
            .unwrap_or(false)
    }

    fn memory(&self) -> Option<&Memory> {
        Some(&self.scratch.story.memory)
    }
}

/// Appends, and says that there was a value.
fn put(out: &mut Vec<u8>, value: &[u8]) -> bool {
    out.extend_from_slice(value);
    true
}

fn put_number(out: &mut Vec<u8>, number: u64) -> bool {
    write::decimal(out, number);
    true
}

/// Seconds with three digits after the point.
fn put_seconds(out: &mut Vec<u8>, time: Duration) -> bool {
    let ms = time.as_millis() as u64;
    write::decimal(out, ms / 1000);
    out.push(b'.');
    let rest = ms % 1000;
    put(out, &[b'0' + (rest / 100) as u8, b'0' + (rest / 10 % 10) as u8, b'0' + (rest % 10) as u8])
}

impl<'a> Told<'a> {
    fn story(&self) -> &'a Story {
        &self.scratch.story
    }

    fn head(&self) -> &'a [u8] {
        self.scratch.inbound.unread()
    }

    fn args(&self) -> &'a [u8] {
        match &self.story().args {
            Some(args) => args,
            None => self.story().request.target.query.map_or(b"", |query| query.of(self.head())),
        }
    }

    /// Each family answers `None` for variables of the others.
    fn of_request(&self, variable: &Variable, out: &mut Vec<u8>) -> Option<bool> {
        let story = self.story();
        let request = &story.request;
        let head = self.head();
        Some(match variable {
            Variable::Args | Variable::QueryString => put(out, self.args()),
            Variable::IsArgs => put(out, if self.args().is_empty() { b"" } else { b"?" }),
            Variable::Http(name) => {
                joined(&request.fields, head, name, out)
                    || self.server.head.underscores_in_headers
                        && underscored(&request.fields, head, name, out)
            }
            Variable::Arg(name) => put_some(out, argument(self.args(), name)),
            Variable::Cookie(name) => put_some(out, self.cookie(name)),
            Variable::ContentLength => {
                joined(&request.fields, head, &HeaderName::new(b"content-length"), out)
            }
            Variable::ContentType => joined(&request.fields, head, &HeaderName::new(b"content-type"), out),
            Variable::Uri | Variable::DocumentUri => put(out, &story.path),
            Variable::Host => match story.host.is_empty() {
                true => put(out, self.server.name.as_bytes()),
                false => put(out, &story.host),
            },
            Variable::Request => put(out, request.line_span.of(head)),
            Variable::RequestMethod => put(out, story.method_name(head)),
            Variable::RequestUri => put(out, request.target_span.of(head)),
            Variable::RequestLength => put_number(out, request.len as u64 + story.request_body_len),
            Variable::RequestBody => put_some(out, self.scratch.upload.in_memory()),
            Variable::RequestBodyFile => match &self.scratch.upload.spool {
                Some(spool) => put(out, spool.path().as_os_str().as_encoded_bytes()),
                None => false,
            },
            Variable::RequestId => put_hex(out, &self.request_id()),
            Variable::RequestTime => put_seconds(out, self.since(story.started)),
            Variable::RequestPort => put_some(out, self.request_port()),
            Variable::IsRequestPort => put(out, if self.request_port().is_some() { b":" } else { b"" }),
            Variable::RequestCompletion => put(out, if story.is_complete { b"OK" } else { b"" }),
            Variable::ServerProtocol => put(out, request.version.text().as_bytes()),
            Variable::Pipe => put(out, if story.is_pipelined { b"p" } else { b"." }),
            Variable::Capture(group) => {
                put_some(out, story.captures.as_ref().and_then(|found| found.group(*group)))
            }
            Variable::Named(variable) => put_some(out, story.given(*variable)),
            Variable::User(variable) => put(out, story.given(*variable).unwrap_or_default()),
            Variable::ProxyAddXForwardedFor => self.forwarded_for(out),
            Variable::RemoteUser => put_some(out, self.remote_user().as_deref()),
            _ => return None,
        })
    }

    fn of_answer(&self, variable: &Variable, out: &mut Vec<u8>) -> Option<bool> {
        let story = self.story();
        Some(match variable {
            Variable::Status => {
                let status = story.status_override.unwrap_or(story.status);
                let digits =
                    [status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
                put(out, &digits)
            }
            Variable::BytesSent => put_number(out, story.sent_len),
            Variable::BodyBytesSent => put_number(out, story.sent_len.saturating_sub(story.sent_head_len)),
            Variable::SentHttp(name) => self.sent_header(name, out),
            Variable::SentTrailer(name) => joined_lines(&story.sent_trailers, &name.lower, out),
            Variable::LimitReqStatus => put_some(out, story.limited_requests.map(Limited::text)),
            Variable::LimitConnStatus => put_some(out, story.limited_connections.map(Limited::text)),
            Variable::GzipRatio => {
                let packed = self.scratch.sink.packed();
                packed.is_some_and(|(whole_len, len)| codings::write_ratio(whole_len, len, out))
            }
            Variable::LimitRate => put_number(out, story.limit_rate.unwrap_or_default()),
            _ => return None,
        })
    }

    fn of_upstream(&self, variable: &Variable, out: &mut Vec<u8>) -> Option<bool> {
        let time = |out: &mut Vec<u8>, time: Option<Duration>| match time {
            Some(time) => put_seconds(out, time),
            None => put(out, b"-"),
        };
        let story = self.story();
        Some(match variable {
            Variable::UpstreamAddr => self.per_attempt(out, |out, attempt| put(out, self.asked(&attempt.to))),
            Variable::UpstreamStatus => self.per_attempt(out, |out, attempt| match attempt.outcome.told() {
                None => put(out, b"-"),
                Some(status) => put_number(out, u64::from(status)),
            }),
            Variable::UpstreamConnectTime => {
                self.per_attempt(out, |out, attempt| time(out, attempt.connected))
            }
            Variable::UpstreamHeaderTime => self.per_attempt(out, |out, attempt| time(out, attempt.head)),
            Variable::UpstreamResponseTime => self.per_attempt(out, |out, attempt| time(out, attempt.ended)),
            Variable::UpstreamBytesReceived => {
                self.per_attempt(out, |out, a| put_number(out, a.received_len))
            }
            Variable::UpstreamBytesSent => self.per_attempt(out, |out, a| put_number(out, a.sent_len)),
            Variable::UpstreamResponseLength => self.per_attempt(out, |out, a| put_number(out, a.body_len)),
            Variable::UpstreamHttp(name) => self.upstream_header(name, out),
            Variable::UpstreamTrailer(name) => joined_lines(&story.upstream_trailers, &name.lower, out),
            // There is no cache that could say something.
            Variable::UpstreamCacheStatus
            | Variable::UpstreamCacheLastModified
            | Variable::UpstreamCacheEtag => false,
            Variable::UpstreamCookie(name) => put_some(out, self.upstream_cookie(name)),
            Variable::UpstreamLastServerName => match story.attempts.last() {
                Some(attempt) => put(out, self.asked(&attempt.to)),
                None => false,
            },
            Variable::ProxyHost => put_some(out, self.proxy_host()),
            Variable::ProxyPort => put_some(out, self.proxy_port()),
            _ => return None,
        })
    }

    fn of_us(&self, variable: &Variable, out: &mut Vec<u8>) -> Option<bool> {
        Some(match variable {
            Variable::ConnectionsActive => put_number(out, self.running.metrics.connections().active),
            Variable::ConnectionsReading => put_number(out, self.running.metrics.connections().reading),
            Variable::ConnectionsWaiting => put_number(out, self.running.metrics.connections().waiting),
            Variable::ConnectionsWriting => put_number(out, self.running.metrics.connections().writing),
            Variable::Hostname => put(out, self.running.settings.http.hostname.as_bytes()),
            Variable::ServerName => put(out, self.server.name.as_bytes()),
            Variable::NginxVersion => put(out, b"1.31.5"),
            Variable::Pid => put_number(out, u64::from(std::process::id())),
            Variable::Msec => {
                let wall = self.worker.clock.wall(self.now).duration_since(UNIX_EPOCH).unwrap_or_default();
                put_seconds(out, wall)
            }
            Variable::TimeIso8601 => {
                self.worker.clock.write_local(self.now, crate::clock::Form::Iso8601, out)
            }
            Variable::TimeLocal => {
                self.worker.clock.write_local(self.now, crate::clock::Form::CommonLog, out)
            }
            _ => return None,
        })
    }

    fn since(&self, moment: Option<Instant>) -> Duration {
        moment.map_or(Duration::ZERO, |moment| self.now.saturating_duration_since(moment))
    }

    /// The same for the whole request: drawn from its connection and number and the worker's secret start.
    fn request_id(&self) -> [u8; 16] {
        self.worker.request_id(self.down.arrival.serial, self.down.requests)
    }

    fn request_port(&self) -> Option<&'a [u8]> {
        let request = &self.story().request;
        let named = request.target.authority.or(request.host)?.of(self.head());
        split_port(named).1.filter(|port| !port.is_empty())
    }

    fn cookie(&self, name: &[u8]) -> Option<&'a [u8]> {
        let head = self.head();
        let cookies = self.story().request.fields.all(head, fields::hash(b"cookie"), b"cookie");
        cookies.flat_map(|field| field.value.of(head).split(|byte| *byte == b';')).find_map(|pair| {
            let pair = pair.trim_ascii();
            let equals = memchr::memchr(b'=', pair)?;
            pair[..equals].eq_ignore_ascii_case(name).then(|| &pair[equals + 1..])
        })
    }

    fn forwarded_for(&self, out: &mut Vec<u8>) -> bool {
        let head = self.head();
        for field in self.story().request.fields.known(fields::Known::XForwardedFor) {
            out.extend_from_slice(field.value.of(head));
            out.extend_from_slice(b", ");
        }
        put(out, self.client_text())
    }

    fn client(&self) -> Option<SocketAddr> {
        self.story().client.as_ref().map(|client| client.address).or(self.down.arrival.peer)
    }

    fn client_text(&self) -> &'a [u8] {
        self.story().client.as_ref().map_or(&*self.down.arrival.peer_text, |client| &client.text)
    }

    /// The name in `Authorization: Basic`; nobody has checked its password.
    fn remote_user(&self) -> Option<Vec<u8>> {
        let head = self.head();
        let field =
            self.story().request.fields.find(head, fields::hash(b"authorization"), b"authorization")?;
        passwords::credentials(field.value.of(head)).map(|(name, _)| name)
    }

    fn sent_header(&self, name: &HeaderName, out: &mut Vec<u8>) -> bool {
        let story = self.story();
        let ours = &story.answer;
        if !story.sent_head.is_empty() {
            return joined_lines(&story.sent_head, &name.lower, out);
        }
        match &name.lower[..] {
            b"connection" if story.status == 101 => return put(out, b"upgrade"),
            b"connection" => return put(out, if story.kept_alive { b"keep-alive" } else { b"close" }),
            b"content-type" if ours.is_ours => return put_some(out, non_empty(&ours.content_type)),
            b"location" if ours.is_ours => return put_some(out, non_empty(&ours.location)),
            b"content-length" if ours.is_ours => {
                return ours.content_length.is_some_and(|length| put_number(out, length));
            }
            _ if ours.is_ours => return false,
            _ if self.location.proxy.hidden.contains_hashed(name.hash, &name.lower) => return false,
            _ => {}
        }
        self.upstream_header(name, out)
    }

    fn upstream_header(&self, name: &HeaderName, out: &mut Vec<u8>) -> bool {
        joined(&self.story().response.fields, self.scratch.from_upstream.unread(), name, out)
    }

    fn upstream_cookie(&self, name: &[u8]) -> Option<&'a [u8]> {
        let head = self.scratch.from_upstream.unread();
        let fields = &self.story().response.fields;
        fields.all(head, fields::hash(b"set-cookie"), b"set-cookie").find_map(|field| {
            let pair = field.value.of(head).split(|byte| *byte == b';').next()?;
            let equals = memchr::memchr(b'=', pair)?;
            let (key, value) = (&pair[..equals], &pair[equals + 1..]);
            trim_spaces(key).eq_ignore_ascii_case(name).then(|| trim_spaces(value))
        })
    }

    fn proxy_pass(&self) -> Option<&'a crate::conf::proxy::ProxyPass> {
        match &self.location.action {
            crate::conf::location::Action::Proxy(pass) => Some(pass),
            _ => None,
        }
    }

    /// `$proxy_host`.
    pub fn proxy_host(&self) -> Option<&'a [u8]> {
        let fixed = self.proxy_pass().map(|pass| &pass.host[..])?;
        Some(self.story().dynamic_host.as_deref().unwrap_or(fixed))
    }

    fn proxy_port(&self) -> Option<&'a [u8]> {
        let fixed = self.proxy_pass().map(|pass| &pass.port[..])?;
        match &self.story().dynamic_host {
            Some(host) => {
                let usual: &[u8] = if self.story().dynamic_is_tls { b"443" } else { b"80" };
                Some(split_port(host).1.unwrap_or(usual))
            }
            None => Some(fixed),
        }
    }

    fn asked(&self, asked: &'a Asked) -> &'a [u8] {
        match asked {
            Asked::Peer { group, index } => {
                self.running.upstreams.group(*group).peers()[*index].name.as_bytes()
            }
            Asked::Name(name) => name.as_bytes(),
        }
    }

    /// `a, b`: one value per server asked, in order; ` : ` where those of another location begin.
    fn per_attempt(&self, out: &mut Vec<u8>, tell: impl Fn(&mut Vec<u8>, &'a Attempt) -> bool) -> bool {
        let story = self.story();
        let Some(first) = story.attempts.first() else { return false };
        let mut pass = first.pass;
        for (i, attempt) in story.attempts.iter().enumerate() {
            match attempt.pass == pass {
                true if i == 0 => {}
                true => out.extend_from_slice(b", "),
                false => out.extend_from_slice(b" : "),
            }
            pass = attempt.pass;
            tell(out, attempt);
        }
        // The last location had nobody to ask.
        if pass < story.passes {
            out.extend_from_slice(b" : ");
        }
        true
    }
}

/// Spaces only: nginx takes a tab for part of a cookie's name.
fn trim_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

fn non_empty(value: &[u8]) -> Option<&[u8]> {
    Some(value).filter(|value| !value.is_empty())
}

fn put_some(out: &mut Vec<u8>, value: Option<&[u8]>) -> bool {
    value.is_some_and(|value| put(out, value))
}

fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    for byte in bytes {
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    true
}

/// All fields of a name, joined as nginx joins them; `Cookie` has its own separator.
fn joined(fields: &Fields, head: &[u8], name: &HeaderName, out: &mut Vec<u8>) -> bool {
    let separator: &[u8] = if &name.lower[..] == b"cookie" { b"; " } else { b", " };
    let mut found = false;
    for field in fields.all(head, name.hash, &name.lower) {
        if found {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(field.value.of(head));
        found = true;
    }
    found
}

/// The first field whose name is this one but for underscores in the place of hyphens: `$http_` makes no difference.
fn underscored(fields: &Fields, head: &[u8], name: &HeaderName, out: &mut Vec<u8>) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let is_it = |field: &&Field| field.name.of(head).iter().map(plain).eq(name.lower.iter().copied());
    put_some(out, fields.list.iter().find(is_it).map(|field| field.value.of(head)))
}

/// The same for lines that were written.
fn joined_lines(lines: &[u8], name: &[u8], out: &mut Vec<u8>) -> bool {
    let mut found = false;
    for value in lines::values(lines, name) {
        if found {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(&lines[value]);
        found = true;
    }
    found
}

fn argument<'q>(query: &'q [u8], name: &[u8]) -> Option<&'q [u8]> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        pair[..equals].eq_ignore_ascii_case(name).then(|| &pair[equals + 1..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_three_digits_after_the_point() {
        let mut out = Vec::new();
        put_seconds(&mut out, Duration::from_millis(12_005));
        assert_eq!(out, b"12.005");
    }

    #[test]
    fn an_argument_is_found_by_name_and_may_be_empty() {
        assert_eq!(argument(b"a=1&b=&c", b"B"), Some(&b""[..]));
        assert_eq!(argument(b"a=1&b=&c", b"c"), None);
        assert_eq!(argument(b"ab=1&b=2", b"b"), Some(&b"2"[..]));
    }
}
