//! Request targets: origin and absolute form, the host they name, and the normalised path by which locations are
//! chosen (`%41` → `A`, `//` → `/`, `..` resolved), as nginx normalises it.

use super::fields::{self, Span};
use super::request::Refusal;

/// The parts of a request target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Host and port of the absolute form: it outranks the `Host` header (RFC 9112, section 3.2.2).
    pub authority: Option<Span>,
    /// From the first `/`, without query; empty in `http://host` and `http://host?x`.
    pub path: Span,
    /// Without the `?`.
    pub query: Option<Span>,
    /// The path holds `%`, `//`, `/.` or `#`: `normalise` must run. Most do not.
    pub is_complex: bool,
}

impl Target {
    /// Path and query as they came.
    pub fn origin_form(&self) -> Span {
        Span { start: self.path.start, end: self.query.map_or(self.path.end, |query| query.end) }
    }
}

/// Takes the target apart. Control characters are refused; spaces cannot be in it by construction.
pub fn split_target(buf: &[u8], span: Span) -> Result<Target, Refusal> {
    let text = span.of(buf);
    let path_at = match text.first() {
        Some(b'/') => 0,
        Some(byte) if byte.is_ascii_alphabetic() => {
            let scheme = text
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
                .count();
            if !text[scheme..].starts_with(b"://") {
                return Err(Refusal::Target);
            }
            let host_at = scheme + 3;
            let host_len =
                text[host_at..].iter().take_while(|byte| !matches!(byte, b'/' | b'?' | b'#')).count();
            check_host(&text[host_at..host_at + host_len])?;
            if host_len == 0 {
                return Err(Refusal::Host);
            }
            host_at + host_len
        }
        _ => return Err(Refusal::Target),
    };
    let start = span.start as usize;
    let authority_at = memchr::memchr(b'/', &text[..path_at]).map(|at| at + 2);
    let authority = authority_at.map(|at| Span::new(start + at, start + path_at));
    let (mut question, mut is_complex, mut last, mut end) = (None, false, 0u8, text.len());
    for (i, &byte) in text[path_at..].iter().enumerate() {
        match byte {
            0..=0x1f | 0x7f => return Err(Refusal::Target),
            b'?' if question.is_none() => question = Some(path_at + i),
            // A fragment does not travel (RFC 3986, section 3.5); nginx cuts it off for itself, we for the origin too.
            b'#' => {
                end = path_at + i;
                break;
            }
            b'%' | b'.' | b'/' if question.is_none() => is_complex |= byte == b'%' || last == b'/',
            _ => {}
        }
        last = byte;
    }
    let path_end = question.unwrap_or(end);
    Ok(Target {
        authority,
        path: Span::new(start + path_at, start + path_end),
        query: question.map(|at| Span::new(start + at + 1, start + end)),
        is_complex,
    })
}

/// `host:port`, the target of CONNECT.
pub fn check_authority(text: &[u8]) -> Result<(), Refusal> {
    let (name, port) = split_port(text);
    let is_whole = !name.is_empty() && port.is_some_and(|port| !port.is_empty());
    if is_whole { check_host(text) } else { Err(Refusal::Target) }
}

/// nginx's rule for hosts: no control characters, spaces or slashes, no empty label, a port of digits; userinfo is
/// refused too, because `user@host` is read as a host by some.
pub fn check_host(host: &[u8]) -> Result<(), Refusal> {
    let (name, port) = split_port(host);
    let is_port = |port: &[u8]| port.is_empty() || fields::decimal(port).is_some_and(|port| port <= 65535);
    if port.is_some_and(|port| !is_port(port)) || matches!(name, b"" | b".") {
        return Err(Refusal::Host);
    }
    if name.first() == Some(&b'[') {
        let inner = name.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).ok_or(Refusal::Host)?;
        let plain =
            inner.iter().all(|byte| byte.is_ascii_alphanumeric() || b":.%_-~!$&'()*+,;=".contains(byte));
        return if plain && !inner.is_empty() && memchr::memmem::find(inner, b"..").is_none() {
            Ok(())
        } else {
            Err(Refusal::Host)
        };
    }
    let mut dot = false;
    for &byte in name {
        if !IN_HOST[byte as usize] || (dot && byte == b'.') {
            return Err(Refusal::Host);
        }
        dot = byte == b'.';
    }
    Ok(())
}

/// Bytes that may be in the name of a host: one look-up for each instead of ten comparisons.
static IN_HOST: [bool; 256] = {
    let mut in_host = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        in_host[byte as usize] =
            !matches!(byte, b'/' | b'\\' | b'@' | b',' | b'?' | b'#' | b':' | b'[' | b']');
        byte += 1;
    }
    in_host
};

/// Host name and port of `name:port`; brackets of IPv6 stay with the name.
pub fn split_port(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    let from = if host.first() == Some(&b'[') { memchr::memchr(b']', host).unwrap_or(0) } else { 0 };
    // Hosts are short: `memchr` would be slower.
    match host[from..].iter().position(|byte| *byte == b':') {
        Some(colon) => (&host[..from + colon], Some(&host[from + colon + 1..])),
        None => (host, None),
    }
}

/// Appends the path with escapes decoded, `.` and `..` resolved and, if asked, slashes merged. A path that climbs over the
/// root, a broken escape and `%00` are refused.
pub fn normalise(path: &[u8], merge_slashes: bool, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let base = out.len();
    if path.is_empty() {
        out.push(b'/');
        return Ok(());
    }
    let mut at = 0;
    while at < path.len() {
        let (byte, used) = decoded(path, at)?;
        at += used;
        if byte == 0 {
            return Err(Refusal::Target);
        }
        if byte != b'/' {
            out.push(byte);
            continue;
        }
        close_segment(out, base)?;
        if !(merge_slashes && out.len() > base && out.last() == Some(&b'/')) {
            out.push(b'/');
        }
    }
    if close_segment(out, base)? {
        out.push(b'/');
    }
    Ok(())
}

/// What stands before and after the first `?`.
pub fn split_args(target: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, b""),
    }
}

/// Path, decoded, and query of a target that a page names: nginx's rule. None where it holds `..`, a NUL or a broken
/// escape, or has no path.
pub fn safe_target(target: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (raw, args) = split_args(target);
    let (mut path, mut at) = (Vec::with_capacity(raw.len()), 0);
    while at < raw.len() {
        let (byte, used) = decoded(raw, at).ok()?;
        path.push(byte);
        at += used;
    }
    let climbs = path.split(|byte| *byte == b'/').any(|segment| segment == b"..");
    (!path.is_empty() && !climbs && !path.contains(&0)).then(|| (path, args.to_vec()))
}

/// Resolves a last segment of `.` or `..` and cuts it off together with the slash before it; true when it did.
fn close_segment(out: &mut Vec<u8>, base: usize) -> Result<bool, Refusal> {
    let Some(slash) = out[base..].iter().rposition(|byte| *byte == b'/').map(|at| base + at) else {
        // A path of an origin may begin without one, and goes up no more than others do.
        return if &out[base..] == b".." { Err(Refusal::Target) } else { Ok(false) };
    };
    match &out[slash + 1..] {
        b"." => out.truncate(slash),
        b".." => {
            let parent = out[base..slash].iter().rposition(|byte| *byte == b'/').ok_or(Refusal::Target)?;
            out.truncate(base + parent);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn decoded(path: &[u8], at: usize) -> Result<(u8, usize), Refusal> {
    if path[at] != b'%' {
        return Ok((path[at], 1));
    }
    let digit = |i: usize| path.get(i).and_then(|byte| (*byte as char).to_digit(16)).ok_or(Refusal::Target);
    Ok(((digit(at + 1)? * 16 + digit(at + 2)?) as u8, 3))
}
