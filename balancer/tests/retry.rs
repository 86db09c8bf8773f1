//! When a request goes to the next server, when it must not, and which kept connections may carry it.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use common::{Balancer, Origin, wait_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn bytes_that_nobody_asked_for_close_an_idle_connection() {
    let (go, wait) = mpsc::channel::<()>();
    let (said, done) = mpsc::channel::<()>();
    let gates = Mutex::new((wait, said));
    let origin = Origin::scripted(move |served| {
        if served.number > 1 {
            while served.read_request().is_some() {
                served.send(OK);
            }
            return;
        }
        served.read_request();
        served.send(OK);
        let gates = gates.lock().unwrap();
        gates.0.recv().unwrap();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        gates.1.send(()).unwrap();
        served.read_to_end();
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    assert_eq!(client.get("/").body, "ok");
    go.send(()).unwrap();
    done.recv().unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/").body, "ok");
    }
}

#[test]
fn a_kept_connection_that_closes_under_a_get_is_replaced_free_of_charge() {
    let origin = Origin::scripted(|served| {
        served.read_request();
        served.send(OK);
        // The race: the next request is on its way when this side closes.
        served.read_head();
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn a_post_that_may_have_arrived_is_never_sent_twice() {
    let origin = Origin::scripted(|served| {
        served.read_request();
        served.send(OK);
        served.read_request();
    });
    let spare = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin, &spare], "proxy_next_upstream error timeout http_500;");
    let mut client = balancer.client();
    assert_eq!((client.get("/").status, client.get("/").status), (200, 200));
    let answer = client.send("POST /once HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi").response();
    assert_eq!(answer.status, 502);
    let posts = |origin: &Origin| origin.seen().iter().filter(|head| head.starts_with("POST")).count();
    assert_eq!(posts(&origin) + posts(&spare), 1);
}

#[test]
fn a_post_goes_on_where_the_configuration_says_non_idempotent() {
    let dying = Origin::scripted(|served| {
        served.read_request();
    });
    let spare = Origin::scripted(|served| {
        while let Some((_, body)) = served.read_request_with_body() {
            assert_eq!(body, b"hello");
            served.send(OK);
        }
    });
    let balancer = Balancer::before(&[&dying, &spare], "proxy_next_upstream error non_idempotent;");
    let answer = balancer
        .client()
        .send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
        .response();
    assert_eq!(answer.status, 200);
}

#[test]
fn a_dead_server_is_passed_over_and_all_dead_ones_are_a_502() {
    let dead = Origin::answering(OK);
    dead.kill();
    let alive = Origin::answering(OK);
    let balancer = Balancer::before(&[&dead, &alive], "");
    let mut client = balancer.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").status, 200);
    }
    let other = Origin::answering(OK);
    other.kill();
    let balancer = Balancer::before(&[&dead, &other], "");
    let answer = balancer.client().get("/");
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("<center><h1>502 Bad Gateway</h1></center>"), "{}", answer.body);
    assert_eq!(balancer.client().get("/").status, 502);
    assert!(balancer.errors().contains("no live upstreams"), "{}", balancer.errors());
}

#[test]
fn listed_statuses_go_to_the_next_server_and_the_last_one_answers_itself() {
    let busy = Origin::answering("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
    let fine = Origin::answering(OK);
    let balancer = Balancer::before(&[&busy, &fine], "proxy_next_upstream http_503;");
    assert_eq!(balancer.client().get("/").body, "ok");
    let alone = Balancer::before(&[&busy], "proxy_next_upstream http_503;");
    assert_eq!(alone.client().get("/").body, "busy");
}

#[test]
fn a_server_that_says_nothing_is_a_504_and_its_connection_is_closed() {
    let (said, heard) = mpsc::channel();
    let said = Mutex::new(said);
    let origin = Origin::scripted(move |served| {
        served.read_request();
        said.lock().unwrap().send(served.read_to_end()).unwrap();
    });
    let balancer = Balancer::before(&[&origin], "proxy_read_timeout 100ms;");
    let mut client = balancer.client();
    assert_eq!(client.get("/").status, 504);
    assert_eq!(heard.recv_timeout(common::PATIENCE).unwrap(), b"");
}

#[test]
fn killing_a_server_under_load_fails_no_get() {
    const BODY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let origins: Vec<Origin> = (0..3).map(|_| Origin::answering(BODY)).collect();
    let balancer = Balancer::before(&origins.iter().collect::<Vec<_>>(), "");
    let failed = std::thread::scope(|scope| {
        let load: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = balancer.client();
                    (0..200).filter(|_| client.get("/").status != 200).count()
                })
            })
            .collect();
        wait_until("the load is under way", || origins[1].seen().len() >= 100);
        origins[1].kill();
        load.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(failed, 0);
}

/// A port at which connections wait to be accepted for ever, with as many of them as it takes.
fn full() -> (socket2::Socket, Vec<TcpStream>, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
    let waiting: Vec<TcpStream> = std::iter::from_fn(connect).take(16).collect();
    assert!(waiting.len() < 16, "there is always room for one more");
    (socket, waiting, address)
}

#[test]
fn a_server_that_takes_no_connection_in_time_is_a_504() {
    let (_full, _waiting, address) = full();
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; location / {{ proxy_connect_timeout 300ms; proxy_pass http://{address}; }} }}"
    ));
    assert_eq!(balancer.client().get("/").status, 504);
    let errors = balancer.errors();
    assert!(errors.contains("upstream timed out while connecting to upstream"), "{errors}");
}

#[test]
fn no_more_idle_connections_are_kept_than_keepalive_says() {
    let connections = |keepalive: &str| {
        // Each waits for the other: two connections it must be.
        let both = Arc::new(Barrier::new(2));
        let origin = Origin::scripted(move |served| {
            while served.read_request().is_some() {
                both.wait();
                served.send(OK);
            }
        });
        let balancer = Balancer::start(&format!(
            "upstream g {{ server 127.0.0.1:{}; {keepalive} }}\n\
             server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://g; }} }}",
            origin.port
        ));
        let mut clients = [balancer.client(), balancer.client()];
        for _ in 0..3 {
            for client in &mut clients {
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            }
            for client in &mut clients {
                assert_eq!(client.response().status, 200);
            }
        }
        origin.connections.load(Ordering::SeqCst)
    };
    assert_eq!(connections("keepalive 2;"), 2);
    assert_eq!(connections("keepalive 1;"), 4);
    assert_eq!(connections("keepalive 0;"), 6);
}
