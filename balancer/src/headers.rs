//! Heads on their way through: what is taken off because it concerns one hop only, what is put on because the
//! configuration says so, and all else as it came, in order and case.

use crate::conf::location::{Action, DisabledFor, ServerTokens};
use crate::conf::proxy::{ProxyPass, Redirects, SetHeader, UriForm, Version as ProxyVersion};
use crate::logic::agents;
use crate::logic::escape::escape_path;
use crate::logic::h1::{Field, Framing, Known, Method, Version, fields, hash, write};
use crate::relay::sink::Coding;
use crate::relay::story::PathIs;
use crate::relay::{Exchange, IdleTime};

const HOST: u32 = hash(b"host");
const CONNECTION: u32 = hash(b"connection");
const UPGRADE: u32 = hash(b"upgrade");
const CONTENT_LENGTH: u32 = hash(b"content-length");
const TRANSFER_ENCODING: u32 = hash(b"transfer-encoding");
const LOCATION: u32 = hash(b"location");
const EXPIRES: u32 = hash(b"expires");
const SERVER: u32 = hash(b"server");
const DATE: u32 = hash(b"date");
const REFRESH: u32 = hash(b"refresh");
const SET_COOKIE: u32 = hash(b"set-cookie");
const USER_AGENT: u32 = hash(b"user-agent");

/// Headers of the client that `Connection: name` cannot take away: what they say about the client, or about the
/// request's end, is not the client's to remove (CVE-2024-45410 and its kin).
const PROTECTED: &[&[u8]] = &[
    b"authorization",
    b"content-length",
    b"content-type",
    b"cookie",
    b"forwarded",
    b"host",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-proto",
    b"x-forwarded-server",
    b"x-real-ip",
    b"x-request-id",
];

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    pub framing: Framing,
    /// How long to wait for the client's next request; `None` closes.
    pub keep_alive: Option<IdleTime>,
}

impl Exchange<'_> {
    /// Writes the request as the upstream gets it, with the body that is at hand, into `to_upstream`.
    pub fn write_request(&mut self, pass: &ProxyPass) {
        let mut out = std::mem::take(&mut self.scratch.to_upstream.data);
        let from = out.len();
        self.write_request_line(pass, &mut out);
        let asked_head = out[from..].get(..5).is_some_and(|method| method.eq_ignore_ascii_case(b"HEAD "));
        let (mut names_protocol, mut closes) = (false, false);
        for header in &self.location.proxy.set_headers {
            let Some(value_at) = self.write_set_header(header, &mut out) else { continue };
            let value = &out[value_at..out.len() - 2];
            match header.hash {
                CONNECTION => {
                    closes |= fields::list_members(value).any(|m| m.eq_ignore_ascii_case(b"close"));
                }
                UPGRADE => names_protocol = true,
                _ => {}
            }
        }
        match self.scratch.upload.framing() {
            Framing::Length(len) => write::content_length(&mut out, len),
            Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::None | Framing::UntilClose => {}
        }
        if self.location.proxy.version == ProxyVersion::Http2 && self.scratch.story.request.accepts_trailers {
            out.extend_from_slice(b"TE: trailers\r\n");
        }
        if self.location.proxy.pass_request_headers {
            self.write_clients_own(&mut out);
        }
        out.extend_from_slice(b"\r\n");
        self.scratch.upload.write_kept(&mut out);
        let story = &mut self.scratch.story;
        story.is_upgrade_sent = names_protocol;
        story.is_close_sent = closes;
        story.asked_head = asked_head;
        self.scratch.to_upstream.data = out;
    }

    fn write_request_line(&self, pass: &ProxyPass, out: &mut Vec<u8>) {
        let story = &self.scratch.story;
        let head = self.scratch.inbound.unread();
        let from = out.len();
        match &self.location.proxy.method {
            Some(method) => method.render(&self.facts(), out),
            None => out.extend_from_slice(story.method_name(head)),
        }
        out.push(b' ');
        match &pass.uri {
            UriForm::Replace { with, prefix_len } if story.path_is != PathIs::Rewritten => {
                out.extend_from_slice(with);
                let rest = story.path.get(*prefix_len..).unwrap_or_default();
                self.write_path(rest, out);
                self.write_args(out);
            }
            UriForm::OfUrl if self.scratch.story.dynamic_uri.is_some() => {
                out.extend_from_slice(self.scratch.story.dynamic_uri.as_deref().unwrap_or_default());
            }
            _ if story.path_is != PathIs::AsSent => {
                self.write_path(&story.path, out);
                self.write_args(out);
            }
            _ => {
                let target = story.request.target;
                if target.path.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(target.origin_form().of(head));
            }
        }
        write::clean(&mut out[from..]);
        out.extend_from_slice(match self.location.proxy.version {
            ProxyVersion::Http10 => b" HTTP/1.0\r\n",
            // Over HTTP/2 this is what its stream is told in.
            ProxyVersion::Http11 | ProxyVersion::Http2 => b" HTTP/1.1\r\n",
        });
    }

    /// A normalised path, escaped again where it had been decoded.
    fn write_path(&self, path: &[u8], out: &mut Vec<u8>) {
        if !self.scratch.story.request.target.is_complex && !self.scratch.story.is_internal {
            out.extend_from_slice(path);
            return;
        }
        escape_path(path, out);
    }

    fn write_args(&self, out: &mut Vec<u8>) {
        let args = self.args();
        if !args.is_empty() {
            out.push(b'?');
            out.extend_from_slice(args);
        }
    }

    /// The query string, as sent or as an internal move left it.
    pub fn args(&self) -> &[u8] {
        let story = &self.scratch.story;
        match &story.args {
            Some(args) => args,
            None => story.request.target.query.map_or(b"", |query| query.of(self.scratch.inbound.unread())),
        }
    }

    /// Where the value begins; `None` when nothing is sent because the value is empty.
    fn write_set_header(&self, header: &SetHeader, out: &mut Vec<u8>) -> Option<usize> {
        // Where the body ends is ours to say: a second opinion in the head is how requests are smuggled.
        if matches!(header.hash, CONTENT_LENGTH | TRANSFER_ENCODING) {
            return None;
        }
        let from = out.len();
        out.extend_from_slice(&header.name);
        out.extend_from_slice(b": ");
        let value_at = out.len();
        match header.value.constant() {
            Some(value) => out.extend_from_slice(value),
            None => header.value.render(&self.facts(), out),
        }
        // As nginx: HTTP/1.1 and HTTP/2 demand one.
        if out.len() == value_at && self.is_owed(header) {
            out.extend_from_slice(self.facts().proxy_host().unwrap_or_default());
        }
        write::clean(&mut out[value_at..]);
        let is_h2c = header.hash == UPGRADE && fields::list_members(&out[value_at..]).any(is_h2c);
        if out.len() == value_at || is_h2c {
            out.truncate(from);
            return None;
        }
        out.extend_from_slice(b"\r\n");
        Some(value_at)
    }

    fn is_owed(&self, header: &SetHeader) -> bool {
        header.hash == HOST && self.location.proxy.version != ProxyVersion::Http10
    }

    /// The client's own headers, less those of its hop and those that the configuration sets.
    fn write_clients_own(&self, out: &mut Vec<u8>) {
        let story = &self.scratch.story;
        let head = self.scratch.inbound.unread();
        let replaced = &self.location.proxy.replaced;
        let nominates =
            story.request.fields.known(Known::Connection).any(|field| {
                fields::list_members(field.value.of(head)).any(|name| !is_ordinary_option(name))
            });
        for field in &story.request.fields.list {
            let name = field.name.of(head);
            let is_of_hop = !matches!(
                field.known,
                Known::Other | Known::Host | Known::Date | Known::Server | Known::XForwardedFor
            );
            if is_of_hop || replaced.contains_hashed(field.hash, name) {
                continue;
            }
            if nominates && self.is_nominated(name) {
                continue;
            }
            write::copy(out, head, field);
        }
    }

    fn is_nominated(&self, name: &[u8]) -> bool {
        let head = self.scratch.inbound.unread();
        let protected = PROTECTED.iter().any(|protected| name.eq_ignore_ascii_case(protected));
        !protected
            && self
                .scratch
                .story
                .request
                .fields
                .known(Known::Connection)
                .any(|field| fields::list_members(field.value.of(head)).any(|m| m.eq_ignore_ascii_case(name)))
    }

    /// Writes the head of the upstream's answer as the client gets it into `to_downstream`.
    pub fn write_response(&mut self) -> Delivery {
        let delivery = self.delivery();
        let mut out = std::mem::take(&mut self.scratch.to_downstream.data);
        let story = &self.scratch.story;
        if story.request.version == Version::Http09 {
            self.scratch.sink.begin(Framing::UntilClose, Coding::Plain);
            self.scratch.to_downstream.data = out;
            return delivery;
        }
        let head = self.scratch.from_upstream.unread();
        out.extend_from_slice(b"HTTP/1.1 ");
        match story.status_override {
            Some(status) => write_status(status, &mut out),
            None => out.extend_from_slice(story.response.status_text.of(head)),
        }
        out.extend_from_slice(b"\r\n");
        let hidden = &self.location.proxy.hidden;
        let has_own_server = hidden.contains_hashed(SERVER, b"server");
        self.write_own_server_and_date(has_own_server, hidden.contains_hashed(DATE, b"date"), &mut out);
        // An answer to HEAD, or a 304, tells the length of a body that is not there.
        let is_emptied = delivery.framing == Framing::Length(0) && story.answer_framing() == Framing::None;
        let keeps_length = delivery.framing != Framing::Chunked && self.status_told() != 204 && !is_emptied;
        let mut expires = false;
        for field in &story.response.fields.list {
            let name = field.name.of(head);
            match field.known {
                // nginx passes the first one only: caches differ on which of two counts.
                _ if field.hash == EXPIRES && std::mem::replace(&mut expires, true) => continue,
                Known::Connection | Known::KeepAlive | Known::ProxyConnection | Known::TransferEncoding => {
                    continue;
                }
                Known::Te | Known::Trailer | Known::Http2Settings => continue,
                Known::ContentLength if !keeps_length => continue,
                _ if hidden.contains_hashed(field.hash, name) => continue,
                _ => self.write_response_field(field, head, &mut out),
            }
        }
        if is_emptied {
            write::content_length(&mut out, 0);
        }
        let delivery = self.finish_head(delivery, &mut out);
        let sent_len = out.len() as u64;
        self.scratch.to_downstream.data = out;
        self.scratch.story.sent_head_len = sent_len;
        self.scratch.story.kept_alive = delivery.keep_alive.is_some();
        delivery
    }

    fn write_response_field(&self, field: &Field, head: &[u8], out: &mut Vec<u8>) {
        if !matches!(field.hash, LOCATION | REFRESH | SET_COOKIE) {
            return write::copy(out, head, field);
        }
        let (name, value) = (field.name.of(head), field.value.of(head));
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        let value_at = out.len();
        let is_rewritten = match field.hash {
            LOCATION => {
                let is_rewritten = self.write_redirect(value, out);
                if is_rewritten {
                    let to = self.absolute(out.split_off(value_at));
                    out.extend_from_slice(&to);
                }
                is_rewritten
            }
            REFRESH => self.write_refresh(value, out),
            SET_COOKIE if !self.location.proxy.cookies.is_empty() => {
                self.location.proxy.cookies.rewrite(value, &self.facts(), out)
            }
            _ => false,
        };
        if is_rewritten {
            write::clean(&mut out[value_at..]);
        } else {
            out.extend_from_slice(value);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// `proxy_redirect`: false when no rule fits.
    fn write_redirect(&self, value: &[u8], out: &mut Vec<u8>) -> bool {
        let Redirects::Rules { rules, default } = &self.location.proxy.redirects else { return false };
        let facts = self.facts();
        rules.iter().any(|rule| rule.apply(value, &facts, out))
            || *default && self.write_default_redirect(value, out)
    }

    /// What `proxy_pass` names becomes the location's path.
    fn write_default_redirect(&self, value: &[u8], out: &mut Vec<u8>) -> bool {
        let Action::Proxy(pass) = &self.location.action else { return false };
        let Some((from, to)) = &pass.default_redirect else { return false };
        let Some(rest) = value.strip_prefix(&from[..]) else { return false };
        out.extend_from_slice(to);
        out.extend_from_slice(rest);
        true
    }

    fn write_refresh(&self, value: &[u8], out: &mut Vec<u8>) -> bool {
        let lower = value.to_ascii_lowercase();
        let Some(at) = memchr::memmem::find(&lower, b"url=").map(|at| at + 4) else { return false };
        let from = out.len();
        out.extend_from_slice(&value[..at]);
        if self.write_redirect(&value[at..], out) {
            return true;
        }
        out.truncate(from);
        false
    }

    /// `Server` and `Date`, unless the upstream's own are passed on, and the cookie of a sticky group.
    pub fn write_own_server_and_date(&self, server: bool, date: bool, out: &mut Vec<u8>) {
        if server {
            out.extend_from_slice(b"Server: ");
            out.extend_from_slice(self.software());
            out.extend_from_slice(b"\r\n");
        }
        if date {
            out.extend_from_slice(b"Date: ");
            self.worker.clock.write_date(self.now, out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&self.scratch.story.sticky_cookie);
        out.extend_from_slice(&self.scratch.story.carried);
    }

    /// What we call ourselves: with `server_tokens off` without the version.
    pub fn software(&self) -> &'static [u8] {
        match self.location.server_tokens {
            ServerTokens::On => b"nginx/1.31.5",
            ServerTokens::Off => b"nginx",
            ServerTokens::Build => {
                concat!("nginx/1.31.5 (balancer/", env!("CARGO_PKG_VERSION"), ")").as_bytes()
            }
        }
    }

    /// How the client learns where the body ends, and whether the connection stays.
    pub fn write_framing(&self, delivery: &Delivery, out: &mut Vec<u8>) {
        if delivery.framing == Framing::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        match delivery.keep_alive {
            Some(_) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            None => out.extend_from_slice(b"Connection: close\r\n"),
        }
        if let (Some(_), Some(timeout)) = (delivery.keep_alive, self.location.keepalive.header_timeout) {
            out.extend_from_slice(b"Keep-Alive: timeout=");
            write::decimal(out, timeout.as_secs());
            out.extend_from_slice(b"\r\n");
        }
    }

    fn delivery(&self) -> Delivery {
        let story = &self.scratch.story;
        let is_11 = story.request.version >= Version::Http11;
        let framing = match story.answer_framing() {
            _ if !self.has_body(self.status_told()) => Framing::None,
            // Asked with HEAD, or under a status that the client does not see, it has none to give.
            Framing::None => Framing::Length(0),
            Framing::Chunked | Framing::UntilClose if is_11 => Framing::Chunked,
            Framing::Chunked | Framing::UntilClose => Framing::UntilClose,
            framing => framing,
        };
        Delivery { framing, keep_alive: self.keep_alive().filter(|_| framing != Framing::UntilClose) }
    }

    /// How long the connection may wait for another request after this one; `None` when it must close.
    pub fn keep_alive(&self) -> Option<IdleTime> {
        let terms = &self.location.keepalive;
        let may = self.scratch.story.request.keep_alive
            && !self.down.is_leaving()
            && !terms.timeout.is_zero()
            && !self.is_disabled_agent(terms.disabled)
            && self.down.requests < terms.requests_max
            && self.scratch.upload.is_rest_short(self.scratch.story.request.framing)
            && self.begun().saturating_duration_since(self.down.arrival.opened.into_std()) < terms.time;
        may.then_some(IdleTime { max: terms.timeout, min: terms.min_timeout.min(terms.timeout) })
    }

    /// When the request came.
    fn begun(&self) -> std::time::Instant {
        self.scratch.story.started.unwrap_or(self.now)
    }

    /// `keepalive_disable`. Internet Explorer up to 6 mishandled kept connections after a POST only.
    fn is_disabled_agent(&self, disabled: DisabledFor) -> bool {
        let request = &self.scratch.story.request;
        let asks_msie = disabled.msie6 && request.method == Method::Post;
        if !asks_msie && !disabled.safari {
            return false;
        }
        let head = self.scratch.inbound.unread();
        let Some(agent) = request.fields.find(head, USER_AGENT, b"user-agent") else { return false };
        let agent = agent.value.of(head);
        asks_msie && agents::is_msie6(agent) || disabled.safari && agents::is_safari(agent)
    }

    /// An interim answer (102, 103) as the client gets it.
    pub fn write_interim(&mut self) {
        let story = &self.scratch.story;
        let head = self.scratch.from_upstream.unread();
        let out = &mut self.scratch.to_downstream.data;
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(story.response.status_text.of(head));
        out.extend_from_slice(b"\r\n");
        for field in story.response.fields.list.iter().filter(|field| field.known == Known::Other) {
            write::field(out, field.name.of(head), field.value.of(head));
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The 101 by which both sides leave HTTP.
    pub fn write_switch(&mut self) {
        let hidden = &self.location.proxy.hidden;
        let mut out = std::mem::take(&mut self.scratch.to_downstream.data);
        let head = self.scratch.from_upstream.unread();
        let story = &self.scratch.story;
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(story.response.status_text.of(head));
        out.extend_from_slice(b"\r\n");
        let has_own_server = hidden.contains_hashed(SERVER, b"server");
        self.write_own_server_and_date(has_own_server, hidden.contains_hashed(DATE, b"date"), &mut out);
        out.extend_from_slice(b"Connection: upgrade\r\n");
        for field in &story.response.fields.list {
            let name = field.name.of(head);
            let is_framing = matches!(
                field.known,
                Known::Connection | Known::KeepAlive | Known::ContentLength | Known::TransferEncoding
            );
            if !is_framing && !hidden.contains_hashed(field.hash, name) {
                write::field(&mut out, name, field.value.of(head));
            }
        }
        out.extend_from_slice(b"\r\n");
        self.scratch.story.sent_head_len = out.len() as u64;
        self.scratch.to_downstream.data = out;
    }
}

/// Connection options that name no header of their own.
fn is_ordinary_option(name: &[u8]) -> bool {
    [&b"close"[..], b"keep-alive", b"upgrade", b"te", b"http2-settings"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Upgrading to HTTP/2 in clear text would carry requests past every rule here (CVE-2026-88008).
fn is_h2c(protocol: &[u8]) -> bool {
    protocol.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"h2c"))
        || protocol.eq_ignore_ascii_case(b"h2")
}

pub fn write_status(status: u16, out: &mut Vec<u8>) {
    write::decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(crate::relay::pages::reason(status).as_bytes());
}
