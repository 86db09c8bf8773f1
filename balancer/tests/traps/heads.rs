//! Heads of HTTP/2 that are none, or that would be two in HTTP/1.1 (CVE-2026-42926): refused, and the origin sees nothing.

use crate::OK;
use crate::common::{Balancer, Origin};
use crate::frames::{DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, block};

/// What came of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Reset,
    /// The whole connection ended, with this word or none.
    Goodbye(Option<u32>),
    /// By the first byte of its head: the static table's entries of `:status`.
    Answered(u8),
}

pub const STATUS_200: u8 = 0x88;

pub fn outcome(client: &mut Frames, stream: u32) -> Outcome {
    while let Some(frame) = client.next() {
        match frame.kind {
            RST_STREAM if frame.stream == stream => return Outcome::Reset,
            HEADERS if frame.stream == stream => return Outcome::Answered(frame.payload[0]),
            GOAWAY => {
                let reason = frame.payload[4..8].try_into().unwrap();
                return Outcome::Goodbye(Some(u32::from_be_bytes(reason)));
            }
            _ => {}
        }
    }
    Outcome::Goodbye(None)
}

/// A balancer that passes everything of this origin on, streamed or held until it is whole.
pub fn before(origin: &Origin, location: &str) -> Balancer {
    Balancer::start(&format!(
        "underscores_in_headers on; ignore_invalid_headers off;\n\
         server {{ listen 127.0.0.1:PORT; http2 on; client_header_timeout 5s;\n\
         location / {{ proxy_pass http://127.0.0.1:{}; {location} }} }}",
        origin.port
    ))
}

/// Sends each head on a connection of its own: none is answered with 200, and the origin has seen only the last one, which
/// is good.
fn assert_refused(heads: &[Vec<(&str, &str)>]) {
    let origin = Origin::answering(OK);
    let balancer = before(&origin, "");
    for head in heads {
        let mut client = Frames::connect(balancer.port);
        client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(head));
        let outcome = outcome(&mut client, 1);
        // A goodbye without a fault is what the deadline says: the head would have been taken for one that is not whole.
        assert!(
            ![Outcome::Answered(STATUS_200), Outcome::Goodbye(Some(0))].contains(&outcome),
            "{head:?}: {outcome:?}"
        );
        assert_eq!(origin.seen(), [""; 0], "{head:?}: {outcome:?}");
    }
    let mut client = Frames::connect(balancer.port);
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&with(&[("x-good", "1"), ("te", "trailers")])));
    assert_eq!(outcome(&mut client, 1), Outcome::Answered(STATUS_200));
    assert_eq!(origin.seen().len(), 1);
}

const PSEUDO: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];

/// A good head with these fields behind it.
pub fn with<'a>(fields: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&PSEUDO, fields].concat()
}

/// A good head in which one field says something else.
fn instead<'a>(name: &str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    PSEUDO.map(|(known, was)| (known, if known == name { value } else { was })).to_vec()
}

#[test]
fn names_of_http2_that_would_be_other_lines_in_http1_reach_nobody() {
    let names = [
        "",
        " ",
        "X-Upper",
        "x y",
        "x ",
        " x",
        "x:",
        "x:y",
        "x\r",
        "x\n",
        "x\r\nx-evil",
        "x\0",
        "x\t",
        "x\x7f",
        "x\u{e9}",
        "x(y)",
        "host: b\r\nx",
    ];
    assert_refused(&names.map(|name| with(&[(name, "1")])));
}

#[test]
fn values_of_http2_that_would_end_a_line_in_http1_reach_nobody() {
    let values =
        ["a\rb", "a\nb", "a\r\nX-Evil: 1", "a\0b", "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a", "\n", "a\r"];
    assert_refused(&values.map(|value| with(&[("x-field", value)])));
    assert_refused(&values.map(|value| with(&[("cookie", value)])));
}

#[test]
fn targets_of_http2_that_would_be_other_request_lines_reach_nobody() {
    let paths = [
        "",
        "a",
        "/a b",
        " /",
        "/ ",
        "/a\tb",
        "/a\r",
        "/a\nb",
        "/\0",
        "/\x01",
        "/\x7f",
        "/ HTTP/1.1\r\nX-Evil: 1",
        "/ HTTP/1.1\r\n\r\nGET /smuggled",
        "/a?b c",
        "/a?b\r\nc",
    ];
    assert_refused(&paths.map(|path| instead(":path", path)));
    let methods = ["", "GE T", "GET /smuggled HTTP/1.1\r\nHost:", "GET\r\n", "get", "G\0T", "GET:"];
    assert_refused(&methods.map(|method| instead(":method", method)));
    let authorities =
        ["a b", "u@a", "a/b", "a?b", "a#b", "a\r\nX-Evil: 1", "a\n", "a,b", "a:b", "a:1:2", "[::1", "\0"];
    assert_refused(&authorities.map(|authority| instead(":authority", authority)));
}

#[test]
fn a_fragment_in_a_target_of_http2_is_cut_off() {
    let origin = Origin::answering(OK);
    let balancer = before(&origin, "");
    let mut client = Frames::connect(balancer.port);
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&instead(":path", "/open#/../closed?x")));
    let outcome = outcome(&mut client, 1);
    let seen = origin.seen();
    let is_cut = seen.len() == 1 && seen[0].starts_with("GET /open HTTP/1.1\r\n");
    assert!(is_cut || (outcome != Outcome::Answered(STATUS_200) && seen.is_empty()), "{outcome:?} {seen:?}");
}

#[test]
fn pseudo_headers_that_are_missing_doubled_unknown_or_late_reach_nobody() {
    let without = |name: &str| PSEUDO.into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>();
    let [method, scheme, path, authority] = PSEUDO;
    let doubled = |field| [&[field][..], &PSEUDO].concat();
    assert_refused(&[
        without(":method"),
        without(":scheme"),
        without(":path"),
        without(":authority"),
        doubled(method),
        doubled(scheme),
        doubled(path),
        doubled(authority),
        doubled((":path", "/other")),
        doubled((":authority", "b.test")),
        doubled((":status", "200")),
        doubled((":unknown", "1")),
        doubled((":protocol", "websocket")),
        vec![method, scheme, authority, ("x-field", "1"), path],
        vec![("x-field", "1"), method, scheme, path, authority],
        with(&[(":path", "/other")]),
        with(&[("host", "b.test")]),
        vec![method, scheme, path, ("host", "a.test"), ("host", "a.test")],
        vec![(":method", "CONNECT"), authority],
        vec![(":method", "CONNECT"), scheme, path, authority],
        vec![(":method", "CONNECT"), (":protocol", "websocket"), scheme, path, authority],
    ]);
}

#[test]
fn fields_of_http1s_connection_and_its_framing_are_no_fields_of_http2() {
    assert_refused(&[
        with(&[("te", "gzip")]),
        with(&[("te", "trailers, gzip")]),
        with(&[("te", "chunked")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("connection", "close")]),
        with(&[("connection", "x-field"), ("x-field", "1")]),
        with(&[("keep-alive", "1")]),
        with(&[("proxy-connection", "keep-alive")]),
        with(&[("upgrade", "websocket")]),
        with(&[("content-length", "1"), ("content-length", "2")]),
        with(&[("content-length", "0, 0")]),
        with(&[("content-length", "+0")]),
        with(&[("content-length", "")]),
        with(&[("content-length", "0x0")]),
        with(&[("content-length", "18446744073709551616")]),
    ]);
}

/// What comes of a POST with these trailers, and what the origin was asked.
fn with_trailers(trailers: &[(&str, &str)]) -> (Outcome, Vec<String>) {
    let post = [(":method", "POST"), PSEUDO[1], PSEUDO[2], PSEUDO[3]];
    let origin = Origin::answering(OK);
    let balancer = before(&origin, "proxy_request_buffering on;");
    let mut client = Frames::connect(balancer.port);
    client.send(HEADERS, END_HEADERS, 1, &block(&post));
    client.send(DATA, 0, 1, b"body");
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(trailers));
    (outcome(&mut client, 1), origin.seen())
}

#[test]
fn trailers_of_http2_that_would_be_more_than_trailers_reach_nobody() {
    for trailers in [
        [("X-Upper", "1")],
        [("x\r\ny", "1")],
        [("x:", "1")],
        [("x-field", "1\r\n\r\nGET /smuggled HTTP/1.1")],
        [("connection", "close")],
        [("transfer-encoding", "chunked")],
    ] {
        let (outcome, seen) = with_trailers(&trailers);
        assert_ne!(outcome, Outcome::Answered(STATUS_200), "{trailers:?}");
        assert_eq!(seen, [""; 0], "{trailers:?}: {outcome:?}");
    }
    for trailers in
        [("x-real-ip", "6.6.6.6"), ("host", "b.test"), ("content-length", "9"), (":path", "/other")]
    {
        let (outcome, seen) = with_trailers(&[trailers]);
        assert!(outcome != Outcome::Answered(STATUS_200) || seen.len() == 1, "{trailers:?}: {seen:?}");
        let is_plain = |head: &String| {
            head.starts_with("POST / HTTP/1.1\r\n")
                && !["6.6.6.6", "b.test", ": 9", "other"].iter().any(|claim| head.contains(claim))
        };
        assert!(seen.iter().all(is_plain), "{trailers:?}: {seen:?}");
    }
}
