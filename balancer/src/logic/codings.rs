//! Whether a client takes gzip, by what `Accept-Encoding` says and as nginx reads it, and how much gzip has saved.

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

/// `$gzip_ratio`: with two digits behind the point, rounded. False where there is none.
pub fn write_ratio(whole_len: u64, packed_len: u64, out: &mut Vec<u8>) -> bool {
    let Some(thousandths) = (u128::from(whole_len) * 1000).checked_div(packed_len.into()) else {
        return false;
    };
    let hundredths = (thousandths + 5) / 10;
    out.extend_from_slice(format!("{}.{:02}", hundredths / 100, hundredths % 100).as_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_rounded_as_nginx_rounds_it() {
        for (whole_len, packed_len, ratio) in [
            (2125, 1000, "2.13"),
            (2124, 1000, "2.12"),
            (1995, 1000, "2.00"),
            (0, 20, "0.00"),
            (1, 3, "0.33"),
        ] {
            let mut out = Vec::new();
            assert!(write_ratio(whole_len, packed_len, &mut out));
            assert_eq!(String::from_utf8(out).unwrap(), ratio);
        }
        assert!(!write_ratio(1, 0, &mut Vec::new()));
    }

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
        /// In nginx's own steps.
        #[test]
        fn ratios_are_nginx_s(whole_len in 0u64..1 << 40, packed_len in 1u64..1 << 30) {
            let (mut whole, mut part) = (whole_len / packed_len, whole_len * 100 / packed_len % 100);
            if whole_len * 1000 / packed_len % 10 > 4 {
                part += 1;
                if part > 99 {
                    (whole, part) = (whole + 1, 0);
                }
            }
            let mut out = Vec::new();
            write_ratio(whole_len, packed_len, &mut out);
            proptest::prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{whole}.{part:02}"));
        }

        #[test]
        fn no_value_panics(value in "(gzip|[;q=0-9., ]|.){0,20}") {
            let _ = accepts_gzip(value.as_bytes());
        }
    }
}
