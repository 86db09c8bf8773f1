//! Clients of HTTP/2 that want work done which serves nothing: each kind of flood has its bound.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod frames;

use std::io::Write as _;
use std::sync::{Mutex, mpsc};

use common::{Balancer, Origin, PATIENCE, wait_until};
use frames::{
    CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, GET, HEADERS, PING, REFUSED_STREAM,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
};

fn on(location: &str) -> Balancer {
    Balancer::start(&format!("server {{ listen 127.0.0.1:PORT; http2 on; location / {{ {location} }} }}"))
}

/// Somebody else is still served.
fn assert_alive(balancer: &Balancer, path: &str) {
    assert_eq!(balancer.client().get(path).status, 200);
}

#[test]
fn rapid_reset_is_told_to_calm_down() {
    let origin = Origin::scripted(|served| {
        served.read_request();
        served.read_to_end();
    });
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; http2 on; location / {{ proxy_pass http://127.0.0.1:{}; }}\n\
         location /alive {{ return 200 ok; }} }}",
        origin.port
    ));
    let mut client = Frames::connect(balancer.port);
    let listening = client.listen();
    let sent = (1..40_001).step_by(2).take_while(|stream| {
        client.send(HEADERS, END_STREAM | END_HEADERS, *stream, GET)
            && client.send(RST_STREAM, 0, *stream, &8u32.to_be_bytes())
    });
    let sent = sent.count();
    assert_eq!(listening.heard().goodbye, Some(ENHANCE_YOUR_CALM), "after {sent} resets");
    let asked = origin.seen().len();
    assert!(asked < 1000, "the origin was asked {asked} times");
    assert_alive(&balancer, "/alive");
}

/// Opens a stream in a way for which the server has to reset it.
type Fault = fn(&mut Frames, u32) -> bool;

const FAULTS: [(&str, Fault); 2] = [
    ("a window past what a window may be", |client, stream| {
        client.send(HEADERS, END_STREAM | END_HEADERS, stream, GET)
            && client.send(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())
    }),
    ("a body that its head announces and that never comes", |client, stream| {
        let head = [GET, &block(&[("content-length", "5")])].concat();
        client.send(HEADERS, END_STREAM | END_HEADERS, stream, &head)
    }),
];

#[test]
fn streams_that_were_reset_count_as_long_as_their_requests_run() {
    const STREAMS: u32 = 4;
    let ((tell, told), (allow, allowed)) = (mpsc::channel(), mpsc::channel());
    let allowed = Mutex::new(allowed);
    let origin = Origin::scripted(move |served| {
        while served.read_request().is_some() {
            let _ = tell.send(());
            let _ = allowed.lock().unwrap().recv_timeout(PATIENCE);
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    // Upstream requests go on after a reset.
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; http2 on; http2_max_concurrent_streams {STREAMS};\n\
         location / {{ proxy_pass http://127.0.0.1:{}; proxy_ignore_client_abort on; }} }}",
        origin.port
    ));
    let mut client = Frames::connect(balancer.port);
    for stream in (1..).step_by(2).take(STREAMS as usize) {
        assert!(client.send(HEADERS, END_STREAM | END_HEADERS, stream, GET));
        told.recv_timeout(PATIENCE).unwrap();
        assert!(client.send(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
    }
    let mut stream = 2 * STREAMS + 1;
    let mut is_refused = || {
        assert!(client.send(HEADERS, END_STREAM | END_HEADERS, stream, GET));
        let answer = std::iter::from_fn(|| client.next())
            .find(|frame| frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM));
        stream += 2;
        let answer = answer.expect("an answer, or a reset");
        assert!(answer.kind == HEADERS || answer.payload == REFUSED_STREAM.to_be_bytes());
        answer.kind == RST_STREAM
    };
    assert!(is_refused(), "four requests are under way");
    (0..STREAMS + 1).for_each(|_| allow.send(()).unwrap());
    let lines = || std::fs::read_to_string(balancer.path("access.log")).unwrap().lines().count();
    wait_until("those requests are over", || lines() == STREAMS as usize);
    assert!(!is_refused());
    assert_eq!(origin.seen().len(), STREAMS as usize + 1);
}

#[test]
fn made_you_reset_is_told_to_calm_down() {
    let origin = Origin::scripted(|served| {
        served.read_request();
        served.read_to_end();
    });
    for (what, fault) in FAULTS {
        let balancer = on(&format!("proxy_pass http://127.0.0.1:{};", origin.port));
        let before = origin.seen().len();
        let mut client = Frames::connect(balancer.port);
        let listening = client.listen();
        let sent = (1..40_001).step_by(2).take_while(|stream| fault(&mut client, *stream)).count();
        let heard = listening.heard();
        assert_eq!(heard.goodbye, Some(ENHANCE_YOUR_CALM), "{what}: after {sent} streams");
        let resets = heard.others.get(&RST_STREAM).copied().unwrap_or(0);
        assert!(resets > 100, "{what}: {resets} streams were reset before the connection ended");
        let asked = origin.seen().len() - before;
        assert!(asked < 3000, "{what}: the origin was asked {asked} times");
    }
}

#[test]
fn a_head_without_end_is_cut_off() {
    let balancer = on("return 200 ok;");
    let mut client = Frames::connect(balancer.port);
    let listening = client.listen();
    client.send(HEADERS, END_STREAM, 1, GET);
    // A literal field, not indexed: name and value of 100 bytes each.
    let mut field = vec![0, 100];
    field.extend_from_slice(&[b'a'; 100]);
    field.push(100);
    field.extend_from_slice(&[b'b'; 100]);
    let fields = field.repeat(70);
    let sent = (0..1000).take_while(|_| client.send(CONTINUATION, 0, 1, &fields)).count();
    assert_eq!(
        listening.heard().goodbye,
        Some(ENHANCE_YOUR_CALM),
        "after {sent} CONTINUATION frames of 14 kB"
    );
}

/// The most memory that the process has had, in KB.
fn memory_peak(balancer: &Balancer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", balancer.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn header_bombs_are_refused_and_cost_little_memory() {
    const BOMBS: usize = 64;
    let balancer = on("return 200 ok;");
    assert_alive(&balancer, "/");
    let before = memory_peak(&balancer);
    // One entry of 4,000 bytes in the dynamic table, then a thousand references of one byte: 4 MB of fields.
    let mut block = GET.to_vec();
    block.extend_from_slice(&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
    block.extend_from_slice(&[b'b'; 4000]);
    block.extend_from_slice(&[0xbe; 1000]);
    let mut clients: Vec<Frames> = (0..BOMBS).map(|_| Frames::connect(balancer.port)).collect();
    for client in &mut clients {
        client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    }
    for client in &mut clients {
        assert_eq!(client.goodbye(), Some(ENHANCE_YOUR_CALM));
    }
    let rise = memory_peak(&balancer) - before;
    assert!(rise < 16 * 1024, "{BOMBS} bombs of 4 MB took {rise} KB");
    assert_alive(&balancer, "/");
}

/// Sends a frame until the other side has had enough: how many of them were answered in kind, and the last word.
fn flood_of(kind: u8, payload: &[u8]) -> (usize, Option<u32>) {
    const FRAMES: usize = 50_000;
    let balancer = on("return 200 ok;");
    let mut client = Frames::connect(balancer.port);
    let listening = client.listen();
    let _ = (0..FRAMES).all(|_| client.send(kind, 0, 0, payload));
    // What is not ended by then is ended here, and all was answered.
    let _ = client.stream.shutdown(std::net::Shutdown::Write);
    let heard = listening.heard();
    assert_alive(&balancer, "/");
    (heard.others.get(&kind).copied().unwrap_or(0), heard.goodbye)
}

#[test]
fn floods_of_pings_and_settings_are_ended_with_a_word() {
    for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[0, 3, 0, 0, 0, 100])] {
        let (answered, goodbye) = flood_of(kind, payload);
        assert!(answered < 5000, "{answered} frames of kind {kind} were answered");
        assert_eq!(goodbye, Some(ENHANCE_YOUR_CALM), "kind {kind}");
    }
}

#[test]
fn windows_opened_for_nothing_are_bounded() {
    const AT_ONCE: usize = 1000;
    const WINDOWS: usize = 2_000_000;
    let balancer = on("return 200 ok;");
    let mut client = Frames::connect(balancer.port);
    let listening = client.listen();
    let windows = [0, 0, 4, WINDOW_UPDATE, 0, 0, 0, 0, 0, 0, 0, 0, 1].repeat(AT_ONCE);
    let rounds = (0..WINDOWS / AT_ONCE).take_while(|_| client.stream.write_all(&windows).is_ok()).count();
    let opened = rounds * AT_ONCE;
    assert!(opened < WINDOWS, "26 MB of them were taken");
    assert_eq!(listening.heard().goodbye, Some(ENHANCE_YOUR_CALM), "after {opened} of them");
    assert_alive(&balancer, "/");
}

#[test]
fn who_pings_now_and_then_is_answered_each_time() {
    let balancer = on("return 200 ok;");
    let mut client = Frames::connect(balancer.port);
    for count in 0..900u64 {
        assert!(client.send(PING, 0, 0, &count.to_be_bytes()));
        assert_eq!(client.first(PING).unwrap().payload, count.to_be_bytes());
    }
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, GET);
    assert_eq!(client.first(HEADERS).unwrap().stream, 1);
}
