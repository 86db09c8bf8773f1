//! Upgrades: a tunnel opens only after the upstream's 101, and only to what was asked for.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use common::{Balancer, Origin, header};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn upgrade_location() -> &'static str {
    "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_set_header Host $host;"
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn a_tunnel_opens_after_the_101_and_each_direction_ends_by_itself() {
    let origin = Origin::scripted(|served| {
        served.read_head();
        served.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
        );
        let heard = served.read_to_end();
        served.stream.write_all(&heard).unwrap();
    });
    let balancer = Balancer::before(&[&origin], upgrade_location());
    let mut client = balancer.client();
    client.send(UPGRADE);
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && header(&head, "upgrade") == Some("websocket"), "{head}");
    assert_eq!(client.bytes(5), b"hello");
    client.send("one").send("two");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), (b"onetwo".to_vec(), true), "the other direction still carries");
}

#[test]
fn nothing_of_the_new_protocol_reaches_an_upstream_that_refuses_it() {
    let (said, heard) = mpsc::channel();
    let said = Mutex::new(said);
    let origin = Origin::scripted(move |served| {
        served.read_head();
        let mut early = [0; 100];
        served.stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        let len = served.stream.read(&mut early).unwrap_or(0);
        said.lock().unwrap().send(early[..len].to_vec()).unwrap();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
        served.read_to_end();
    });
    let balancer = Balancer::before(&[&origin], upgrade_location());
    let mut client = balancer.client();
    client.send(&format!("{UPGRADE}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(heard.recv_timeout(common::PATIENCE).unwrap(), b"");
    assert_eq!(client.response().body, "no");
    assert_eq!(client.response().body, "no", "it was the next request of this client");
    assert_eq!(origin.connections.load(Ordering::SeqCst), 2, "a connection that saw Upgrade is not kept");
}

#[test]
fn an_upgrade_is_only_to_what_was_asked_for() {
    let origin = Origin::scripted(|served| {
        served.read_head();
        served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n");
        served.read_to_end();
    });
    let balancer = Balancer::before(&[&origin], upgrade_location());
    assert_eq!(balancer.client().send(UPGRADE).response().status, 502);
    let with_body = UPGRADE.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(balancer.client().send(&with_body).response().status, 502);
}

#[test]
fn upgrades_to_http2_are_never_passed_on() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], upgrade_location());
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\n";
    assert_eq!(balancer.client().send(ask).response().status, 200);
    let seen = &origin.seen()[0];
    assert!(header(seen, "upgrade").is_none() && header(seen, "http2-settings").is_none(), "{seen}");
}

#[test]
fn an_idle_tunnel_ends_at_the_read_timeout() {
    let origin = Origin::scripted(|served| {
        served.read_head();
        served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        served.read_to_end();
    });
    let balancer = Balancer::before(&[&origin], &format!("{} proxy_read_timeout 150ms;", upgrade_location()));
    let mut client = balancer.client();
    client.send(UPGRADE);
    client.head().unwrap();
    assert_eq!(client.rest().0, b"");
}
