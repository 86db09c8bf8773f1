//! Ranges of a thing as an answer tells them: `Content-Range`, and several of them in one `multipart/byteranges` body
//! (RFC 9110, section 14.6), byte for byte as nginx frames it. Which ranges: see `selection`.

use std::ops::Range;

/// `bytes FIRST-LAST/LEN`. No range is empty.
pub fn content_range(bytes: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", bytes.start, bytes.end - 1)
}

/// What stands around the parts of one body.
#[derive(Debug)]
pub struct Multipart {
    boundary: String,
    /// Of each part, up to the value of its `Content-Range`.
    before: Vec<u8>,
    len: u64,
}

impl Multipart {
    /// `number` must be one that the thing does not happen to hold; `len` is that of the whole thing.
    pub fn new(number: u64, content_type: &[u8], len: u64) -> Multipart {
        let boundary = format!("{number:020}");
        let mut before = format!("\r\n--{boundary}\r\n").into_bytes();
        if !content_type.is_empty() {
            before.extend_from_slice(b"Content-Type: ");
            before.extend_from_slice(content_type);
            before.extend_from_slice(b"\r\n");
        }
        before.extend_from_slice(b"Content-Range: ");
        Multipart { boundary, before, len }
    }

    /// Of the whole body.
    pub fn content_type(&self) -> Vec<u8> {
        format!("multipart/byteranges; boundary={}", self.boundary).into_bytes()
    }

    /// What stands before these bytes.
    pub fn head(&self, bytes: &Range<u64>) -> Vec<u8> {
        let range = content_range(bytes, self.len);
        [&self.before, range.as_bytes(), b"\r\n\r\n"].concat()
    }

    /// What stands behind the last of them.
    pub fn end(&self) -> Vec<u8> {
        format!("\r\n--{}--\r\n", self.boundary).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The parts of a body, as a client reads them: their type, range and bytes.
    fn read(body: &[u8], content_type: &str) -> Vec<(String, String, Vec<u8>)> {
        let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let body = body.strip_suffix(format!("\r\n--{boundary}--\r\n").as_bytes()).unwrap();
        let delimiter = format!("\r\n--{boundary}\r\n");
        let mut parts: Vec<&[u8]> = Vec::new();
        let starts: Vec<usize> = memchr::memmem::find_iter(body, delimiter.as_bytes()).collect();
        assert_eq!(starts[0], 0);
        for (place, start) in starts.iter().enumerate() {
            let end = starts.get(place + 1).copied().unwrap_or(body.len());
            parts.push(&body[start + delimiter.len()..end]);
        }
        let read_part = |part: &&[u8]| {
            let end = memchr::memmem::find(part, b"\r\n\r\n").unwrap();
            let head = String::from_utf8(part[..end].to_vec()).unwrap();
            let value = |name: &str| {
                head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
            };
            (value("Content-Type").to_owned(), value("Content-Range").to_owned(), part[end + 4..].to_vec())
        };
        parts.iter().map(read_part).collect()
    }

    #[test]
    fn a_part_stands_between_the_lines_that_nginx_writes() {
        let multipart = Multipart::new(7, b"text/plain", 10);
        assert_eq!(multipart.content_type(), b"multipart/byteranges; boundary=00000000000000000007");
        assert_eq!(
            multipart.head(&(2..5)),
            b"\r\n--00000000000000000007\r\nContent-Type: text/plain\r\nContent-Range: bytes 2-4/10\r\n\r\n"
        );
        assert_eq!(multipart.end(), b"\r\n--00000000000000000007--\r\n");
        let bare = Multipart::new(u64::MAX, b"", 10).head(&(0..1));
        assert_eq!(bare, b"\r\n--18446744073709551615\r\nContent-Range: bytes 0-0/10\r\n\r\n");
    }

    proptest! {
        #[test]
        fn a_client_reads_the_parts_that_were_written(
            thing in proptest::collection::vec(any::<u8>(), 1..200),
            cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..8),
            number: u64,
        ) {
            let len = thing.len();
            let ranges: Vec<Range<u64>> = cuts
                .iter()
                .map(|(a, b)| (a.index(len), b.index(len)))
                .map(|(a, b)| a.min(b) as u64..a.max(b) as u64 + 1)
                .collect();
            let multipart = Multipart::new(number, b"image/png", len as u64);
            let mut body = Vec::new();
            for range in &ranges {
                body.extend(multipart.head(range));
                body.extend_from_slice(&thing[range.start as usize..range.end as usize]);
            }
            body.extend(multipart.end());
            let parts = read(&body, std::str::from_utf8(&multipart.content_type()).unwrap());
            prop_assert_eq!(parts.len(), ranges.len());
            for ((kind, told, bytes), range) in parts.into_iter().zip(ranges) {
                prop_assert_eq!(kind, "image/png");
                prop_assert_eq!(told, format!("bytes {}-{}/{len}", range.start, range.end - 1));
                prop_assert_eq!(&bytes[..], &thing[range.start as usize..range.end as usize]);
            }
        }
    }
}
