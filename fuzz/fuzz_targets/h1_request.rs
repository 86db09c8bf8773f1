//! A request head, whole and in two pieces: accepted, refused or unfinished alike.
#![no_main]

use balancer::logic::h1::request::{Limits, RequestHead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let whole = RequestHead::default().parse(bytes, &limits);
    let mut pieces = RequestHead::default();
    let mut got = Ok(false);
    for end in [bytes.len() / 3, bytes.len() / 2, bytes.len()] {
        got = pieces.parse(&bytes[..end], &limits);
        if got != Ok(false) {
            break;
        }
    }
    assert_eq!(format!("{whole:?}"), format!("{got:?}"));
});
