//! Pages of anybody: read to an end, and their texts are their own.
#![no_main]

use balancer::logic::ssi::{Piece, condition, escape_entities, expand, is_equal, pieces};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for piece in pieces(bytes) {
        if let Piece::Text(text) = piece {
            assert!(!text.is_empty() && text.len() <= bytes.len());
        }
    }
    let expanded = expand(bytes, &mut |_| None);
    assert!(expanded.len() <= bytes.len());
    if let Some(condition) = condition(bytes) {
        let right = condition.right.map_or(&b""[..], |right| right.text);
        let _ = is_equal(condition.left, right);
    }
    escape_entities(bytes, &mut Vec::new());
});
