//! Lengths that a head tells and DATA does not keep (CVE-2026-33555): in requests and in answers, too few and too many.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::OK;
use crate::common::{Balancer, Origin, PATIENCE, wait_until};
use crate::frames::{DATA, END_HEADERS, END_STREAM, Frames, GET, HEADERS, RST_STREAM, SETTINGS, block};
use crate::heads::{Outcome, STATUS_200, before, outcome};

const PATH: (&str, &str) = (":path", "/bad");

/// Frames of a body that is not five bytes long, as its head says.
type Frame = (u8, u8, &'static [u8]);
const BROKEN: [&[Frame]; 6] = [
    &[],
    &[(DATA, END_STREAM, b"")],
    &[(DATA, END_STREAM, b"123")],
    &[(DATA, 0, b"123"), (HEADERS, END_STREAM | END_HEADERS, b"\0\x01x\x011")],
    &[(DATA, END_STREAM, b"1234567")],
    &[(DATA, 0, b"123"), (DATA, 0, b"456"), (DATA, END_STREAM, b"")],
];

fn head(method: &'static str, path: (&'static str, &'static str), more: &[(&str, &str)]) -> Vec<u8> {
    block(&[&[(":method", method), (":scheme", "http"), path, (":authority", "a")], more].concat())
}

/// What came of a POST whose head says 5, and what an origin saw of it.
struct Posted {
    outcome: Outcome,
    was_asked: bool,
    whole: Vec<Vec<u8>>,
}

fn post(buffering: &str, body: &[Frame]) -> Posted {
    let (whole, ended) = (Arc::<Mutex<Vec<Vec<u8>>>>::default(), Arc::<AtomicUsize>::default());
    let (seen, count) = (whole.clone(), ended.clone());
    let origin = Origin::scripted(move |served| {
        if let Some((head, body)) = served.read_request_with_body() {
            served.send(OK);
            if head.contains(" /bad ") {
                seen.lock().unwrap().push(body);
            }
        }
        count.fetch_add(1, Ordering::SeqCst);
    });
    let balancer = before(&origin, &format!("proxy_request_buffering {buffering};"));
    let mut client = Frames::connect(balancer.port);
    let only_head = if body.is_empty() { END_STREAM } else { 0 };
    client.send(HEADERS, END_HEADERS | only_head, 1, &head("POST", PATH, &[("content-length", "5")]));
    for (kind, flags, payload) in body {
        client.send(*kind, *flags, 1, payload);
    }
    let what = outcome(&mut client, 1);
    let mut other = Frames::connect(balancer.port);
    other.send(HEADERS, END_STREAM | END_HEADERS, 1, GET);
    assert_eq!(outcome(&mut other, 1), Outcome::Answered(STATUS_200), "somebody else is served");
    wait_until("each connection to the origin has ended", || {
        ended.load(Ordering::SeqCst) == origin.connections.load(Ordering::SeqCst)
    });
    let was_asked = origin.seen().iter().any(|head| head.contains(" /bad "));
    let whole = std::mem::take(&mut *whole.lock().unwrap());
    Posted { outcome: what, was_asked, whole }
}

#[test]
fn a_body_of_http2_that_is_not_as_long_as_its_head_says_is_never_forwarded_as_whole() {
    for buffering in ["on", "off"] {
        for broken in BROKEN {
            let posted = post(buffering, broken);
            assert_ne!(posted.outcome, Outcome::Answered(STATUS_200), "{buffering} {broken:?}");
            assert_eq!(posted.whole, [b""; 0], "{buffering} {broken:?}");
            assert!(
                buffering == "off" || !posted.was_asked,
                "{broken:?}: what was not whole went to an origin"
            );
        }
        let posted = post(buffering, &[(DATA, 0, b"123"), (DATA, END_STREAM, b"45")]);
        assert_eq!(posted.outcome, Outcome::Answered(STATUS_200), "{buffering}: one that is whole");
        assert_eq!(posted.whole, [b"12345"], "{buffering}");
    }
}

/// A server of HTTP/2 whose answer has this body behind a head that says 5.
fn lying_server(broken: &'static [Frame]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).unwrap();
            let mut server = Frames { stream };
            server.send(SETTINGS, 0, 0, &[]);
            let asked = server.first(HEADERS).unwrap().stream;
            let only_head = if broken.is_empty() { END_STREAM } else { 0 };
            let head = block(&[(":status", "200"), ("content-length", "5")]);
            server.send(HEADERS, END_HEADERS | only_head, asked, &head);
            for (kind, flags, payload) in broken {
                server.send(*kind, *flags, asked, payload);
            }
            while server.next().is_some() {}
        }
    });
    port
}

/// Whether the answer of such a server looks whole to a client of HTTP/1.1, and to one of HTTP/2.
fn looks_whole(body: &'static [Frame]) -> [bool; 2] {
    let port = lying_server(body);
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; http2 on; \
         location / {{ proxy_http_version 2; proxy_pass http://127.0.0.1:{port}; }} }}"
    ));
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let old = client.try_response().is_some_and(|answer| answer.status == 200);
    let mut client = Frames::connect(balancer.port);
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, GET);
    let mut is_good = false;
    let new = loop {
        let Some(frame) = client.next() else { break false };
        match frame.kind {
            _ if frame.stream != 1 => continue,
            RST_STREAM => break false,
            HEADERS if !is_good => is_good = frame.payload[0] == STATUS_200,
            _ => {}
        }
        if frame.ends_stream() {
            break is_good;
        }
    };
    [old, new]
}

#[test]
fn an_answer_of_http2_that_is_not_as_long_as_its_head_says_never_looks_whole() {
    for broken in BROKEN {
        assert_eq!(looks_whole(broken), [false, false], "{broken:?}");
    }
    assert_eq!(looks_whole(&[(DATA, 0, b"123"), (DATA, END_STREAM, b"45")]), [true, true]);
}
