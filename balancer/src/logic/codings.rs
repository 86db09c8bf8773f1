//! Whether a client takes gzip, by what `Accept-Encoding` says and as nginx reads it.

/// The first `gzip` that stands for itself counts; a weight of 0, or one that is malformed, says no.
pub fn accepts_gzip(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(&lower[from..], b"gzip").map(|at| from + at) {
        if at == 0 || matches!(lower[at - 1], b',' | b' ') {
            return weight_allows(&lower[at + 4..]);
        }
        from = at + 4;
    }
    false
}

fn weight_allows(rest: &[u8]) -> bool {
    let Some(at) = rest.iter().position(|byte| *byte != b' ') else { return true };
    match rest[at] {
        b',' => return true,
        b';' => {}
        _ => return false,
    }
    let rest = &rest[at + 1..];
    let Some(at) = rest.iter().position(|byte| *byte != b' ') else { return true };
    let Some(weight) = rest[at..].strip_prefix(b"q=") else { return false };
    is_positive(weight)
}

/// `1`, `1.000`, `0.001`: at most three digits behind the point, not all of them 0.
fn is_positive(weight: &[u8]) -> bool {
    let end = weight.iter().position(|byte| matches!(byte, b',' | b' ')).unwrap_or(weight.len());
    let (whole, part) = match &weight[..end] {
        [whole] => (*whole, &[][..]),
        [whole, b'.', part @ ..] => (*whole, part),
        _ => return false,
    };
    if part.len() > 3 || !part.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let is_zero = part.iter().all(|digit| *digit == b'0');
    match whole {
        b'1' => is_zero,
        b'0' => !is_zero,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_as_nginx_does() {
        for yes in [
            "gzip",
            "gzip, deflate",
            "deflate, gzip",
            "gzip;q=1",
            "gzip; q=0.001",
            "GZIP;Q=1.000",
            "x,gzip ;q=0.5,y",
        ] {
            assert!(accepts_gzip(yes.as_bytes()), "{yes}");
        }
        for no in [
            "",
            "deflate",
            "xgzip",
            "gzipx",
            "gzip;q=0",
            "gzip;q=0.000",
            "gzip;q=2",
            "gzip;q=0.0001",
            "gzip;x",
            "gzip;q=",
        ] {
            assert!(!accepts_gzip(no.as_bytes()), "{no}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_panics(value in "(gzip|[;q=0-9., ]|.){0,20}") {
            let _ = accepts_gzip(value.as_bytes());
        }
    }
}
