//! Floods of HTTP/2 beside those of http2_floods.rs: frames that carry nothing, and answers that nobody reads.

use std::io::Write as _;

use crate::OK;
use crate::common::{Balancer, Origin, wait_until};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, GET, GOAWAY, HEADERS, PRIORITY,
    SETTINGS, WINDOW_UPDATE, block,
};
use crate::heads::{Outcome, STATUS_200, outcome};

fn on(inside: &str) -> Balancer {
    Balancer::start(&format!("server {{ listen 127.0.0.1:PORT; http2 on; {inside} }}"))
}

fn post(path: &str) -> Vec<u8> {
    block(&[(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")])
}

/// Memory that the balancer holds, in kB.
fn held_kb(balancer: &Balancer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", balancer.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends this frame until the other side has had enough: how many were written, and the last word.
fn flood(client: &mut Frames, frame: &[u8], most: usize) -> (usize, Option<u32>) {
    const AT_ONCE: usize = 1000;
    let listening = client.listen();
    let frames = frame.repeat(AT_ONCE);
    let mut sent = 0;
    while sent < most && client.stream.write_all(&frames).is_ok() {
        sent += AT_ONCE;
    }
    // Where nobody has had enough, the reader ends here.
    let _ = client.stream.shutdown(std::net::Shutdown::Write);
    (sent, listening.heard().goodbye)
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
    [&head, payload].concat()
}

#[test]
fn empty_data_without_end_is_bounded_and_costs_no_memory() {
    const FRAMES_MAX: usize = 3_000_000;
    const PADDED: u8 = 8;
    let empty = frame(DATA, 0, 1, b"");
    let origin = Origin::answering(OK);
    let padding = frame(DATA, PADDED, 1, b"\0");
    for (location, frame) in [("/taken", &empty), ("/taken", &padding), ("/refused", &empty)] {
        let balancer = on(&format!(
            "location /taken {{ client_body_timeout 1h; proxy_request_buffering on; proxy_pass http://127.0.0.1:{}; }}\n\
             location /refused {{ return 200 ok; }} location /alive {{ return 200 ok; }}",
            origin.port
        ));
        let mut client = Frames::connect(balancer.port);
        assert_eq!(balancer.client().get("/alive").status, 200);
        let before = held_kb(&balancer);
        // A few are allowed, and the request ends well.
        client.send(HEADERS, END_HEADERS, 1, &post("/taken"));
        (0..9).for_each(|_| client.stream.write_all(frame).unwrap());
        client.send(DATA, END_STREAM, 1, b"body");
        assert_eq!(outcome(&mut client, 1), Outcome::Answered(STATUS_200));
        client = Frames::connect(balancer.port);
        client.send(HEADERS, END_HEADERS, 1, &post(location));
        let (sent, goodbye) = flood(&mut client, frame, FRAMES_MAX);
        assert!(sent < FRAMES_MAX, "{location}: all of {sent} empty frames were taken");
        assert_eq!(goodbye, Some(ENHANCE_YOUR_CALM), "{location}: after {sent} frames");
        assert_eq!(balancer.client().get("/alive").status, 200, "{location}: somebody else is served");
        let grown = held_kb(&balancer).saturating_sub(before);
        assert!(grown < 32 << 10, "{location}: {sent} empty frames cost {grown} kB");
    }
}

#[test]
fn frames_that_order_or_continue_nothing_are_bounded() {
    const FRAMES_MAX: usize = 1_000_000;
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]);
    let continuation = frame(CONTINUATION, 0, 1, b"");
    for frame in [&priority, &continuation] {
        let balancer = on("location / { return 200 ok; }");
        let mut client = Frames::connect(balancer.port);
        if frame == &continuation {
            client.send(HEADERS, END_STREAM, 1, GET);
        }
        let (sent, goodbye) = flood(&mut client, frame, FRAMES_MAX);
        assert!(sent < FRAMES_MAX, "all of {sent} frames were taken");
        assert_eq!(goodbye, Some(ENHANCE_YOUR_CALM), "after {sent} frames");
        assert_eq!(balancer.client().get("/").status, 200);
    }
}

#[test]
fn an_answer_that_is_asked_for_byte_by_byte_costs_no_memory() {
    const BYTES: usize = 100_000;
    let balancer = on("root DIR; location = /alive { return 200 ok; }");
    std::fs::write(balancer.path("big"), vec![b'x'; 8 << 20]).unwrap();
    assert_eq!(balancer.client().get("/alive").status, 200);
    let before = held_kb(&balancer);
    let mut client = Frames::connect(balancer.port);
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    client.send(WINDOW_UPDATE, 0, 0, &0x7fff_0000u32.to_be_bytes());
    let big = [(":method", "GET"), (":scheme", "http"), (":path", "/big"), (":authority", "a")];
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&big));
    assert_eq!(client.first(HEADERS).unwrap().payload[0], STATUS_200);
    let window = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    for count in 0..500 {
        client.stream.write_all(&window).unwrap();
        assert_eq!(client.first(DATA).unwrap().payload, b"x", "byte {count}");
    }
    // Each byte is paid for with a frame: that is slow, and nobody else's trouble.
    let mut reader = Frames { stream: client.stream.try_clone().unwrap() };
    let reading = std::thread::spawn(move || {
        let mut came = 0;
        while came < BYTES
            && let Some(frame) = reader.first(DATA)
        {
            came += frame.payload.len();
        }
        came
    });
    client.stream.write_all(&window.repeat(BYTES)).unwrap();
    assert_eq!(reading.join().unwrap(), BYTES, "what was let in came");
    assert_eq!(balancer.client().get("/alive").status, 200);
    let grown = held_kb(&balancer).saturating_sub(before);
    assert!(grown < 32 << 10, "{BYTES} windows of a byte cost {grown} kB");
}

#[test]
fn answers_that_are_let_in_and_never_read_are_held_in_part_and_end() {
    const STREAMS: u32 = 100;
    const BIG: usize = 8 << 20;
    let balancer = on("root DIR; send_timeout 1s; location = /alive { return 200 ok; }");
    std::fs::write(balancer.path("big"), vec![b'x'; BIG]).unwrap();
    assert_eq!(balancer.client().get("/alive").status, 200);
    let before = held_kb(&balancer);
    let mut client = Frames::connect(balancer.port);
    // All windows as wide as they can be: only the socket itself is closed, as nobody reads it.
    client.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    client.send(WINDOW_UPDATE, 0, 0, &0x7fff_0000u32.to_be_bytes());
    let big = [(":method", "GET"), (":scheme", "http"), (":path", "/big"), (":authority", "a")];
    for stream in 0..STREAMS {
        client.send(HEADERS, END_STREAM | END_HEADERS, stream * 2 + 1, &block(&big));
    }
    let mut most = 0;
    let log = balancer.path("access.log");
    wait_until("each of them was given up", || {
        most = most.max(held_kb(&balancer));
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.matches("GET /big").count() == STREAMS as usize
    });
    let grown = most.saturating_sub(before);
    assert!(grown < 64 << 10, "{STREAMS} answers of {BIG} bytes cost {grown} kB");
    assert_eq!(balancer.client().get("/alive").status, 200);
}

#[test]
fn a_connection_of_http2_ends_after_its_last_request() {
    let balancer = on("keepalive_requests 3; location / { return 200 ok; }");
    let mut client = Frames::connect(balancer.port);
    for stream in [1, 3, 5] {
        client.send(HEADERS, END_STREAM | END_HEADERS, stream, GET);
    }
    let (mut answered, mut goodbye) = (0, None);
    while answered < 3 || goodbye.is_none() {
        let frame = client.next().expect("three answers and a word");
        answered += usize::from(frame.kind == HEADERS && frame.payload[0] == STATUS_200);
        if frame.kind == GOAWAY {
            goodbye = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
        }
    }
    assert_eq!((answered, goodbye), (3, Some(0)));
}
