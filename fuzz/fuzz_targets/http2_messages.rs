//! Heads on their way from HTTP/1 to HTTP/2 and back: what was one message stays one.
#![no_main]

use balancer::logic::h1::{Limits, RequestHead, ResponseHead, Version};
use balancer::logic::messages;
use libfuzzer_sys::fuzz_target;

const HEAD_LEN_MAX: usize = 16 * 1024;

fn request(bytes: &[u8]) {
    let mut head = RequestHead::default();
    if head.parse(bytes, &Limits::default()) != Ok(true) {
        return;
    }
    let Some(there) = messages::request(&head, &bytes[..head.len], "http") else { return };
    let mut text = Vec::new();
    messages::request_head(&there, false, &mut text);
    let mut back = RequestHead::default();
    let limits = Limits { version_max: Version::Http2, ..Limits::default() };
    if back.parse(&text, &limits) == Ok(true) {
        assert_eq!(back.len, text.len(), "nothing is left over that could be a second request");
    }
}

fn response(bytes: &[u8]) {
    let mut head = ResponseHead::default();
    if head.parse(bytes, HEAD_LEN_MAX) != Ok(true) {
        return;
    }
    let Some(there) = messages::response(&head, &bytes[..head.len]) else { return };
    let mut text = Vec::new();
    messages::response_head(&there, messages::Body::Follows, &mut text);
    let mut back = ResponseHead::default();
    if back.parse(&text, 2 * HEAD_LEN_MAX) == Ok(true) {
        assert_eq!((back.status, back.len), (head.status, text.len()));
    }
}

fuzz_target!(|bytes: &[u8]| {
    request(bytes);
    response(bytes);
    let mut lines = Vec::new();
    messages::lines(&messages::trailers(bytes), &mut lines);
    assert!(lines.is_empty() || lines.ends_with(b"\r\n"));
});
