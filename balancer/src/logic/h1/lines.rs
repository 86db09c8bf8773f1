//! The lines of a head that is being written: looked up, taken out, changed. The slow way, for what few locations ask.

use std::ops::Range;

/// Where the values of that name lie, in order. `name` in lower case.
pub fn values<'a>(head: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
    lines(head).filter_map(move |line| {
        let colon = line.start + memchr::memchr(b':', &head[line.clone()])?;
        let start = colon + 1 + usize::from(head.get(colon + 1) == Some(&b' '));
        let end = line.end - 2;
        head[line.start..colon].eq_ignore_ascii_case(name).then_some(start.min(end)..end)
    })
}

pub fn first<'a>(head: &'a [u8], name: &'a [u8]) -> Option<&'a [u8]> {
    values(head, name).next().map(|range| &head[range])
}

/// Takes out all lines of that name.
pub fn remove(head: &mut Vec<u8>, name: &[u8]) {
    let found: Vec<Range<usize>> = values(head, name).collect();
    for value in found.into_iter().rev() {
        let start = memchr::memrchr(b'\n', &head[..value.start]).map_or(0, |at| at + 1);
        head.drain(start..value.end + 2);
    }
}

/// Gives the first line of that name another value.
pub fn replace(head: &mut Vec<u8>, name: &[u8], with: &[u8]) {
    let first = values(head, name).next();
    if let Some(value) = first {
        head.splice(value, with.iter().copied());
    }
}

/// Lines with their ends; one that is not finished is none.
fn lines(head: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        let end = from + memchr::memmem::find(head.get(from..)?, b"\r\n")? + 2;
        Some(std::mem::replace(&mut from, end)..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nA: 1\r\nETag: \"x\"\r\na: 2\r\nAB: 3\r\n";

    #[test]
    fn lines_are_found_changed_and_taken_out_by_name() {
        assert_eq!(first(HEAD, b"etag"), Some(&b"\"x\""[..]));
        assert_eq!(values(HEAD, b"a").count(), 2);
        let mut head = HEAD.to_vec();
        remove(&mut head, b"a");
        assert_eq!(head, b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nAB: 3\r\n");
        replace(&mut head, b"etag", b"W/\"x\"");
        assert_eq!(head, b"HTTP/1.1 200 OK\r\nETag: W/\"x\"\r\nAB: 3\r\n");
    }

    proptest::proptest! {
        #[test]
        fn no_head_panics(head in "([aAbB: ]|\r\n){0,40}") {
            let mut head = head.into_bytes();
            remove(&mut head, b"a");
            proptest::prop_assert_eq!(first(&head, b"a"), None);
            replace(&mut head, b"b", b"x");
        }
    }
}
