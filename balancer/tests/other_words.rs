//! Answers that reach the client under another status than the upstream's, or to another method than the upstream was
//! asked with: each must end where its head says, on both sides.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::sync::atomic::Ordering;

use common::{Balancer, Client, Origin, Response};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn head(client: &mut Client, path: &str) -> Response {
    client.send(&format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n")).response_to_head()
}

/// The connection is where it should be: the next answer on it begins with its first byte.
fn is_in_step(client: &mut Client) -> bool {
    let answer = client.get("/ok");
    answer.head.starts_with("HTTP/1.1 200 OK\r\n") && answer.body == "ok"
}

/// Answers with this, but `/ok` with an answer that cannot be mistaken.
fn answering(answer: &'static str) -> Origin {
    Origin::scripted(move |served| {
        while let Some(head) = served.read_request() {
            served.send(if head.contains(" /ok ") { OK } else { answer });
        }
    })
}

#[test]
fn a_body_that_a_head_asked_for_as_get_is_not_read_by_the_next_client() {
    const STOLEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";
    let origin = Origin::scripted(|served| {
        while let Some(head) = served.read_request() {
            if !head.starts_with("GET /late") {
                served.send(OK);
                continue;
            }
            served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", STOLEN.len()));
            if served.read_request().is_none() {
                return;
            }
            served.send(STOLEN);
        }
    });
    let balancer = Balancer::before(&[&origin], "proxy_method GET;");
    let mut client = balancer.client();
    let answer = head(&mut client, "/late");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("44")));
    assert_eq!(client.get("/next").body, "ok");
    assert_eq!(origin.connections.load(Ordering::SeqCst), 2, "the first one owes a body");
}

#[test]
fn a_body_that_comes_with_the_head_goes_nowhere_and_its_connection_is_kept() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], "proxy_method GET;");
    let mut client = balancer.client();
    for _ in 0..3 {
        assert_eq!(head(&mut client, "/").header("content-length"), Some("2"));
    }
    assert_eq!(client.get("/").body, "ok");
    assert!(origin.seen().iter().all(|head| head.starts_with("GET / ")), "{:?}", origin.seen());
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_get_that_was_asked_as_head_is_answered_without_a_body_at_once() {
    for length in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", ""] {
        let origin = Origin::answering(format!("HTTP/1.1 200 OK\r\nX-From: origin\r\n{length}\r\n").leak());
        let balancer = Balancer::before(&[&origin], "proxy_method HEAD; proxy_read_timeout 1s;");
        let mut client = balancer.client();
        for _ in 0..2 {
            let answer = client.get("/");
            assert_eq!((answer.header("x-from"), &answer.body[..]), (Some("origin"), ""), "{length}");
            assert_eq!(answer.head.matches("Content-Length").count(), 1, "{}", answer.head);
        }
        assert_eq!(origin.connections.load(Ordering::SeqCst), 1, "nothing is owed on it: {length}");
    }
}

/// `/` and `/named` are errors whose pages the origin brings.
fn with_pages(origin: &Origin, answer: &str, dress: &str) -> Balancer {
    Balancer::start(&format!(
        "upstream origin {{ server 127.0.0.1:{port}; keepalive 4; }}\n\
         server {{ listen 127.0.0.1:PORT; {dress}\n\
         location = / {{ error_page 404 {answer} /page; return 404; }}\n\
         location = /named {{ error_page 404 {answer} @page; return 404; }}\n\
         location @page {{ proxy_pass http://origin; }}\n\
         location / {{ proxy_pass http://origin; }} }}",
        port = origin.port
    ))
}

#[test]
fn a_page_that_has_no_body_of_its_own_ends_under_the_errors_status() {
    for page in [
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 300\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Encoding: gzip\r\nContent-Type: text/html\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nETag: \"x\"\r\n\r\n",
    ] {
        let origin = answering(page);
        for (answer, status, dress) in
            [("", 404, ""), ("=200", 200, ""), ("", 404, "gunzip on; gzip on; gzip_min_length 0; ssi on;")]
        {
            let balancer = with_pages(&origin, answer, dress);
            let mut client = balancer.client();
            for path in ["/", "/named"] {
                let shown = client.get(path);
                assert_eq!((shown.status, &shown.body[..]), (status, ""), "{page} {answer} {path}");
                assert_eq!(shown.header("connection"), Some("keep-alive"));
                assert_eq!(head(&mut client, path).status, status);
                assert!(is_in_step(&mut client), "{page} {answer} {path}");
            }
        }
    }
}

#[test]
fn a_page_with_a_body_has_none_under_a_status_that_allows_none() {
    for page in [
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ] {
        let origin = answering(page);
        for (answer, status) in [("=204", 204), ("=304", 304)] {
            for dress in ["", "gzip on; gzip_min_length 0; ssi on;"] {
                let balancer = with_pages(&origin, answer, dress);
                let mut client = balancer.client();
                for path in ["/", "/named"] {
                    let shown = client.get(path);
                    assert_eq!((shown.status, shown.header("transfer-encoding")), (status, None), "{page}");
                    assert!(status != 204 || shown.header("content-length").is_none(), "{}", shown.head);
                    assert!(is_in_step(&mut client), "{page} {answer} {path} {dress}");
                }
            }
        }
    }
}

#[test]
fn a_file_has_no_body_under_a_status_that_allows_none() {
    let balancer = Balancer::start(
        "server { listen 127.0.0.1:PORT; root DIR;\n\
         location = /204 { error_page 404 =204 /page; return 404; }\n\
         location = /304 { error_page 404 =304 /page; return 404; } }",
    );
    std::fs::write(balancer.path("page"), "a file").unwrap();
    let mut client = balancer.client();
    for (path, status) in [("/204", 204), ("/304", 304)] {
        let shown = client.get(path);
        assert_eq!((shown.status, shown.header("content-length")), (status, None), "{}", shown.head);
        let next = client.get("/page");
        assert!(next.head.starts_with("HTTP/1.1 200 OK\r\n") && next.body == "a file", "{}", next.head);
    }
}

#[test]
fn an_answer_without_its_body_needs_no_unpacking() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
    );
    let balancer = Balancer::before(&[&origin], "gunzip on;");
    let mut client = balancer.client();
    for _ in 0..2 {
        assert_eq!(head(&mut client, "/").header("content-encoding"), None);
        assert_eq!(client.get("/").body, "");
    }
}

#[test]
fn a_head_for_what_would_be_packed_gets_no_byte_of_a_body() {
    let origin = Origin::scripted(|served| {
        while let Some(head) = served.read_request() {
            served.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4000\r\n\r\n");
            if head.starts_with("GET") {
                served.send(&"body".repeat(1000));
            }
        }
    });
    let balancer = Balancer::before(&[&origin], "gzip on;");
    let mut client = balancer.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(client.response_to_head().header("content-encoding"), Some("gzip"));
    let next = client.get("/");
    assert!(next.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", next.head);
    assert_eq!(next.body.len(), 4000);
}
