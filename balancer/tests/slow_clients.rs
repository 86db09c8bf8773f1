//! Clients that send slowly, to hold what serves them: let go of by what they have sent, and only for time in which it was
//! their turn.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod frames;

use std::io::{ErrorKind, Write as _};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use common::{Balancer, Client, Origin, Response, wait_until};
use frames::{
    DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, Frames, GET, GOAWAY, HEADERS, RST_STREAM, block,
};

/// More than the directives below allow without bytes.
const LONG: Duration = Duration::from_millis(600);

/// An origin that answers with the length of each body.
fn counting() -> Origin {
    Origin::scripted(|served| {
        while let Some((_, body)) = served.read_request_with_body() {
            let text = body.len().to_string();
            served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        }
    })
}

/// A balancer whose log has a line `PATH STATUS ENDING` for each request.
fn start(http: &str, origin: &Origin, location: &str) -> Balancer {
    Balancer::start(&format!(
        "log_format slow '$uri $status $balancer_ending'; access_log DIR/slow.log slow; {http}\n\
         server {{ listen 127.0.0.1:PORT; http2 on; location = /alive {{ return 200; }}\n\
         location / {{ proxy_pass http://127.0.0.1:{}; {location} }} }}",
        origin.port
    ))
}

fn wait_for_line(balancer: &Balancer, line: &str) {
    let log = balancer.path("slow.log");
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until(&format!("{line:?} is in the log"), || text().lines().any(|found| found == line));
}

/// Nothing comes for so long, and the connection stays.
fn assert_silent(client: &Client, time: Duration) {
    let patience = client.stream.read_timeout().unwrap();
    client.stream.set_read_timeout(Some(time)).unwrap();
    let peeked = client.stream.peek(&mut [0]);
    client.stream.set_read_timeout(patience).unwrap();
    assert_eq!(peeked.unwrap_err().kind(), ErrorKind::WouldBlock, "it was said to be too slow");
}

/// How dripping was ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Something came, or a clean end.
    Word,
    Reset,
}

/// Sends this again and again, with a while in between.
fn drip(client: &mut Client, text: &str) -> End {
    let patience = client.stream.read_timeout().unwrap();
    client.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let began = std::time::Instant::now();
    let end = loop {
        match client.stream.peek(&mut [0]) {
            Ok(_) => break End::Word,
            Err(error) if error.kind() != ErrorKind::WouldBlock => break End::Reset,
            Err(_) if client.stream.write_all(text.as_bytes()).is_err() => break End::Reset,
            Err(_) => assert!(began.elapsed() < common::PATIENCE, "who drips was heard without end"),
        }
    };
    client.stream.set_read_timeout(patience).unwrap();
    end
}

fn dripped(client: &mut Client, text: &str) -> Response {
    assert_eq!(drip(client, text), End::Word);
    client.response()
}

#[test]
fn a_head_that_drips_is_answered_with_408_and_its_connection_ends() {
    let origin = counting();
    let balancer = start("client_header_min_rate 1m after=300ms;", &origin, "");
    for begin in ["G", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
        let mut client = balancer.client();
        let answer = dripped(client.send(begin), "A");
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{begin}");
        assert_eq!(client.rest().0, b"", "{begin}");
    }
    // A later request of a connection is no other.
    let mut client = balancer.client();
    assert_eq!(client.get("/alive").status, 200);
    assert_eq!(dripped(client.send("GET / HTTP/1.1\r\nX: "), "a").status, 408);
    wait_for_line(&balancer, "/ 408 cR");
    assert!(balancer.errors().contains("head too slowly (client_header_min_rate)"), "{}", balancer.errors());
    assert_eq!(origin.seen(), [""; 0]);
}

#[test]
fn who_drips_on_after_its_408_is_not_heard_for_as_long_again() {
    let balancer = start("client_header_min_rate 1m after=300ms; lingering_time 1h;", &counting(), "");
    let mut client = balancer.client();
    assert_eq!(dripped(client.send("G"), "E").status, 408);
    // Its end of the connection is closed already: what ends is that the other end takes bytes.
    let began = std::time::Instant::now();
    while client.stream.write_all(b"x").is_ok() {
        assert!(began.elapsed() < common::PATIENCE, "it is still heard");
        std::thread::yield_now();
    }
}

#[test]
fn a_body_that_drips_is_answered_with_408_and_its_connection_ends() {
    for (location, ending) in [("", "cR"), ("proxy_request_buffering off;", "cH")] {
        let (said, heard) = mpsc::channel();
        let said = Mutex::new(said);
        let origin = Origin::scripted(move |served| {
            served.read_head();
            served.read_to_end();
            said.lock().unwrap().send(()).unwrap();
        });
        let location = format!("client_body_min_rate 1m after=300ms; {location}");
        let balancer = start("", &origin, &location);
        for (path, framing, drop) in [
            ("/sized", "Content-Length: 1000000\r\n\r\n", "x"),
            ("/chunked", "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
            ("/line", "Transfer-Encoding: chunked\r\n\r\n1;", "x"),
        ] {
            let mut client = balancer.client();
            client.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}"));
            let answer = dripped(&mut client, drop);
            assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{path}");
            assert_eq!(client.rest().0, b"", "{path}");
            wait_for_line(&balancer, &format!("{path} 408 {ending}"));
            if ending == "cH" {
                heard.recv_timeout(common::PATIENCE).expect("the upstream is let go of too");
            }
        }
        let is_told = balancer.errors().contains("body too slowly (client_body_min_rate)");
        assert!(is_told, "{}", balancer.errors());
        assert_eq!(origin.seen().is_empty(), ending == "cR", "{:?}", origin.seen());
    }
}

#[test]
fn who_has_sent_enough_may_pause() {
    const LEN: usize = 20_000;
    let origin = counting();
    for buffering in ["on", "off"] {
        let location = format!("proxy_request_buffering {buffering}; client_body_min_rate 1k after=300ms;");
        let balancer = start("", &origin, &location);
        let mut client = balancer.client();
        let body = "x".repeat(LEN);
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", LEN + 2));
        assert_silent(&client, LONG);
        assert_eq!(client.send("xx").response().body, (LEN + 2).to_string(), "{buffering}");
    }
}

#[test]
fn who_is_held_back_by_the_upstream_is_not_too_slow() {
    const LEN: usize = 16 << 20;
    const STALL: Duration = Duration::from_secs(3);
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let origin = Origin::scripted(move |served| {
        served.read_head();
        held.lock().unwrap().recv().unwrap();
        let mut body = vec![0; LEN];
        served.read_exactly(&mut body);
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let location = "client_max_body_size 0; proxy_request_buffering off; client_body_min_rate 100m after=2s;";
    let balancer = start("", &origin, location);
    let mut client = balancer.client();
    let mut writer = client.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LEN}\r\n\r\n");
        writer.write_all(head.as_bytes()).unwrap();
        writer.write_all(&vec![b'x'; LEN]).unwrap();
    });
    wait_until("the upstream is asked", || !origin.seen().is_empty());
    assert_silent(&client, STALL);
    assert!(!writing.is_finished(), "the body lies in buffers: nobody is held back");
    release.send(()).unwrap();
    assert_eq!(client.response().status, 200);
    writing.join().unwrap();
}

#[test]
fn an_answer_that_has_begun_is_cut_visibly_where_its_requests_body_drips() {
    for (framing, version) in [("Content-Length: 20\r\n", "1.1"), ("", "1.1"), ("", "1.0")] {
        let origin = Origin::scripted(move |served| {
            served.read_head();
            served.send(&format!("HTTP/1.1 200 OK\r\n{framing}\r\nhalf"));
            served.read_to_end();
        });
        let location = "client_body_min_rate 1m after=300ms; proxy_request_buffering off;";
        let balancer = start("", &origin, location);
        let mut client = balancer.client();
        client.send(&format!("POST / HTTP/{version}\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"));
        assert!(client.head().unwrap().starts_with("HTTP/1.1 200 "));
        let begun = if framing.is_empty() && version == "1.1" { "4\r\nhalf\r\n" } else { "half" };
        assert_eq!(client.bytes(begun.len()), begun.as_bytes());
        assert_eq!(drip(&mut client, "x"), End::Reset, "{framing} {version}");
        wait_for_line(&balancer, "/ 200 cD");
    }
}

fn post(path: &str) -> Vec<u8> {
    block(&[(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")])
}

/// Sends pieces, with somebody else's request in between, until such a frame comes.
fn drip_frames(
    balancer: &Balancer,
    client: &mut Frames,
    kind: u8,
    pieces: impl Iterator<Item = Vec<u8>>,
) -> Option<Frame> {
    let mut reader = Frames { stream: client.stream.try_clone().unwrap() };
    let reading = std::thread::spawn(move || reader.first(kind));
    for piece in pieces {
        if reading.is_finished() || client.stream.write_all(&piece).is_err() {
            break;
        }
        assert_eq!(balancer.client().get("/alive").status, 200);
    }
    reading.join().unwrap()
}

#[test]
fn a_stream_whose_body_drips_is_answered_with_408_and_the_others_go_on() {
    let origin = counting();
    for (location, ending) in [("", "cR"), ("proxy_request_buffering off;", "cH")] {
        let location = format!("client_body_min_rate 1m after=300ms; {location}");
        let balancer = start("", &origin, &location);
        let mut client = Frames::connect(balancer.port);
        client.send(HEADERS, END_HEADERS, 1, &post("/drips"));
        let pieces = std::iter::repeat_with(|| vec![0, 0, 1, DATA, 0, 0, 0, 0, 1, b'x']);
        let answer = drip_frames(&balancer, &mut client, HEADERS, pieces).unwrap();
        assert_eq!(answer.stream, 1);
        wait_for_line(&balancer, &format!("/drips 408 {ending}"));
        client.send(HEADERS, END_STREAM | END_HEADERS, 3, GET);
        let next = std::iter::from_fn(|| client.next()).find(|frame| frame.stream == 3).unwrap();
        assert_eq!((next.kind, next.payload[0]), (HEADERS, 0x88), "200");
    }
}

#[test]
fn streams_share_their_connections_rate() {
    const LEN: usize = 30_000;
    let origin = counting();
    let balancer = start("", &origin, "client_body_min_rate 1k after=2s;");
    let mut client = Frames::connect(balancer.port);
    client.send(HEADERS, END_HEADERS, 1, &post("/waits"));
    client.send(HEADERS, END_STREAM | END_HEADERS, 3, GET);
    assert_eq!(client.first(HEADERS).unwrap().stream, 3, "both are open");
    client.send(HEADERS, END_HEADERS, 5, &post("/first"));
    for _ in 0..3 {
        client.send(DATA, 0, 5, &[b'x'; LEN / 3]);
    }
    client.stream.set_read_timeout(Some(Duration::from_millis(2500))).unwrap();
    while let Some(frame) = client.next() {
        assert!(![HEADERS, RST_STREAM, GOAWAY].contains(&frame.kind), "{frame:?}");
    }
    client.stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    for stream in [1, 5] {
        client.send(DATA, END_STREAM, stream, b"xx");
        let frame = std::iter::from_fn(|| client.next()).find(|frame| frame.stream == stream).unwrap();
        assert_eq!((frame.kind, frame.payload[0]), (HEADERS, 0x88), "200");
    }
}

#[test]
fn a_head_of_http2_that_drips_ends_its_connection_also_while_others_are_under_way() {
    let origin = Origin::scripted(|served| {
        served.read_request();
        served.read_to_end();
    });
    let balancer = start("client_header_min_rate 1m after=300ms;", &origin, "");
    let mut client = Frames::connect(balancer.port);
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, GET);
    wait_until("a request is under way", || !origin.seen().is_empty());
    let head = [GET, &block(&[("x-long", &"x".repeat(100))]).repeat(150)].concat();
    let len = u16::try_from(head.len()).unwrap().to_be_bytes();
    client.stream.write_all(&[0, len[0], len[1], HEADERS, END_STREAM | END_HEADERS, 0, 0, 0, 3]).unwrap();
    let goodbye = drip_frames(&balancer, &mut client, GOAWAY, head.iter().map(|byte| vec![*byte])).unwrap();
    assert_eq!(goodbye.payload[4..8], ENHANCE_YOUR_CALM.to_be_bytes());
    wait_until("it is told why", || balancer.errors().contains("head too slowly"));
}
