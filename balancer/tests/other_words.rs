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
