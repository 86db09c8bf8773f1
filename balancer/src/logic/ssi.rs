//! Server side includes: a page's text → its pieces, and what conditions in it say. Who runs the commands:
//! relay/page.rs.

use regex::bytes::RegexBuilder;

/// A piece of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'p> {
    Text(&'p [u8]),
    Command(Command<'p>),
    /// What looks like a command and is none.
    Broken,
}

/// `<!--#name argument="value" … -->`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command<'p> {
    pub name: &'p [u8],
    pub arguments: Vec<Argument<'p>>,
}

pub type Argument<'p> = (&'p [u8], Vec<u8>);

impl Command<'_> {
    pub fn argument(&self, name: &[u8]) -> Option<&[u8]> {
        self.arguments.iter().find(|(known, _)| *known == name).map(|(_, value)| &value[..])
    }
}

const OPENING: &[u8] = b"<!--#";
const CLOSING: &[u8] = b"-->";

/// The pieces of a page, in order.
pub fn pieces(page: &[u8]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = page;
    while let Some(at) = memchr::memmem::find(rest, OPENING) {
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        let inside = &rest[at + OPENING.len()..];
        match command(inside) {
            Some((command, len)) => {
                pieces.push(Piece::Command(command));
                rest = &inside[len..];
            }
            None => {
                pieces.push(Piece::Broken);
                let end = memchr::memmem::find(inside, CLOSING).map_or(inside.len(), |at| at + CLOSING.len());
                rest = &inside[end..];
            }
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// The command, and how long it is with its end.
fn command(text: &[u8]) -> Option<(Command<'_>, usize)> {
    let named = text.trim_ascii_start();
    let name_len = named.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let (name, mut rest) = named.split_at(name_len);
    let mut arguments = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(CLOSING) {
            return (name_len > 0).then_some((Command { name, arguments }, text.len() - after.len()));
        }
        let len = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let (key, after) = rest.split_at(len);
        let after = after.trim_ascii_start().strip_prefix(b"=").filter(|_| len > 0)?;
        let (value, after) = quoted(after.trim_ascii_start())?;
        arguments.push((key, value));
        rest = after;
    }
}

/// A value in quotes, of either kind; a backslash takes the next byte as it is.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let quote = *text.first().filter(|quote| b"\"'".contains(quote))?;
    let mut value = Vec::new();
    let mut at = 1;
    loop {
        match *text.get(at)? {
            byte if byte == quote => return Some((value, &text[at + 1..])),
            b'\\' if text.get(at + 1).is_some_and(|next| *next == quote || *next == b'\\') => {
                value.push(text[at + 1]);
                at += 1;
            }
            byte => value.push(byte),
        }
        at += 1;
    }
}

/// A text in which `$name` and `${name}` stand for values; a dollar behind a backslash stands for itself.
pub fn expand(text: &[u8], value_of: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        match (first, name(after)) {
            (b'\\', _) if after.first() == Some(&b'$') => {
                out.push(b'$');
                rest = &after[1..];
            }
            (b'$', Some((name, after))) => {
                out.extend(value_of(name).unwrap_or_default());
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// The name behind a dollar, and what follows it.
fn name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let (inner, is_braced) = match text.strip_prefix(b"{") {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let len = inner.iter().take_while(|byte| is_of_name(byte)).count();
    let (name, after) = inner.split_at(len);
    let after = if is_braced { after.strip_prefix(b"}")? } else { after };
    (len > 0).then_some((name, after))
}

/// The condition of `if`, before its values are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition<'c> {
    pub left: &'c [u8],
    /// `None`: that the left is not empty.
    pub right: Option<Right<'c>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right<'c> {
    pub is_negated: bool,
    pub text: &'c [u8],
}

/// `$a`, `$a = text`, `$a != text`, with `/pattern/` in place of a text.
pub fn condition(text: &[u8]) -> Option<Condition<'_>> {
    let text = text.trim_ascii();
    let Some(at) = memchr::memchr(b'=', text) else {
        return (!text.is_empty()).then_some(Condition { left: text, right: None });
    };
    let is_negated = at > 0 && text[at - 1] == b'!';
    let left = text[..at - usize::from(is_negated)].trim_ascii();
    let right = Right { is_negated, text: text[at + 1..].trim_ascii() };
    (!left.is_empty()).then_some(Condition { left, right: Some(right) })
}

/// Whether what stands on the left is what stands on the right, by text or by pattern.
pub fn is_equal(left: &[u8], right: &[u8]) -> bool {
    match right.strip_prefix(b"/").and_then(|pattern| pattern.strip_suffix(b"/")) {
        Some(pattern) => {
            let pattern = std::str::from_utf8(pattern).ok();
            let built =
                pattern.and_then(|text| RegexBuilder::new(text).size_limit(PATTERN_SIZE_MAX).build().ok());
            built.is_some_and(|pattern| pattern.is_match(left))
        }
        None => left == right,
    }
}

/// A page may be anybody's: its patterns take bounded memory.
const PATTERN_SIZE_MAX: usize = 256 * 1024;

/// For text inside a page of HTML.
pub fn escape_entities(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            byte => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests;
