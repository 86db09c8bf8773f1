//! A response head, whole and in two pieces: accepted, refused or unfinished alike.
#![no_main]

use balancer::logic::h1::response::ResponseHead;
use libfuzzer_sys::fuzz_target;

const HEAD_LEN_MAX: usize = 16 * 1024;

fuzz_target!(|bytes: &[u8]| {
    let whole = ResponseHead::default().parse(bytes, HEAD_LEN_MAX);
    let mut pieces = ResponseHead::default();
    let mut got = Ok(false);
    for end in [bytes.len() / 3, bytes.len() / 2, bytes.len()] {
        got = pieces.parse(&bytes[..end], HEAD_LEN_MAX);
        if got != Ok(false) {
            break;
        }
    }
    assert_eq!(format!("{whole:?}"), format!("{got:?}"));
});
