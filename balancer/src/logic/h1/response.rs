//! Response heads of upstreams: stricter than browsers, because what follows a misread end would be another client's
//! answer. A head that breaks a rule here is a 502 and its connection is never used again.

use super::fields::{Fields, Known, ParsedField, Span, decimal, field_at, line_at, list_members};
use super::words::find_stop;
use super::{Framing, Method, Version};

/// Why an upstream's answer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    #[error("no valid HTTP/1 status line")]
    StatusLine,
    #[error("invalid header line")]
    FieldLine,
    #[error("too big header")]
    TooLarge,
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
    #[error("101 without a request to switch protocols")]
    UnaskedUpgrade,
    #[error("too many 1xx answers")]
    TooManyInterim,
}

/// One response head, reused from request to request. All spans are relative to the first byte of the head.
#[derive(Debug, Default)]
pub struct ResponseHead {
    pub status: u16,
    pub version: Version,
    /// `200 OK`: code and reason as they came.
    pub status_text: Span,
    pub fields: Fields,
    /// As the fields tell it: see `framing` for what holds for a request.
    declared: Framing,
    pub content_length: Option<u64>,
    pub keep_alive: bool,
    /// `Connection: upgrade` came with it.
    pub upgrade: bool,
    /// Bytes of the head with its blank line.
    pub len: usize,
    next: usize,
}

impl ResponseHead {
    pub fn clear(&mut self) {
        let mut list = std::mem::take(&mut self.fields.list);
        list.clear();
        *self = ResponseHead { fields: Fields { list }, ..ResponseHead::default() };
    }

    /// Reads on in `buf`, which holds all bytes of the head so far. `Ok(false)` asks for more.
    pub fn parse(&mut self, buf: &[u8], head_len_max: usize) -> Result<bool, BadResponse> {
        if self.next == 0 && !self.parse_status_line(buf, head_len_max)? {
            return Ok(false);
        }
        loop {
            let Some((line, parsed)) = field_at(buf, self.next) else {
                return if buf.len() >= head_len_max { Err(BadResponse::TooLarge) } else { Ok(false) };
            };
            if line.next > head_len_max {
                return Err(BadResponse::TooLarge);
            }
            self.next = line.next;
            if line.start == line.end {
                self.len = line.next;
                self.conclude(buf);
                return Ok(true);
            }
            self.on_field(buf, &parsed.map_err(|_| BadResponse::FieldLine)?)?;
        }
    }

    /// Where the body ends, given the method of the request (RFC 9112, section 6.3).
    pub fn framing(&self, method: Method) -> Framing {
        match self.status {
            _ if method == Method::Head => Framing::None,
            100..=199 | 204 | 304 => Framing::None,
            _ => self.declared,
        }
    }

    fn parse_status_line(&mut self, buf: &[u8], head_len_max: usize) -> Result<bool, BadResponse> {
        let Some(line) = line_at(buf, 0) else {
            let prefix = b"HTTP/1.";
            let seen = buf.len().min(prefix.len());
            if buf[..seen] != prefix[..seen] {
                return Err(BadResponse::StatusLine);
            }
            return if buf.len() >= head_len_max { Err(BadResponse::TooLarge) } else { Ok(false) };
        };
        let text = &buf[line.start..line.end];
        let rest = text.strip_prefix(b"HTTP/1.").ok_or(BadResponse::StatusLine)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let minor = decimal(&rest[..digits]).ok_or(BadResponse::StatusLine)?;
        self.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        let code_at = b"HTTP/1.".len() + digits + 1;
        let code = text.get(code_at..code_at + 3).ok_or(BadResponse::StatusLine)?;
        let spaced = text[code_at - 1] == b' ' && text.get(code_at + 3).is_none_or(|byte| *byte == b' ');
        let status = decimal(code).filter(|_| spaced).ok_or(BadResponse::StatusLine)?;
        if status < 100 || find_stop(text, 0).is_some() {
            return Err(BadResponse::StatusLine);
        }
        self.status = status as u16;
        self.status_text = Span::new(code_at, line.end);
        self.declared = Framing::UntilClose;
        self.next = line.next;
        Ok(true)
    }

    fn on_field(&mut self, buf: &[u8], parsed: &ParsedField) -> Result<(), BadResponse> {
        let field = parsed.field;
        let value = field.value.of(buf);
        match field.known {
            Known::ContentLength => match self.declared {
                Framing::Chunked => return Err(BadResponse::LengthAndEncoding),
                Framing::Length(_) => return Err(BadResponse::ContentLengthTwice),
                _ => {
                    let length = decimal(value).ok_or(BadResponse::ContentLength)?;
                    self.content_length = Some(length);
                    self.declared = Framing::Length(length);
                }
            },
            Known::TransferEncoding => match self.declared {
                Framing::Length(_) => return Err(BadResponse::LengthAndEncoding),
                Framing::Chunked => return Err(BadResponse::TransferEncodingTwice),
                _ if value.eq_ignore_ascii_case(b"chunked") => self.declared = Framing::Chunked,
                _ => return Err(BadResponse::TransferEncodingUnknown),
            },
            _ => {}
        }
        self.fields.list.push(field);
        Ok(())
    }

    fn conclude(&mut self, buf: &[u8]) {
        let (mut close, mut keep_alive) = (false, false);
        for field in self.fields.known(Known::Connection) {
            for member in list_members(field.value.of(buf)) {
                close |= member.eq_ignore_ascii_case(b"close");
                keep_alive |= member.eq_ignore_ascii_case(b"keep-alive");
                self.upgrade |= member.eq_ignore_ascii_case(b"upgrade");
            }
        }
        self.keep_alive = !close && (keep_alive || self.version == Version::Http11);
    }
}
