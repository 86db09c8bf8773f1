//! MurmurHash2, 32 bits, seed 0: what `split_clients` divides by, bit for bit as nginx does.

const FACTOR: u32 = 0x5bd1_e995;

pub fn hash(data: &[u8]) -> u32 {
    let mut hash = data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        let word = u32::from_le_bytes(word.try_into().expect("chunks of four bytes")).wrapping_mul(FACTOR);
        let word = (word ^ word >> 24).wrapping_mul(FACTOR);
        hash = hash.wrapping_mul(FACTOR) ^ word;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(FACTOR);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_reference() {
        assert_eq!(hash(b""), 0);
        let spread: std::collections::HashSet<u32> = (0..1000u32).map(|n| hash(&n.to_le_bytes())).collect();
        assert_eq!(spread.len(), 1000);
    }

    proptest::proptest! {
        /// Against the definition, a byte at a time.
        #[test]
        fn any_length_is_read_as_the_definition_says(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let mut h = data.len() as u32;
            let mut at = 0;
            while data.len() - at >= 4 {
                let mut k = u32::from(data[at])
                    | u32::from(data[at + 1]) << 8
                    | u32::from(data[at + 2]) << 16
                    | u32::from(data[at + 3]) << 24;
                k = k.wrapping_mul(0x5bd1_e995);
                k ^= k >> 24;
                k = k.wrapping_mul(0x5bd1_e995);
                h = h.wrapping_mul(0x5bd1_e995) ^ k;
                at += 4;
            }
            let left = &data[at..];
            if left.len() > 2 { h ^= u32::from(left[2]) << 16; }
            if left.len() > 1 { h ^= u32::from(left[1]) << 8; }
            if !left.is_empty() { h ^= u32::from(left[0]); h = h.wrapping_mul(0x5bd1_e995); }
            h ^= h >> 13;
            h = h.wrapping_mul(0x5bd1_e995);
            h ^= h >> 15;
            proptest::prop_assert_eq!(hash(&data), h);
        }
    }
}
