//! Request heads: strict where two readers could differ, else as tolerant as nginx. Fed again with a longer buffer, it
//! goes on at the first line it has not seen in full. Where the body ends is `body`.

use super::fields::{
    Field, Fields, Known, Line, NameKind, ParsedField, Span, decimal, field_at, hash, line_at, list_members,
};
use super::target::{Target, check_authority, split_target};
use super::{Framing, Version};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Lock,
    Connect,
    Trace,
    Other,
}

impl Method {
    /// Sending it twice may act twice: nginx's list for `proxy_next_upstream` without `non_idempotent`.
    pub fn is_non_idempotent(self) -> bool {
        matches!(self, Method::Post | Method::Lock | Method::Patch)
    }
}

/// Bounds of one head. The names are nginx's: `large_client_header_buffers`, `max_headers`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest line.
    pub line_len_max: usize,
    /// Longest head.
    pub head_len_max: usize,
    pub fields_max: usize,
    pub underscores: bool,
    pub ignore_invalid: bool,
    /// `Http2` where the head was written from HTTP/2's frames; over a socket it is refused.
    pub version_max: Version,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            line_len_max: 8192,
            head_len_max: 4 * 8192,
            fields_max: 1000,
            underscores: false,
            ignore_invalid: true,
            version_max: Version::Http11,
        }
    }
}

/// Why a request is refused, and with what status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("invalid method")]
    Method,
    #[error("invalid request target")]
    Target,
    #[error("invalid request line")]
    RequestLine,
    #[error("HTTP version is not supported")]
    Version,
    #[error("request line is too long")]
    RequestLineTooLong,
    #[error("request header is too large")]
    HeaderTooLarge,
    #[error("too many request header lines")]
    TooManyFields,
    #[error("invalid header line")]
    FieldLine,
    #[error("no valid host in an HTTP/1.1 request")]
    HostMissing,
    #[error("more than one Host header")]
    HostTwice,
    #[error("invalid host")]
    Host,
    #[error("a header that may come once came twice")]
    FieldTwice,
    #[error("invalid Content-Length")]
    ContentLength,
    #[error("more than one Content-Length header")]
    ContentLengthTwice,
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    #[error("more than one Transfer-Encoding header")]
    TransferEncodingTwice,
    #[error("unknown Transfer-Encoding")]
    TransferEncodingUnknown,
    #[error("Transfer-Encoding in a request older than HTTP/1.1")]
    TransferEncodingTooEarly,
    #[error("unknown expectation")]
    Expectation,
    #[error("method is not allowed")]
    NotAllowed,
}

impl Refusal {
    /// nginx's statuses: 494 is its own for a head that is too large and is answered as 400.
    pub fn status(self) -> u16 {
        match self {
            Refusal::RequestLineTooLong => 414,
            Refusal::HeaderTooLarge | Refusal::TooManyFields => 494,
            Refusal::Version => 505,
            Refusal::TransferEncodingUnknown => 501,
            Refusal::Expectation => 417,
            Refusal::NotAllowed => 405,
            _ => 400,
        }
    }
}

/// One request head, reused from request to request. All spans are relative to the first byte of the head.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    pub method: Method,
    pub method_span: Span,
    /// The whole request line, for the log.
    pub line_span: Span,
    pub target_span: Span,
    pub target: Target,
    pub version: Version,
    pub fields: Fields,
    pub framing: Framing,
    pub host: Option<Span>,
    pub keep_alive: bool,
    pub expects_continue: bool,
    /// The value of `Upgrade`, when `Connection` names it too.
    pub upgrade: Option<Span>,
    pub accepts_trailers: bool,
    /// Bytes of the head with its blank line, once it has come in full.
    pub len: usize,
    /// Refuses the request once its head is whole: a worse fault may follow, which is told instead.
    doubt: Option<Refusal>,
    progress: Progress,
}

#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    next: usize,
    stage: Stage,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Start,
    Fields,
}

impl RequestHead {
    /// Forgets the last request and keeps the memory.
    pub fn clear(&mut self) {
        let mut list = std::mem::take(&mut self.fields.list);
        list.clear();
        *self = RequestHead { fields: Fields { list }, ..RequestHead::default() };
    }

    /// Reads on in `buf`, which holds all bytes of the head so far. `Ok(false)` asks for more.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<bool, Refusal> {
        if self.progress.stage == Stage::Start && !self.parse_request_line(buf, limits)? {
            return Ok(false);
        }
        if self.version == Version::Http09 {
            self.len = self.progress.next;
            return Ok(true);
        }
        loop {
            let from = self.progress.next;
            let Some((line, parsed)) = field_at(buf, from) else {
                let too_large = buf.len() - from > limits.line_len_max || buf.len() > limits.head_len_max;
                return if too_large { Err(Refusal::HeaderTooLarge) } else { Ok(false) };
            };
            if line.next - from > limits.line_len_max || line.next > limits.head_len_max {
                return Err(Refusal::HeaderTooLarge);
            }
            self.progress.next = line.next;
            if line.start == line.end {
                self.len = line.next;
                return self.conclude(buf).map(|()| true);
            }
            self.on_field(buf, &parsed.map_err(|_| Refusal::FieldLine)?, limits)?;
        }
    }

    fn parse_request_line(&mut self, buf: &[u8], limits: &Limits) -> Result<bool, Refusal> {
        let mut from = self.progress.next;
        // Empty lines before a request are skipped (RFC 9112, section 2.2); some clients end a body with one too many.
        while from < buf.len() && (buf[from] == b'\r' || buf[from] == b'\n') {
            from += 1;
        }
        self.progress.next = from;
        if from > limits.line_len_max {
            return Err(Refusal::RequestLine);
        }
        let Some(line) = line_at(buf, from) else {
            // A CR that came last may be half of the line's end.
            let so_far = &buf[from..];
            check_method_bytes(so_far.strip_suffix(b"\r").unwrap_or(so_far))?;
            let too_long = buf.len() - from > limits.line_len_max;
            return if too_long { Err(Refusal::RequestLineTooLong) } else { Ok(false) };
        };
        if line.next - from > limits.line_len_max {
            return Err(Refusal::RequestLineTooLong);
        }
        self.line_span = Span::new(line.start, line.end);
        self.on_request_line(buf, line, limits)?;
        self.progress = Progress { next: line.next, stage: Stage::Fields };
        Ok(true)
    }

    fn on_request_line(&mut self, buf: &[u8], line: Line, limits: &Limits) -> Result<(), Refusal> {
        let text = &buf[line.start..line.end];
        check_method_bytes(text)?;
        let method_len = memchr::memchr(b' ', text).ok_or(Refusal::RequestLine)?;
        self.method = method_of(&text[..method_len]);
        self.method_span = Span::new(line.start, line.start + method_len);
        let rest = skip_spaces(text, method_len);
        let target_len = memchr::memchr(b' ', &text[rest..]).unwrap_or(text.len() - rest);
        let after = skip_spaces(text, rest + target_len);
        // Spaces only: a CR more than the line's end, or a tab, is read in other ways elsewhere.
        let spaces = text[after..].iter().rev().take_while(|byte| **byte == b' ').count();
        self.version = match &text[after..text.len() - spaces] {
            b"" => Version::Http09,
            version => version_of(version, limits.version_max)?,
        };
        if self.version == Version::Http09 && self.method != Method::Get {
            return Err(Refusal::RequestLine);
        }
        self.target_span = Span::new(line.start + rest, line.start + rest + target_len);
        if self.method == Method::Connect {
            check_authority(self.target_span.of(buf))?;
            // An authority is no path.
            return Err(Refusal::NotAllowed);
        }
        self.target = split_target(buf, self.target_span)?;
        // A proxy that answers it shows a page its own cookies.
        if self.method == Method::Trace { Err(Refusal::NotAllowed) } else { Ok(()) }
    }

    fn on_field(&mut self, buf: &[u8], parsed: &ParsedField, limits: &Limits) -> Result<(), Refusal> {
        if self.fields.list.len() >= limits.fields_max {
            return Err(Refusal::TooManyFields);
        }
        let kept = match parsed.name_kind {
            NameKind::Plain => true,
            NameKind::Underscore => limits.underscores || !limits.ignore_invalid,
            NameKind::Odd => !limits.ignore_invalid,
        };
        if kept {
            self.note(buf, parsed.field)?;
            self.fields.list.push(parsed.field);
        }
        Ok(())
    }

    /// Takes in what a field means for this hop.
    fn note(&mut self, buf: &[u8], field: Field) -> Result<(), Refusal> {
        let value = field.value.of(buf);
        match field.known {
            Known::Host if self.host.is_some() => return Err(Refusal::HostTwice),
            Known::Host => {
                super::target::check_host(value)?;
                self.host = Some(field.value);
            }
            Known::ContentLength => self.framing = self.length_framing(value)?,
            Known::TransferEncoding if self.doubt == Some(Refusal::TransferEncodingUnknown) => {
                return Err(Refusal::TransferEncodingTwice);
            }
            Known::TransferEncoding => match self.encoding_framing(value) {
                Err(Refusal::TransferEncodingUnknown) => self.doubt = Some(Refusal::TransferEncodingUnknown),
                framing => self.framing = framing?,
            },
            Known::Expect if self.expects_continue || self.doubt == Some(Refusal::Expectation) => {
                return Err(Refusal::FieldTwice);
            }
            Known::Expect if value.eq_ignore_ascii_case(b"100-continue") => self.expects_continue = true,
            Known::Expect => self.doubt = self.doubt.or(Some(Refusal::Expectation)),
            Known::Te => {
                self.accepts_trailers |= list_members(value).any(|m| m.eq_ignore_ascii_case(b"trailers"));
            }
            _ => {}
        }
        Ok(())
    }

    fn length_framing(&self, value: &[u8]) -> Result<Framing, Refusal> {
        match self.framing {
            Framing::Chunked => Err(Refusal::LengthAndEncoding),
            Framing::Length(_) => Err(Refusal::ContentLengthTwice),
            _ => decimal(value).map(Framing::Length).ok_or(Refusal::ContentLength),
        }
    }

    fn encoding_framing(&self, value: &[u8]) -> Result<Framing, Refusal> {
        match self.framing {
            Framing::Length(_) => Err(Refusal::LengthAndEncoding),
            Framing::Chunked => Err(Refusal::TransferEncodingTwice),
            _ if self.version < Version::Http11 => Err(Refusal::TransferEncodingTooEarly),
            _ if value.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            _ => Err(Refusal::TransferEncodingUnknown),
        }
    }

    /// Rules that need the whole head.
    fn check_unique(&self, buf: &[u8]) -> Result<(), Refusal> {
        let mut seen = 0u8;
        for field in self.fields.list.iter().filter(|field| field.known == Known::Other) {
            let is_it = |(hash, name): &(u32, &[u8])| {
                *hash == field.hash && field.name.of(buf).eq_ignore_ascii_case(name)
            };
            let Some(place) = UNIQUE.iter().position(is_it) else { continue };
            if seen & 1 << place != 0 {
                return Err(Refusal::FieldTwice);
            }
            seen |= 1 << place;
        }
        Ok(())
    }

    fn conclude(&mut self, buf: &[u8]) -> Result<(), Refusal> {
        if self.version >= Version::Http11 && self.host.is_none() {
            return Err(Refusal::HostMissing);
        }
        self.check_unique(buf)?;
        if let Some(refusal) = self.doubt {
            return Err(refusal);
        }
        let (mut close, mut keep_alive, mut upgrade) = (false, false, false);
        for field in self.fields.known(Known::Connection) {
            for member in list_members(field.value.of(buf)) {
                close |= member.eq_ignore_ascii_case(b"close");
                keep_alive |= member.eq_ignore_ascii_case(b"keep-alive");
                upgrade |= member.eq_ignore_ascii_case(b"upgrade");
            }
        }
        self.keep_alive = !close && (keep_alive || self.version >= Version::Http11);
        if upgrade && self.version == Version::Http11 {
            self.upgrade = self.fields.known(Known::Upgrade).next().map(|field| field.value);
        }
        // A client of HTTP/1.0 does not know 100 (RFC 9110, section 10.1.1).
        self.expects_continue &= self.version == Version::Http11;
        Ok(())
    }
}

/// Fields beside those of framing that may come once: of two, readers believe different ones. nginx's list.
const UNIQUE: [(u32, &[u8]); 8] = [
    (hash(b"if-modified-since"), b"if-modified-since"),
    (hash(b"if-unmodified-since"), b"if-unmodified-since"),
    (hash(b"if-match"), b"if-match"),
    (hash(b"if-none-match"), b"if-none-match"),
    (hash(b"if-range"), b"if-range"),
    (hash(b"content-range"), b"content-range"),
    (hash(b"authorization"), b"authorization"),
    (hash(b"proxy-authorization"), b"proxy-authorization"),
];

/// nginx takes capital letters, `-` and `_`; refused at the first byte that is none, so that TLS or junk sent to a
/// plain port is answered at once instead of at the deadline.
fn check_method_bytes(text: &[u8]) -> Result<(), Refusal> {
    let bad =
        text.iter().take_while(|byte| **byte != b' ').any(|byte| !matches!(byte, b'A'..=b'Z' | b'-' | b'_'));
    if bad || text.first() == Some(&b' ') { Err(Refusal::Method) } else { Ok(()) }
}

fn method_of(name: &[u8]) -> Method {
    match name {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"PATCH" => Method::Patch,
        b"LOCK" => Method::Lock,
        b"CONNECT" => Method::Connect,
        b"TRACE" => Method::Trace,
        _ => Method::Other,
    }
}

fn skip_spaces(text: &[u8], from: usize) -> usize {
    text[from..].iter().position(|byte| *byte != b' ').map_or(text.len(), |skip| from + skip)
}

fn version_of(text: &[u8], most: Version) -> Result<Version, Refusal> {
    let Some((major, minor)) = text.strip_prefix(b"HTTP/").and_then(|digits| {
        let dot = digits.iter().position(|byte| *byte == b'.')?;
        Some((decimal(&digits[..dot])?, decimal(&digits[dot + 1..])?))
    }) else {
        return Err(Refusal::RequestLine);
    };
    match (major, minor) {
        (1, 0) => Ok(Version::Http10),
        (1, 1..=99) => Ok(Version::Http11),
        (0, _) | (1, _) => Err(Refusal::RequestLine),
        (2, 0) if most == Version::Http2 => Ok(Version::Http2),
        _ => Err(Refusal::Version),
    }
}
