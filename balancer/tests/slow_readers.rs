//! Clients that read slowly or not at all: what is held for them, where, and who else feels it.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{Balancer, Client, Origin, wait_until};

/// More than the buffers of two sockets hold.
const LEN: usize = 16 << 20;

fn byte_at(at: usize) -> u8 {
    b'a' + (at % 23) as u8
}

/// Gives a long answer to `/big`, and tells how many of them it has sent to their end.
fn big_origin() -> (Origin, Arc<AtomicUsize>) {
    let given = Arc::<AtomicUsize>::default();
    let count = given.clone();
    let body: Vec<u8> = (0..LEN).map(byte_at).collect();
    let origin = Origin::scripted(move |served| {
        while let Some(head) = served.read_request() {
            if !head.starts_with("GET /big") {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"));
            if served.stream.write_all(&body).is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (origin, given)
}

fn asking(balancer: &Balancer) -> Client {
    let mut client = balancer.client();
    client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    client
}

#[test]
fn who_does_not_read_holds_no_upstream() {
    let (origin, given) = big_origin();
    let balancer = Balancer::start(&format!(
        "upstream one {{ server 127.0.0.1:{} max_conns=1; keepalive 4; }}\n\
         server {{ listen 127.0.0.1:PORT sndbuf=16k; proxy_temp_path DIR/held; \
         location / {{ proxy_pass http://one; }} }}",
        origin.port
    ));
    let mut readers = Vec::new();
    for count in 1..4 {
        readers.push(asking(&balancer));
        wait_until("the origin is done", || given.load(Ordering::SeqCst) == count);
        wait_until("its only place is free", || balancer.client().get("/").status == 200);
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1, "the connection was kept each time");
    for reader in &mut readers {
        let answer = reader.response();
        assert_eq!((answer.status, answer.body.len()), (200, LEN));
        assert!(answer.body.bytes().enumerate().all(|(at, byte)| byte == byte_at(at)), "as it was sent");
        assert_eq!(reader.get("/").body, "ok", "the client's connection goes on");
    }
    assert_eq!(std::fs::read_dir(balancer.path("held")).unwrap().count(), 0, "the files have no names");
}

#[test]
fn who_reads_slowly_gets_every_byte_in_order() {
    let (origin, given) = big_origin();
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT sndbuf=16k; proxy_temp_path DIR/held; proxy_buffers 2 8k; \
         proxy_max_temp_file_size 64k; location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port
    ));
    let mut client = asking(&balancer);
    client.head().unwrap();
    let mut at = 0;
    while at < LEN {
        let len = (LEN - at).min(100_000);
        let came = client.bytes(len);
        assert!(came.iter().enumerate().all(|(n, byte)| *byte == byte_at(at + n)), "after {at} bytes");
        at += len;
    }
    wait_until("the origin is done", || given.load(Ordering::SeqCst) == 1);
    assert_eq!(client.get("/").body, "ok");
}

/// How much of an endless answer is taken for a client that reads nothing.
fn held_of(header: &'static str, location: &str) -> usize {
    const ENDLESS: usize = 400 << 20;
    let (said, heard) = mpsc::channel();
    let said = Mutex::new(said);
    let written = Arc::<AtomicUsize>::default();
    let count = written.clone();
    let origin = Origin::scripted(move |served| {
        served.read_request();
        served.send(&format!("HTTP/1.1 200 OK\r\n{header}Content-Length: {ENDLESS}\r\n\r\n"));
        served.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let piece = vec![b'x'; 64 * 1024];
        while let Ok(len) = served.stream.write(&piece) {
            count.fetch_add(len, Ordering::SeqCst);
        }
        said.lock().unwrap().send(()).unwrap();
    });
    let balancer = Balancer::before(&[&origin], &format!("proxy_temp_path DIR/held; {location}"));
    let _client = asking(&balancer);
    heard.recv_timeout(common::PATIENCE).unwrap();
    written.load(Ordering::SeqCst)
}

#[test]
fn a_slow_reader_slows_the_source_where_nothing_or_no_more_may_be_held() {
    for (header, location) in [
        ("", "proxy_buffering off;"),
        ("", "proxy_max_temp_file_size 0;"),
        ("", "proxy_max_temp_file_size 8m;"),
        ("X-Accel-Buffering: no\r\n", ""),
    ] {
        let held = held_of(header, location);
        assert!(held < 64 << 20, "{header:?} {location:?}: {held} bytes went into buffers");
    }
    let wide = held_of("", "proxy_max_temp_file_size 0; proxy_buffers 2 64m;");
    assert!(wide >= 128 << 20, "{wide} bytes went into buffers for 128 MB");
    let ignored = held_of("X-Accel-Buffering: no\r\n", "proxy_ignore_headers X-Accel-Buffering;");
    assert!(ignored >= 400 << 20, "{ignored} bytes of all are held");
}

#[test]
fn without_a_folder_for_it_nothing_is_held_and_nothing_lost() {
    let (origin, _) = big_origin();
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT sndbuf=16k; proxy_temp_path DIR/nginx.conf; \
         location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port
    ));
    let mut client = asking(&balancer);
    wait_until("it was told", || balancer.errors().contains("holding an answer for a slow client failed"));
    let answer = client.response();
    assert!(answer.body.bytes().enumerate().all(|(at, byte)| byte == byte_at(at)));
    assert_eq!(answer.body.len(), LEN);
}
