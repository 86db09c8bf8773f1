//! When a request goes to the next server, when it must not, and which kept connections may carry it.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::sync::Mutex;
use std::sync::mpsc;

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
