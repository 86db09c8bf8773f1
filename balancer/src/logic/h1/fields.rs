//! Field lines of requests, responses and trailers: where name and value lie, strict about what could be read in two
//! ways. What a field means is for `request` and `response`.

use super::words::{find_stop, is_lower_of};

/// A range of the buffer that a head was parsed from, relative to the head's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// Heads are bounded far below 4 GiB by `Limits`, so the offsets fit.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    pub fn of(self, head: &[u8]) -> &[u8] {
        head.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Fields that the relay treats specially; all others are passed on unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    #[default]
    Other,
    Connection,
    ContentLength,
    Date,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyConnection,
    Server,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    XForwardedFor,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    pub name: Span,
    pub value: Span,
    /// `hash` of the name: comparing two names is comparing two integers first.
    pub hash: u32,
    pub known: Known,
}

/// The fields of one head, in their order.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    pub list: Vec<Field>,
}

impl Fields {
    /// The first field of that lower-case name.
    pub fn find(&self, head: &[u8], hash: u32, lower_name: &[u8]) -> Option<Field> {
        self.all(head, hash, lower_name).next()
    }

    pub fn all<'a>(
        &'a self,
        head: &'a [u8],
        hash: u32,
        lower_name: &'a [u8],
    ) -> impl Iterator<Item = Field> + 'a {
        self.list
            .iter()
            .filter(move |field| field.hash == hash && is_lower_of(field.name.of(head), lower_name))
            .copied()
    }

    pub fn known(&self, known: Known) -> impl Iterator<Item = Field> + '_ {
        self.list.iter().filter(move |field| field.known == known).copied()
    }
}

/// What may be wrong with one line; the caller says what that means for its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// A control character, a space before the colon, an empty name, a folded line, no colon at all.
    Name,
    /// NUL or a bare CR in the value.
    Value,
}

/// A line of a head that has come in full.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub start: usize,
    /// Without the line ending.
    pub end: usize,
    /// Where the next line begins.
    pub next: usize,
}

/// The line at `from`, or `None` while its end has not come. A bare LF ends a line, as nginx has it.
#[inline]
pub fn line_at(head: &[u8], from: usize) -> Option<Line> {
    let mut lf = find_stop(head, from)?;
    if head[lf..].starts_with(b"\r\n") {
        return Some(Line { start: from, end: lf, next: lf + 2 });
    }
    while head[lf] != b'\n' {
        lf = find_stop(head, lf + 1)?;
    }
    let end = if lf > from && head[lf - 1] == b'\r' { lf - 1 } else { lf };
    Some(Line { start: from, end, next: lf + 1 })
}

/// A well-formed field, and whether its name is made of letters, digits and `-` only: nginx leaves out the others
/// (`ignore_invalid_headers`, `underscores_in_headers`).
#[derive(Clone, Copy, Debug)]
pub struct ParsedField {
    pub field: Field,
    pub name_kind: NameKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    Plain,
    Underscore,
    Odd,
}

/// Reads `name: value`. The space before the colon, the folded line and the empty name are refused: each has let a
/// request be read in two ways (RFC 9112, sections 5.1 and 5.2).
#[inline]
pub fn field_in(head: &[u8], line: Line) -> Result<ParsedField, BadLine> {
    let text = &head[line.start..line.end];
    let name = name_in(text).ok_or(BadLine::Name)?;
    let (from, to) = trimmed(text, name.len + 1);
    if find_stop(text, from).is_some() {
        return Err(BadLine::Value);
    }
    Ok(name.with_value(text, line.start, (from, to)))
}

/// `line_at` and `field_in` in one. Of the blank line the field is an error, and not to be looked at.
///
/// The fast path of all heads: it looks at each byte once, and at eight of a value together. What is not plainly
/// `name: value` is for the two, so that there is one place that refuses. About 400 instructions for each field in place
/// of 550 (callgrind, the answer of an nginx); its slow twin is in `tests/fields_at_once.rs`.
// Always, because the result is large and a call would pass it through memory.
#[inline(always)]
pub fn field_at(head: &[u8], from: usize) -> Option<(Line, Result<ParsedField, BadLine>)> {
    if head[from..].starts_with(b"\r\n") {
        return Some((Line { start: from, end: from, next: from + 2 }, Err(BadLine::Name)));
    }
    match plain_field_at(head, from) {
        Some((line, field)) => Some((line, Ok(field))),
        None => any_field_at(head, from),
    }
}

#[inline]
fn plain_field_at(head: &[u8], from: usize) -> Option<(Line, ParsedField)> {
    let text = &head[from..];
    let name = name_in(text)?;
    let value_from = name.len + 1;
    let end = find_stop(text, value_from)?;
    let next = match &text[end..] {
        [b'\n', ..] => end + 1,
        [b'\r', b'\n', ..] => end + 2,
        _ => return None,
    };
    let value = trimmed(&text[..end], value_from);
    Some((Line { start: from, end: from + end, next: from + next }, name.with_value(text, from, value)))
}

#[cold]
fn any_field_at(head: &[u8], from: usize) -> Option<(Line, Result<ParsedField, BadLine>)> {
    let line = line_at(head, from)?;
    Some((line, field_in(head, line)))
}

/// The name before the colon of a line.
struct Name {
    len: usize,
    hash: u32,
    kind: NameKind,
}

#[inline]
fn name_in(text: &[u8]) -> Option<Name> {
    let (mut hash, mut len) = (FNV_BASIS, 0);
    loop {
        let byte = *text.get(len)?;
        let lower = NAME_CLASS[byte as usize];
        if lower == 0 {
            return match byte {
                b':' => (len > 0).then_some(Name { len, hash, kind: NameKind::Plain }),
                _ => odd_name_in(text, hash, len),
            };
        }
        hash = (hash ^ lower as u32).wrapping_mul(FNV_PRIME);
        len += 1;
    }
}

/// The name goes on at `from` with a byte that is no letter, digit or `-`: rare, and kept out of the loop of all others.
#[cold]
fn odd_name_in(text: &[u8], mut hash: u32, from: usize) -> Option<Name> {
    let mut kind = NameKind::Underscore;
    for (i, &byte) in text[from..].iter().enumerate() {
        match byte {
            b':' => return Some(Name { len: from + i, hash, kind }),
            0..=0x20 | 0x7f => return None,
            byte if byte == b'_' || NAME_CLASS[byte as usize] != 0 => {}
            _ => kind = NameKind::Odd,
        }
        hash = (hash ^ byte.to_ascii_lowercase() as u32).wrapping_mul(FNV_PRIME);
    }
    None
}

impl Name {
    /// The field, of a line that begins at `start` of the head and with this name.
    #[inline]
    fn with_value(self, line: &[u8], start: usize, (from, to): (usize, usize)) -> ParsedField {
        let known = known(self.hash, &line[..self.len]);
        let name = Span::new(start, start + self.len);
        let value = Span::new(start + from, start + to);
        ParsedField { field: Field { name, value, hash: self.hash, known }, name_kind: self.kind }
    }
}

/// Bounds of `text[from..]` without optional white space at both ends.
fn trimmed(text: &[u8], from: usize) -> (usize, usize) {
    let blank = |byte: u8| byte == b' ' || byte == b'\t';
    let (mut from, mut to) = (from, text.len());
    while from < to && blank(text[from]) {
        from += 1;
    }
    while to > from && blank(text[to - 1]) {
        to -= 1;
    }
    (from, to)
}

/// The members of a comma-separated list, without white space and empty members.
pub fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Digits only: `+5`, an empty value, a list and a number that overflows are all refused.
pub fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let mut number = 0u64;
    for byte in value {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(byte - b'0');
    }
    // nginx counts bodies in a signed 64-bit number; origins behind us may too.
    (number <= i64::MAX as u64).then_some(number)
}

const FNV_BASIS: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// FNV-1a over the lower-case name: the key by which fields and configured names are compared.
pub const fn hash(name: &[u8]) -> u32 {
    let mut hash = FNV_BASIS;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ name[i].to_ascii_lowercase() as u32).wrapping_mul(FNV_PRIME);
        i += 1;
    }
    hash
}

/// Lower case of letters, digits and `-`; 0 for all else.
static NAME_CLASS: [u8; 256] = name_class();

const fn name_class() -> [u8; 256] {
    let mut class = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        if (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'-' {
            class[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    class
}

impl Known {
    pub fn of(name: &[u8]) -> Known {
        known(hash(name), name)
    }
}

macro_rules! known_names {
    ($($variant:ident $constant:ident $name:literal),+ $(,)?) => {
        $(const $constant: u32 = hash($name.as_bytes());)+
        #[inline]
        fn known(hash: u32, name: &[u8]) -> Known {
            let (known, expected) = match hash {
                $($constant => (Known::$variant, $name),)+
                _ => return Known::Other,
            };
            if is_lower_of(name, expected.as_bytes()) { known } else { Known::Other }
        }
    };
}

known_names! {
    Connection CONNECTION "connection",
    ContentLength CONTENT_LENGTH "content-length",
    Date DATE "date",
    Expect EXPECT "expect",
    Host HOST "host",
    Http2Settings HTTP2_SETTINGS "http2-settings",
    KeepAlive KEEP_ALIVE "keep-alive",
    ProxyConnection PROXY_CONNECTION "proxy-connection",
    Server SERVER "server",
    Te TE "te",
    Trailer TRAILER "trailer",
    TransferEncoding TRANSFER_ENCODING "transfer-encoding",
    Upgrade UPGRADE "upgrade",
    XForwardedFor X_FORWARDED_FOR "x-forwarded-for",
}
