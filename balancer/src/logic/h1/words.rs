//! Looking at bytes eight at a time. Names and values of heads are short: for them the set-up of `memchr`'s vector code
//! costs more than the search.

const ONES: u64 = u64::MAX / 255;
const HIGH_BITS: u64 = ONES * 0x80;

/// So far it pays to look by ourselves; the rest of a longer text is for `memchr`.
const NEAR_LEN: usize = 64;

/// Where the first CR, LF or NUL at or after `from` is: what could end a line, for one reader or another.
#[inline]
pub fn find_stop(text: &[u8], from: usize) -> Option<usize> {
    let near = &text[..text.len().min(from + NEAR_LEN)];
    let mut at = find_control(near, from);
    while let Some(byte) = near.get(at) {
        if matches!(byte, 0 | b'\r' | b'\n') {
            return Some(at);
        }
        at = find_control(near, at + 1);
    }
    if near.len() == text.len() {
        return None;
    }
    memchr::memchr3(0, b'\r', b'\n', &text[near.len()..]).map(|at| near.len() + at)
}

/// Where the first control character (below 0x20) at or after `from` is; the length where there is none.
#[inline]
fn find_control(text: &[u8], from: usize) -> usize {
    let mut at = from;
    let (words, rest) = text[from..].as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        // A byte below 0x20 borrows into its high bit. The borrow may mark bytes above it as well, so the lowest mark
        // is the one to believe.
        let marks = word.wrapping_sub(ONES * 0x20) & !word & HIGH_BITS;
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + rest.iter().position(|byte| *byte < 0x20).unwrap_or(rest.len())
}

/// Whether `name` in lower case is `lower`.
#[inline]
pub fn is_lower_of(name: &[u8], lower: &[u8]) -> bool {
    if name.len() != lower.len() {
        return false;
    }
    // The last word overlaps with those before, so that no rest is left to be compared one by one.
    if let (Some(name_end), Some(lower_end)) = (name.last_chunk::<8>(), lower.last_chunk::<8>()) {
        let mut words = name.as_chunks::<8>().0.iter().zip(lower.as_chunks::<8>().0);
        return is_lower_word_of(*name_end, *lower_end)
            && words.all(|(name, lower)| is_lower_word_of(*name, *lower));
    }
    match (ends(name), ends(lower)) {
        (Some(name), Some(lower)) => is_lower_word_of(name, lower),
        _ => name.iter().zip(lower).all(|(name, lower)| name.to_ascii_lowercase() == *lower),
    }
}

/// The first four bytes and the last four, which are all there are in up to eight.
#[inline]
fn ends(text: &[u8]) -> Option<[u8; 8]> {
    let ([a, b, c, d], [e, f, g, h]) = (*text.first_chunk::<4>()?, *text.last_chunk::<4>()?);
    Some([a, b, c, d, e, f, g, h])
}

#[inline]
fn is_lower_word_of(name: [u8; 8], lower: [u8; 8]) -> bool {
    lower_case(u64::from_le_bytes(name)) == u64::from_le_bytes(lower)
}

/// `to_ascii_lowercase` of eight bytes.
#[inline]
fn lower_case(word: u64) -> u64 {
    // Without their high bits, so that no sum runs over into the next byte.
    let low_bits = word & !HIGH_BITS;
    let from_a = low_bits + ONES * (0x80 - b'A' as u64);
    let past_z = low_bits + ONES * (0x7f - b'Z' as u64);
    let capitals = from_a & !past_z & !word & HIGH_BITS;
    word | capitals >> 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes around each border that the arithmetic could get wrong, in any neighbourhood.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            any::<u8>(),
            0x20..=0x7f_u8,
            prop::sample::select(
                &b"\x00\x01\x09\x0a\x0d\x1f\x20\x21\x40AZ[`az{\x7f\x80\x8d\x9f\xa0\xc1\xda\xff"[..]
            ),
        ];
        prop::collection::vec(byte, 0..160)
    }

    proptest! {
        #[test]
        fn the_first_control_character_is_found(text in bytes(), from in 0_usize..160) {
            let from = from.min(text.len());
            let plain = text[from..].iter().position(|byte| *byte < 0x20).map_or(text.len(), |at| from + at);
            prop_assert_eq!(find_control(&text, from), plain);
        }

        #[test]
        fn the_first_byte_that_could_end_a_line_is_found(mut text in bytes(), from in 0_usize..160, blanked in any::<bool>()) {
            if blanked {
                text.iter_mut().rev().skip(1).filter(|byte| matches!(byte, 0 | b'\r' | b'\n')).for_each(|byte| *byte = b' ');
            }
            let from = from.min(text.len());
            let is_stop = |byte: &u8| matches!(byte, 0 | b'\r' | b'\n');
            let plain = text[from..].iter().position(is_stop).map(|at| from + at);
            prop_assert_eq!(find_stop(&text, from), plain);
        }

        #[test]
        fn names_are_compared_as_one_byte_after_the_other_would_be(name in bytes(), other in bytes()) {
            let lower = name.to_ascii_lowercase();
            prop_assert!(is_lower_of(&name, &lower));
            prop_assert_eq!(is_lower_of(&name, &other), name.to_ascii_lowercase() == other);
            for at in 0..name.len() {
                for bit in 0..8 {
                    let mut changed = name.clone();
                    changed[at] ^= 1 << bit;
                    prop_assert_eq!(is_lower_of(&changed, &lower), changed.to_ascii_lowercase() == lower);
                }
            }
        }
    }
}
