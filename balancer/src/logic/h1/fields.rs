//! Field lines of requests, responses and trailers: where name and value lie, strict about what could be read in two
//! ways. What a field means is for `request` and `response`.

use memchr::{memchr, memchr2};

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
            .copied()
            .filter(move |field| field.hash == hash && field.name.of(head).eq_ignore_ascii_case(lower_name))
    }

    pub fn known(&self, known: Known) -> impl Iterator<Item = Field> + '_ {
        self.list.iter().copied().filter(move |field| field.known == known)
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
    let lf = from + memchr(b'\n', &head[from..])?;
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
    let mut hash = FNV_BASIS;
    let mut name_kind = NameKind::Plain;
    let mut colon = None;
    for (i, &byte) in text.iter().enumerate() {
        let lower = NAME_CLASS[byte as usize];
        if lower != 0 {
            hash = (hash ^ lower as u32).wrapping_mul(FNV_PRIME);
            continue;
        }
        match byte {
            b':' => {
                colon = Some(i);
                break;
            }
            0..=0x20 | 0x7f => return Err(BadLine::Name),
            b'_' if name_kind == NameKind::Plain => name_kind = NameKind::Underscore,
            b'_' => {}
            _ => name_kind = NameKind::Odd,
        }
        hash = (hash ^ byte as u32).wrapping_mul(FNV_PRIME);
    }
    let colon = colon.filter(|at| *at > 0).ok_or(BadLine::Name)?;
    let (from, to) = trimmed(text, colon + 1);
    if memchr2(0, b'\r', &text[from..to]).is_some() {
        return Err(BadLine::Value);
    }
    let name = Span::new(line.start, line.start + colon);
    let value = Span::new(line.start + from, line.start + to);
    let known = known(hash, &text[..colon]);
    Ok(ParsedField { field: Field { name, value, hash, known }, name_kind })
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
            if name.eq_ignore_ascii_case(expected.as_bytes()) { known } else { Known::Other }
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
