//! W3C Trace Context (level 1, section 3.2): what of a client's `traceparent` may be believed, and one for who sent none.

const LEN: usize = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".len();

/// Whether it names a trace that can be gone on with. Later versions may say more behind a dash.
pub fn is_traceparent(text: &[u8]) -> bool {
    let Some((known, more)) = text.split_at_checked(LEN) else { return false };
    let mut fields = known.split(|byte| *byte == b'-');
    let mut next = |len: usize| fields.next().filter(|field| field.len() == len && field.iter().all(is_hex));
    let (version, trace, parent, flags) = (next(2), next(32), next(16), next(2));
    let is_named = |id: Option<&[u8]>| id.is_some_and(|id| id.iter().any(|digit| *digit != b'0'));
    let ends_well = match version {
        None | Some(b"ff") => false,
        Some(b"00") => more.is_empty(),
        Some(_) => more.first().is_none_or(|byte| *byte == b'-'),
    };
    ends_well && is_named(trace) && is_named(parent) && flags.is_some() && fields.next().is_none()
}

fn is_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// A trace that begins here, by the request's id; whether it is recorded is for others to say.
pub fn begin(request_id: &[u8; 16], out: &mut Vec<u8>) {
    let put_hex = |out: &mut Vec<u8>, bytes: &[u8]| {
        for byte in bytes {
            out.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
    };
    // All zeros would be none.
    let never_zero = |bytes: &[u8]| if bytes.iter().all(|byte| *byte == 0) { 1 } else { 0 };
    let (mut trace, mut parent) = (*request_id, [0; 8]);
    parent.copy_from_slice(&request_id[8..]);
    trace[15] |= never_zero(&trace);
    parent[7] |= never_zero(&parent);
    out.extend_from_slice(b"00-");
    put_hex(out, &trace);
    out.push(b'-');
    put_hex(out, &parent);
    out.extend_from_slice(b"-00");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_the_recommendation_calls_invalid_is_not_believed() {
        for good in
            [GOOD.to_owned(), GOOD.replacen("00", "cc", 1), GOOD.replacen("00", "01", 1) + "-what-else"]
        {
            assert!(is_traceparent(good.as_bytes()), "{good}");
        }
        for bad in [
            String::new(),
            "00".to_owned(),
            GOOD[..LEN - 1].to_owned(),
            GOOD.to_owned() + "-more",
            GOOD.to_owned() + "0",
            GOOD.replacen("00", "01", 1) + "0",
            GOOD.replacen("00", "ff", 1),
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            GOOD.replacen("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32), 1),
            GOOD.replacen("b7ad6b7169203331", &"0".repeat(16), 1),
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01".to_owned(),
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn one_that_begins_here_is_believed_by_the_next(id: [u8; 16]) {
            let mut text = Vec::new();
            begin(&id, &mut text);
            prop_assert!(is_traceparent(&text));
        }

        #[test]
        fn nothing_panics_and_only_plain_text_is_believed(text: Vec<u8>, tail in "[-0-9a-f]{0,60}") {
            let _ = is_traceparent(&text);
            if is_traceparent(tail.as_bytes()) {
                prop_assert!(tail.len() >= LEN);
            }
        }
    }

    #[test]
    fn an_id_of_zeros_begins_a_trace_all_the_same() {
        let mut text = Vec::new();
        begin(&[0; 16], &mut text);
        assert!(is_traceparent(&text));
    }
}
