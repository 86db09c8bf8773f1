//! Upgrades: a tunnel opens only after the upstream's 101, and only to what was asked for.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use common::{Balancer, Origin, header, wait_until};

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
fn all_that_comes_with_the_101_is_passed_on() {
    let origin = Origin::scripted(|served| {
        served.read_head();
        let mut answer =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec();
        answer.resize(answer.len() + (100 << 10), b'x');
        served.stream.write_all(&answer).unwrap();
        served.read_to_end();
    });
    let balancer = Balancer::before(&[&origin], upgrade_location());
    // More than a buffer holds, behind a head: how much the first read brings is up to the kernel.
    for _ in 0..10 {
        let mut client = balancer.client();
        assert!(client.send(UPGRADE).head().unwrap().starts_with("HTTP/1.1 101 "));
        assert!(client.bytes(100 << 10).iter().all(|byte| *byte == b'x'));
    }
}

#[test]
fn a_tunnel_ends_with_its_upstream_also_when_the_client_stays() {
    let origin = Origin::scripted(|served| {
        served.read_head();
        served
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nbye");
    });
    let balancer = Balancer::start(&format!(
        "upstream origins {{ server 127.0.0.1:{} max_conns=1; }}\n\
         server {{ listen 127.0.0.1:PORT; lingering_timeout 100ms;\n\
         location / {{ proxy_pass http://origins; proxy_read_timeout 1h; {} }} }}",
        origin.port,
        upgrade_location()
    ));
    let stay = || {
        let mut client = balancer.client();
        assert!(client.send(UPGRADE).head().unwrap().starts_with("HTTP/1.1 101 "));
        assert_eq!(client.rest(), (b"bye".to_vec(), true));
        client
    };
    // The second gets the only place, which the first has left, though its socket is open still.
    let _clients = [stay(), stay()];
    balancer.signal("quit");
    wait_until("the balancer has ended", || !balancer.path("pid").exists());
}

#[test]
fn a_tunnel_whose_client_takes_nothing_ends_at_the_send_timeout() {
    let origin = Origin::scripted(|served| {
        served.read_head();
        served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        let _ = served.stream.write_all(&vec![b'x'; 256 << 10]);
    });
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT sndbuf=4k; send_timeout 100ms;\n\
         location / {{ proxy_pass http://127.0.0.1:{}; proxy_read_timeout 1h; {} }} }}",
        origin.port,
        upgrade_location()
    ));
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    client.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], balancer.port)).into()).unwrap();
    client.send(UPGRADE.as_bytes()).unwrap();
    wait_until("the tunnel has ended", || {
        std::fs::read_to_string(balancer.path("access.log")).is_ok_and(|log| log.contains(" 101 "))
    });
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
fn a_request_whose_body_is_empty_may_switch() {
    let origin = Origin::scripted(|served| {
        served.read_request();
        served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        let heard = served.read_to_end();
        served.stream.write_all(&heard).unwrap();
    });
    for location in ["", "proxy_request_buffering off;"] {
        let balancer = Balancer::before(&[&origin], &format!("{} {location}", upgrade_location()));
        for body in ["Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
            let mut client = balancer.client();
            client.send(&UPGRADE.replace("\r\n\r\n", &format!("\r\n{body}")));
            let head = client.head().unwrap();
            assert!(head.starts_with("HTTP/1.1 101 "), "{location} {body:?} {head}");
            client.send("once");
            client.stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.rest(), (b"once".to_vec(), true));
        }
    }
}

#[test]
fn a_connection_that_saw_upgrade_is_not_kept_whatever_came_with_it() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], upgrade_location());
    let mut client = balancer.client();
    let with_body = UPGRADE.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi");
    for (asked, connections) in [(&with_body[..], 1), ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 2)] {
        assert_eq!(client.send(asked).response().body, "ok");
        assert_eq!(origin.connections.load(Ordering::SeqCst), connections);
    }
    assert_eq!(header(&origin.seen()[0], "upgrade"), Some("websocket"));
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
