//! The end of every head that we send: what the location adds to it or changes in it, how the body is coded and framed.

use std::time::{Duration, UNIX_EPOCH};

use super::Exchange;
use super::sink::Coding;
use crate::conf::dress::{DAY, Dress, Expires, Moment};
use crate::conf::location::AddHeader;
use crate::conf::settings::ErrorLevel;
use crate::headers::Delivery;
use crate::logic::codings::accepts_gzip;
use crate::logic::h1::{Framing, Method, Version, hash, lines, write};

const ACCEPT_ENCODING: (u32, &[u8]) = (hash(b"accept-encoding"), b"accept-encoding");
const USER_AGENT: (u32, &[u8]) = (hash(b"user-agent"), b"user-agent");
const VIA: (u32, &[u8]) = (hash(b"via"), b"via");
const AUTHORIZATION: (u32, &[u8]) = (hash(b"authorization"), b"authorization");

/// Ten years: what `expires max` promises.
const MAX: (&[u8], &[u8]) = (b"Thu, 31 Dec 2037 23:55:55 GMT", b"max-age=315360000");
const EPOCH: (&[u8], &[u8]) = (b"Thu, 01 Jan 1970 00:00:01 GMT", b"no-cache");

impl Exchange<'_> {
    /// `out` holds the head so far. Gives how it is sent in the end; the body goes through `scratch.sink`.
    pub fn finish_head(&mut self, delivery: Delivery, out: &mut Vec<u8>) -> Delivery {
        let location = self.location;
        let dress = &*location.dress;
        if dress.is_plain() && self.scratch.story.charset.is_none() {
            self.write_framing(&delivery, out);
            self.write_added(out);
            out.extend_from_slice(b"\r\n");
            self.scratch.sink.begin(delivery.framing, Coding::Plain);
            return delivery;
        }
        let status = self.status_told();
        self.write_charset(dress, status, out);
        if is_safe(status) {
            self.write_expires(dress, out);
        }
        self.write_added(out);
        let coding = match status {
            100..=199 | 204 | 304 => Coding::Plain,
            _ => self.choose_coding(dress, status, out),
        };
        let coding = self.hold_page(dress, status, coding, out);
        let delivery = self.reframe(delivery, dress, &coding, out);
        self.write_framing(&delivery, out);
        out.extend_from_slice(b"\r\n");
        if dress.tells_head {
            self.note_head(out);
        }
        self.scratch.sink.begin(delivery.framing, coding);
        delivery
    }

    /// What the client is told: an error page comes under the error's status, or under its own.
    pub fn status_told(&self) -> u16 {
        self.scratch.story.status_override.unwrap_or(self.scratch.story.status)
    }

    /// Whether the client gets a body under this status.
    pub fn has_body(&self, status: u16) -> bool {
        self.scratch.story.request.method != Method::Head && !matches!(status, 100..=199 | 204 | 304)
    }

    /// `add_header`, each in its turn: one may ask what those before it said.
    fn write_added(&mut self, out: &mut Vec<u8>) {
        let location = self.location;
        let status = self.status_told();
        for header in location.headers.iter().filter(|header| applies(header, status)) {
            if location.dress.tells_head {
                self.note_head(out);
            }
            if location.dress.replaces_validators {
                for name in [&b"etag"[..], b"last-modified"] {
                    if header.name.eq_ignore_ascii_case(name) {
                        lines::remove(out, name);
                    }
                }
            }
            self.write_line(header, out);
        }
    }

    /// Nothing where the value is empty.
    fn write_line(&self, header: &AddHeader, out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(&header.name);
        out.extend_from_slice(b": ");
        let value_at = out.len();
        header.value.render(&self.facts(), out);
        write::clean(&mut out[value_at..]);
        match out.len() == value_at {
            true => out.truncate(from),
            false => out.extend_from_slice(b"\r\n"),
        }
    }

    fn note_head(&mut self, out: &[u8]) {
        let sent_head = &mut self.scratch.story.sent_head;
        sent_head.clear();
        sent_head.extend_from_slice(out);
    }

    /// The lines of `add_trailer`, at the end of the body.
    pub(super) fn trailer_lines(&mut self) -> Vec<u8> {
        let dress = &self.location.dress;
        let status = self.status_told();
        if dress.trailers.is_empty() {
            return Vec::new();
        }
        for trailer in dress.trailers.iter().filter(|trailer| applies(trailer, status)) {
            let mut line = Vec::new();
            self.write_line(trailer, &mut line);
            self.scratch.story.sent_trailers.extend_from_slice(&line);
        }
        self.scratch.story.sent_trailers.clone()
    }

    /// Adds the charset to the type, where the type is one of text and does not say it itself.
    pub(super) fn write_charset(&self, dress: &Dress, status: u16, out: &mut Vec<u8>) {
        if let Some(charset) = &self.scratch.story.charset {
            return self.write_ordered_charset(dress, charset, status, out);
        }
        let Some(charset) = &dress.charset else { return };
        let kind = lines::first(out, b"content-type").unwrap_or_default();
        let bare = bare_type(kind);
        let may_override = charset.overrides && !self.scratch.story.answer.is_ours;
        let is_told = has_charset(kind) && !may_override;
        let is_coded = lines::first(out, b"content-encoding").is_some_and(|value| !value.is_empty());
        // Of several parts each has its own.
        let is_text = !bare.starts_with(b"multipart/")
            && (charset.types.contains(&bare[..]) || charset.types.contains(&b"*"[..]));
        if bare.is_empty() || !is_text || is_told || is_coded || matches!(status, 301 | 302) {
            return;
        }
        let name = charset.name.to_bytes(&self.facts());
        if name.is_empty() || name == b"off" {
            return;
        }
        replace_charset(&name, out);
    }

    /// `X-Accel-Charset`: whatever the type, unless it says a charset itself.
    fn write_ordered_charset(&self, dress: &Dress, charset: &[u8], status: u16, out: &mut Vec<u8>) {
        if !dress.charsets.iter().any(|known| known.eq_ignore_ascii_case(charset)) {
            let charset = charset.escape_ascii();
            self.say(ErrorLevel::Error, format_args!("unknown charset \"{charset}\" to override"));
            return;
        }
        let kind = lines::first(out, b"content-type").unwrap_or_default();
        if !kind.is_empty() && !has_charset(kind) && !matches!(status, 301 | 302) {
            replace_charset(charset, out);
        }
    }

    fn write_expires(&self, dress: &Dress, out: &mut Vec<u8>) {
        let moment = match &dress.expires {
            None => return,
            Some(Expires::Fixed(moment)) => *moment,
            Some(Expires::Dynamic { value, modified }) => {
                let text = value.to_bytes(&self.facts());
                let read = std::str::from_utf8(&text).ok().and_then(|text| Moment::read(text, *modified));
                read.unwrap_or(Moment::Off)
            }
        };
        let now = self.worker.clock.wall(self.now).duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = now.as_secs().cast_signed();
        let modified = lines::first(out, b"last-modified").and_then(|text| std::str::from_utf8(text).ok());
        let modified = modified.and_then(|text| httpdate::parse_http_date(text).ok());
        let modified = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let offset = i64::from(self.worker.clock.offset_seconds(self.now));
        let Some((expires, control)) = expiry(moment, (now, offset), modified) else { return };
        lines::remove(out, b"expires");
        lines::remove(out, b"cache-control");
        write::field(out, b"Expires", &expires);
        write::field(out, b"Cache-Control", &control);
    }

    /// Whether what has this head is sent byte by byte as it is: only of that parts can be had.
    pub(super) fn keeps_bytes(&self, head: &[u8]) -> bool {
        let dress = &*self.location.dress;
        if dress.is_plain() {
            return true;
        }
        let mut head = head.to_vec();
        let coding = self.choose_coding(dress, 200, &mut head);
        matches!(coding, Coding::Plain) && !is_page(dress, &coding, &head)
    }

    /// Packs or unpacks where the location says so and the client takes it.
    fn choose_coding(&self, dress: &Dress, status: u16, out: &mut Vec<u8>) -> Coding {
        let gzip = &dress.gzip;
        let encoding = lines::first(out, b"content-encoding").filter(|value| !value.is_empty());
        let is_packed = encoding.is_some_and(|value| value.eq_ignore_ascii_case(b"gzip"));
        let coding = if gzip.gunzip && is_packed {
            if self.takes_gzip(dress, out) { Coding::Plain } else { Coding::gunzip() }
        } else if gzip.on && encoding.is_none() && self.is_worth_it(dress, status, out) {
            if self.takes_gzip(dress, out) { Coding::gzip(gzip.level) } else { Coding::Plain }
        } else {
            return Coding::Plain;
        };
        match &coding {
            Coding::Plain | Coding::Held(_) => {}
            Coding::Gzip(_) => write::field(out, b"Content-Encoding", b"gzip"),
            Coding::Gunzip(_) => lines::remove(out, b"content-encoding"),
        }
        if !matches!(coding, Coding::Plain) {
            lines::remove(out, b"accept-ranges");
            weaken(out);
        }
        if gzip.vary {
            write::field(out, b"Vary", b"Accept-Encoding");
        }
        coding
    }

    /// Pages are held back until their commands have run.
    fn hold_page(&self, dress: &Dress, status: u16, coding: Coding, out: &mut Vec<u8>) -> Coding {
        if !self.has_body(status) || !is_page(dress, &coding, out) {
            return coding;
        }
        lines::remove(out, b"accept-ranges");
        match dress.pages.as_ref().is_some_and(|pages| pages.keeps_date) {
            true => weaken(out),
            false => {
                lines::remove(out, b"etag");
                lines::remove(out, b"last-modified");
            }
        }
        Coding::held(coding)
    }

    fn is_worth_it(&self, dress: &Dress, status: u16, out: &[u8]) -> bool {
        let length = lines::first(out, b"content-length").and_then(crate::logic::h1::fields::decimal);
        let kind = bare_type(lines::first(out, b"content-type").unwrap_or_default());
        let types = &dress.gzip.types;
        matches!(status, 200 | 403 | 404)
            && length.is_none_or(|length| length >= dress.gzip.len_min)
            && !kind.is_empty()
            && (types.contains(&kind[..]) || types.contains(&b"*"[..]))
    }

    fn asked(&self, (hash, name): (u32, &'static [u8])) -> Option<&[u8]> {
        let head = self.scratch.inbound.unread();
        self.scratch.story.request.fields.find(head, hash, name).map(|field| field.value.of(head))
    }

    /// nginx's `gzip_ok`.
    pub(super) fn takes_gzip(&self, dress: &Dress, out: &[u8]) -> bool {
        let gzip = &dress.gzip;
        if !self.asked(ACCEPT_ENCODING).is_some_and(accepts_gzip) {
            return false;
        }
        if self.scratch.story.request.version < Version::Http11 && !gzip.http_10 {
            return false;
        }
        if self.asked(VIA).is_some() && !self.takes_gzip_by_proxy(dress, out) {
            return false;
        }
        let agent = self.asked(USER_AGENT).unwrap_or_default();
        !gzip.disabled.iter().any(|pattern| pattern.is_match(agent))
    }

    fn takes_gzip_by_proxy(&self, dress: &Dress, out: &[u8]) -> bool {
        let proxied = dress.gzip.proxied;
        if proxied.any || proxied.auth && self.asked(AUTHORIZATION).is_some() {
            return true;
        }
        if proxied == crate::conf::dress::Proxied::default() {
            return false;
        }
        if let Some(expires) = lines::first(out, b"expires") {
            let at = std::str::from_utf8(expires).ok().and_then(|text| httpdate::parse_http_date(text).ok());
            return proxied.expired && at.is_some_and(|at| at < self.worker.clock.wall(self.now));
        }
        let mut controls = lines::values(out, b"cache-control").map(|range| &out[range]).peekable();
        if controls.peek().is_some() {
            let words: Vec<&[u8]> = controls.flat_map(crate::logic::h1::fields::list_members).collect();
            let has = |word: &[u8]| words.iter().any(|known| known.eq_ignore_ascii_case(word));
            return proxied.no_cache && has(b"no-cache")
                || proxied.no_store && has(b"no-store")
                || proxied.private && has(b"private");
        }
        !(proxied.no_last_modified && lines::first(out, b"last-modified").is_some()
            || proxied.no_etag && lines::first(out, b"etag").is_some())
    }

    /// What the coding and the trailers make of the framing.
    fn reframe(&self, delivery: Delivery, dress: &Dress, coding: &Coding, out: &mut Vec<u8>) -> Delivery {
        let status = self.status_told();
        let is_coded = !matches!(coding, Coding::Plain);
        let may_chunk = dress.chunked && self.scratch.story.request.version >= Version::Http11;
        let has_trailers = dress.trailers.iter().any(|trailer| applies(trailer, status));
        let framing = match delivery.framing {
            framing if !self.has_body(status) => framing,
            _ if may_chunk && (is_coded || has_trailers) => Framing::Chunked,
            _ if is_coded => Framing::UntilClose,
            Framing::Chunked if !may_chunk => Framing::UntilClose,
            framing => framing,
        };
        if framing != delivery.framing || is_coded {
            lines::remove(out, b"content-length");
        }
        let keep_alive = delivery.keep_alive.filter(|_| framing != Framing::UntilClose);
        Delivery { framing, keep_alive }
    }
}

/// `Expires` and `Cache-Control`. `offset`: how far local time, by which days are counted, is ahead.
fn expiry(
    moment: Moment,
    (now, offset): (i64, i64),
    modified: Option<Duration>,
) -> Option<(Vec<u8>, Vec<u8>)> {
    let (at, max_age, seconds) = match moment {
        Moment::Off => return None,
        Moment::Epoch => return Some((EPOCH.0.to_vec(), EPOCH.1.to_vec())),
        Moment::Max => return Some((MAX.0.to_vec(), MAX.1.to_vec())),
        Moment::After { seconds: 0, .. } => (now, 0, 0),
        Moment::After { seconds, modified: is_relative } => match modified.filter(|_| is_relative) {
            Some(modified) => {
                let at = modified.as_secs().cast_signed() + seconds;
                (at, at - now, seconds)
            }
            None => (now + seconds, seconds, seconds),
        },
        Moment::Daily(time) => {
            let day = DAY.as_secs().cast_signed();
            let today = now - (now + offset).rem_euclid(day) + time;
            let at = if today > now { today } else { today + day };
            (at, at - now, 0)
        }
    };
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at.max(0).cast_unsigned()));
    let control = match seconds < 0 || max_age < 0 {
        true => "no-cache".to_owned(),
        false => format!("max-age={max_age}"),
    };
    Some((date.into_bytes(), control.into_bytes()))
}

/// Whether commands in the body are to be run.
fn is_page(dress: &Dress, coding: &Coding, head: &[u8]) -> bool {
    let kind = lines::first(head, b"content-type").unwrap_or_default();
    let is_coded = lines::first(head, b"content-encoding").is_some() && !matches!(coding, Coding::Gzip(_));
    let is_empty = lines::first(head, b"content-length") == Some(b"0");
    dress.makes_page(kind) && !is_coded && !is_empty
}

/// A type without its parameters, in lower case.
fn bare_type(value: &[u8]) -> Vec<u8> {
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
}

fn replace_charset(name: &[u8], out: &mut Vec<u8>) {
    let kind = lines::first(out, b"content-type").unwrap_or_default();
    let len = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().len();
    let with = [&kind[..len], b"; charset=", name].concat();
    lines::replace(out, b"content-type", &with);
}

fn has_charset(value: &[u8]) -> bool {
    let mut parameters = value.split(|byte| *byte == b';').skip(1).map(<[u8]>::trim_ascii);
    parameters.any(|text| text.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"charset=")))
}

/// A tag of other bytes than those that are sent must not claim to be exact.
fn weaken(out: &mut Vec<u8>) {
    let Some(tag) = lines::first(out, b"etag").map(<[u8]>::to_vec) else { return };
    match &tag[..] {
        [b'W', b'/', ..] => {}
        [b'"', ..] => lines::replace(out, b"etag", &[b"W/", &tag[..]].concat()),
        _ => lines::remove(out, b"etag"),
    }
}

/// Statuses to which `add_header` and its kin apply without `always`.
pub fn is_safe(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

fn applies(header: &AddHeader, status: u16) -> bool {
    header.always || is_safe(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daily_moment_is_the_next_one_by_the_clock_on_the_wall() {
        let noon = 10 * 86_400 + 12 * 3600;
        let age = |time: i64, offset: i64| {
            let (_, control) = expiry(Moment::Daily(time), (noon, offset), None).expect("an age");
            String::from_utf8(control).expect("ASCII")
        };
        assert_eq!(age(13 * 3600, 0), "max-age=3600");
        assert_eq!(age(12 * 3600, 0), "max-age=86400");
        assert_eq!(age(13 * 3600, 2 * 3600), "max-age=82800");
    }

    #[test]
    fn times_in_the_past_are_not_cached() {
        let control = |seconds, modified| {
            let moment = Moment::After { seconds, modified: true };
            let (_, control) = expiry(moment, (1000, 0), modified).expect("a time");
            String::from_utf8(control).expect("ASCII")
        };
        assert_eq!(control(10, Some(Duration::from_secs(995))), "max-age=5");
        assert_eq!(control(10, Some(Duration::from_secs(900))), "no-cache");
        assert_eq!(control(10, None), "max-age=10");
        assert_eq!(control(-10, None), "no-cache");
    }
}
