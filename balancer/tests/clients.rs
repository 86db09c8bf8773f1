//! Clients: what they upload, when they leave or stall, and how long their connections stay.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use common::{Balancer, Origin, header};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_client_that_leaves_ends_its_request_upstream() {
    let (said, heard) = mpsc::channel();
    let said = Mutex::new(said);
    let origin = Origin::scripted(move |served| {
        served.read_request();
        said.lock().unwrap().send("asked").unwrap();
        served.read_to_end();
        said.lock().unwrap().send("gone").unwrap();
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(heard.recv_timeout(common::PATIENCE).unwrap(), "asked");
    drop(client);
    assert_eq!(heard.recv_timeout(common::PATIENCE).unwrap(), "gone");
}

#[test]
fn a_large_upload_is_streamed_whole() {
    let origin = Origin::scripted(|served| {
        while let Some((_, body)) = served.read_request_with_body() {
            let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
            let text = format!("{} {sum}", body.len());
            served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        }
    });
    for buffering in ["on", "off"] {
        let location = format!("client_max_body_size 0; proxy_request_buffering {buffering};");
        let balancer = Balancer::before(&[&origin], &location);
        let body: String = (0..300_000).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
        let sum: u64 = body.bytes().map(u64::from).sum();
        let mut client = balancer.client();
        for head in ["Content-Length: 300000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n493e0\r\n"] {
            client.send(&format!("PUT / HTTP/1.1\r\nHost: test\r\n{head}{body}"));
            if head.starts_with('T') {
                client.send("\r\n0\r\n\r\n");
            }
            assert_eq!(client.response().body, format!("300000 {sum}"), "{buffering} {head}");
        }
    }
}

#[test]
fn expect_is_answered_once_and_not_for_a_body_that_is_too_large() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], "client_max_body_size 10;");
    let mut client = balancer.client();
    client.send("PUT / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 100 "));
    assert_eq!(client.send("hi").response().status, 200);
    assert!(header(&origin.seen()[0], "expect").is_none());
    client.send("PUT / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n");
    assert_eq!(client.response().status, 413);
    let answer = balancer.client().send("PUT / HTTP/1.1\r\nHost: test\r\nExpect: tea\r\n\r\n").response();
    assert_eq!(answer.status, 417);
}

#[test]
fn a_chunked_body_over_the_limit_is_413() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], "client_max_body_size 4;");
    let answer = balancer
        .client()
        .send("PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        .response();
    assert_eq!(answer.status, 413);
    assert!(origin.seen().is_empty());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::scripted(|served| {
        while let Some(head) = served.read_request() {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()));
        }
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let bodies: Vec<_> = (0..3).map(|_| client.response().body).collect();
    assert_eq!(bodies, ["/1", "/2", "/3"]);
}

#[test]
fn a_head_that_is_refused_closes_the_connection_and_what_follows_is_not_read() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], "");
    for (bad, status) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("\x16\x03\x01\n", 400),
    ] {
        let mut client = balancer.client();
        client.send(&format!("{bad}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response().status, status, "{bad:?}");
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.rest().0, b"", "{bad:?}");
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
}

#[test]
fn a_slow_head_has_one_deadline_from_its_first_byte() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::start(&format!(
        "client_header_timeout 300ms; server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port
    ));
    let mut client = balancer.client();
    let start = std::time::Instant::now();
    let mut sent = 0;
    while client.stream.write_all(b"G").is_ok() && sent < 10_000 {
        client.stream.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
        if matches!(client.stream.read(&mut [0; 100]), Ok(0)) {
            break;
        }
        sent += 1;
    }
    assert!(start.elapsed() < common::PATIENCE / 2, "dripping bytes kept the connection open");
}

#[test]
fn http_0_9_gets_the_body_alone() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    client.send("GET /\r\n");
    assert_eq!(client.rest().0, b"ok");
}

#[test]
fn connections_are_closed_after_their_last_request() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], "keepalive_requests 2;");
    let mut client = balancer.client();
    assert_eq!(client.get("/").header("connection"), Some("keep-alive"));
    assert_eq!(client.get("/").header("connection"), Some("close"));
    assert_eq!(client.rest().0, b"");
    let closing = balancer.client().send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").response();
    assert_eq!(closing.header("connection"), Some("close"));
}

#[test]
fn a_client_that_stops_in_its_body_is_not_waited_for() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], "client_body_timeout 100ms;");
    let mut client = balancer.client();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.rest().0, b"");
    assert!(origin.seen().is_empty(), "no server is held for a body that is not here");
}

#[test]
fn the_page_for_a_head_that_could_not_be_read_is_asked_for_with_a_whole_request_line() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage");
    let pages = |page: &str| {
        Balancer::start(&format!(
            "large_client_header_buffers 2 1k;\n\
             server {{ listen 127.0.0.1:PORT; error_page 400 405 414 494 {page};\n\
             location @page {{ proxy_pass http://127.0.0.1:{0}; }}\n\
             location = /page {{ auth_request /may; proxy_pass http://127.0.0.1:{0}; }}\n\
             location / {{ proxy_pass http://127.0.0.1:{0}; }} }}",
            origin.port
        ))
    };
    let (by_path, named) = (pages("/page"), pages("@page"));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(2000));
    let large = format!("GET /a%20b?c HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(2000));
    for (bad, status, asked) in [
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, None),
        (&long, 414, None),
        ("PUT /a%20b HTTP/1.1\r\nX : b\r\n\r\n", 400, Some("PUT /a%20b HTTP/1.")),
        (&large, 400, Some("GET /a%20b?c HTTP/1.")),
        ("TRACE /x HTTP/1.1\r\nHost: a\r\n\r\n", 405, Some("TRACE /x HTTP/1.")),
    ] {
        let answer = by_path.client().send(bad).response();
        assert_eq!((answer.status, &answer.body[..]), (status, "page"), "{bad:?}");
        let seen = origin.seen();
        let [.., asked_first, asked_then] = &seen[..] else { panic!("{seen:?}") };
        assert!(asked_first.starts_with("GET /may HTTP/1."), "{bad:?} became {asked_first:?}");
        assert!(asked_then.starts_with("GET /page HTTP/1."), "{bad:?} became {asked_then:?}");
        // Nothing stands for a path that could not be read.
        let before = origin.seen().len();
        let answer = named.client().send(bad).response();
        match asked {
            None => assert_eq!((answer.status, origin.seen().len()), (500, before), "{bad:?}"),
            Some(asked) => {
                assert_eq!((answer.status, &answer.body[..]), (status, "page"), "{bad:?}");
                let seen = origin.seen().pop().unwrap();
                assert!(seen.starts_with(asked), "{bad:?} became {seen:?}");
            }
        }
    }
}

#[test]
fn the_time_of_a_slow_upload_is_none_of_the_upstreams() {
    const PAUSE: Duration = Duration::from_millis(600);
    let origin = Origin::answering(OK);
    let balancer = Balancer::start(&format!(
        "log_format times '$request_time $upstream_response_time'; access_log DIR/times.log times;\n\
         upstream one {{ server 127.0.0.1:{}; keepalive 1; }}\n\
         server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://one; }} }}",
        origin.port
    ));
    assert_eq!(balancer.client().get("/").status, 200);
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx");
    client.stream.set_read_timeout(Some(PAUSE)).unwrap();
    assert!(client.stream.peek(&mut [0]).is_err(), "the rest is waited for");
    client.stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    assert_eq!(client.send("x").response().status, 200);
    let log = balancer.path("times.log");
    let times = || -> Vec<f64> {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let line = text.lines().nth(1).unwrap_or_default();
        line.split(' ').filter_map(|time| time.parse().ok()).collect()
    };
    common::wait_until("the line is there", || times().len() == 2);
    let [request, upstream] = times()[..] else { panic!("{:?}", times()) };
    assert!(request - upstream >= PAUSE.as_secs_f64() - 0.01, "{upstream} of {request}");
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1, "it was kept");
}

#[test]
fn who_took_too_long_or_is_told_nothing_is_reset_where_the_configuration_says_so() {
    for (directive, is_clean) in [("reset_timedout_connection on;", false), ("", true)] {
        let balancer = Balancer::start(&format!(
            "client_header_timeout 100ms; server {{ listen 127.0.0.1:PORT; {directive}\n\
             location / {{ return 200 ok; }} location /nothing {{ return 444; }} }}"
        ));
        for request in ["GET / HT", "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let mut client = balancer.client();
            client.send(request);
            assert_eq!(client.rest(), (Vec::new(), is_clean), "{directive} {request:?}");
        }
        assert_eq!(balancer.client().get("/").body, "ok");
    }
}
