//! Bytes made fit for a URL: `%` and two digits for what may not stand there as it is.

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends a decoded path with escapes for what may not stand in a URL as it is.
pub fn escape_path(path: &[u8], out: &mut Vec<u8>) {
    for &byte in path {
        match byte {
            0..=0x20
            | b'"'
            | b'#'
            | b'%'
            | b'<'
            | b'>'
            | b'?'
            | b'\\'
            | b'^'
            | b'`'
            | b'{'..=b'}'
            | 0x7f.. => {
                out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
}

/// Appends bytes with escapes for all that RFC 3986 does not call unreserved.
pub fn escape_component(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            _ => out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_stand_in_a_url_is_escaped_and_all_else_stays() {
        let mut out = Vec::new();
        escape_path(b"/a b%/\xc3\xa4", &mut out);
        assert_eq!(out, b"/a%20b%25/%C3%A4");
        out.clear();
        escape_component(b"-----BEGIN x\n+/=", &mut out);
        assert_eq!(out, b"-----BEGIN%20x%0A%2B%2F%3D");
    }
}
