//! What workers share and what they keep: exact counts over all of them, tunnels over reloads, and a real nginx behind.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod nginx;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use common::{Balancer, Origin, PATIENCE, wait_until};
use nginx::Nginx;

#[test]
fn max_conns_is_exact_over_all_workers() {
    let in_flight = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (count, peak, door) = (in_flight.clone(), most.clone(), gate.clone());
    let origin = Origin::scripted(move |served| {
        while served.read_request().is_some() {
            peak.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let open = door.0.lock().unwrap();
            drop(door.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap());
            count.fetch_sub(1, Ordering::SeqCst);
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let balancer = Balancer::with_workers(
        &format!(
            "upstream origins {{ server 127.0.0.1:{} max_conns=3; server 127.0.0.1:1 down; }}\n\
             server {{ listen 127.0.0.1:PORT reuseport; location / {{ proxy_pass http://origins; }} }}",
            origin.port
        ),
        2,
    );
    let refused = AtomicUsize::new(0);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    let status = balancer.client().get("/").status;
                    // Those over the limit are answered at once; the last of them opens the gate for the others.
                    if status == 502 && refused.fetch_add(1, Ordering::SeqCst) == 8 {
                        *gate.0.lock().unwrap() = true;
                        gate.1.notify_all();
                    }
                    status
                })
            })
            .collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3, "{statuses:?}");
    assert!(most.load(Ordering::SeqCst) <= 3);
}

#[test]
fn no_two_connections_have_one_number() {
    let balancer = Balancer::with_workers(
        "server { listen 127.0.0.1:PORT reuseport; location / { return 200 $connection; } }",
        4,
    );
    let numbers: BTreeSet<String> = (0..40).map(|_| balancer.client().get("/").body).collect();
    assert_eq!(numbers.len(), 40, "{numbers:?}");
}

#[test]
fn a_real_nginx_behind_us_is_relayed_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let large: String = (0..500_000).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
    std::fs::write(folder.path().join("large"), &large).unwrap();
    std::fs::write(folder.path().join("empty"), "").unwrap();
    // Reading it is for nginx's worker, whoever that is.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let nginx = Nginx::start(&format!(
        "server {{ listen 127.0.0.1:PORT; root {}; location /echo {{ return 200 $request_uri; }} }}",
        folder.path().display()
    ));
    let port = nginx.port;
    let balancer = Balancer::start(&format!(
        "upstream origins {{ server 127.0.0.1:{port}; keepalive 8; }}\n\
         server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://origins; }} }}"
    ));
    let mut client = balancer.client();
    for i in 0..200 {
        assert_eq!(client.get(&format!("/echo/{i}")).body, format!("/echo/{i}"));
        match i % 40 {
            0 => assert!(client.get("/large").body == large),
            10 => assert_eq!((client.get("/empty").status, client.get("/none").status), (200, 404)),
            20 => {
                let part =
                    client.send("GET /large HTTP/1.1\r\nHost: a\r\nRange: bytes=26-51\r\n\r\n").response();
                assert_eq!((part.status, part.body.as_str()), (206, &large[..26]));
            }
            30 => {
                let head = client.send("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n").response_to_head();
                assert_eq!(head.header("content-length"), Some("500000"));
            }
            _ => {}
        }
    }
}

#[test]
fn a_tunnel_outlives_a_reload() {
    let origin = Origin::scripted(|served| {
        served.read_head();
        served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        let mut line = [0; 4];
        while std::io::Read::read_exact(&mut served.stream, &mut line).is_ok() {
            std::io::Write::write_all(&mut served.stream, &line).unwrap();
        }
    });
    let balancer = Balancer::before(
        &[&origin],
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;",
    );
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.head().unwrap();
    client.send("one.");
    assert_eq!(client.bytes(4), b"one.");
    balancer.reload();
    client.send("two.");
    assert_eq!(client.bytes(4), b"two.");
}

/// Sends a head, if asked to, and a part of a body that only the connection's end delimits; then nothing.
fn stalling(begins: bool) -> Origin {
    Origin::scripted(move |served| {
        served.read_request();
        if begins {
            served.send("HTTP/1.1 200 OK\r\n\r\npart");
        }
        served.read_to_end();
    })
}

#[test]
fn an_answer_that_a_stop_cuts_does_not_look_whole() {
    let origin = stalling(true);
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    client.send("GET / HTTP/1.0\r\n\r\n").head().unwrap();
    assert_eq!(client.bytes(4), b"part");
    balancer.signal("stop");
    assert_eq!(client.rest(), (Vec::new(), false), "a reset, no end");
}

#[test]
fn an_answer_that_worker_shutdown_timeout_cuts_does_not_look_whole() {
    let origin = stalling(true);
    let location = format!("location / {{ proxy_pass http://127.0.0.1:{}; }}", origin.port);
    let balancer = Balancer::start_with(
        "worker_processes 1; worker_shutdown_timeout 100ms;",
        &format!("server {{ listen 127.0.0.1:PORT; {location} }}"),
    );
    let mut client = balancer.client();
    client.send("GET / HTTP/1.0\r\n\r\n").head().unwrap();
    assert_eq!(client.bytes(4), b"part");
    balancer.signal_reload();
    assert_eq!(client.rest(), (Vec::new(), false), "a reset, no end");
}

#[test]
fn who_has_been_told_nothing_sees_a_plain_end_when_we_stop() {
    let origin = stalling(false);
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    wait_until("the origin is asked", || !origin.seen().is_empty());
    balancer.signal("stop");
    assert_eq!(client.rest(), (Vec::new(), true));
}
