//! The relay against origins and clients that do everything that the protocol allows, and much that it does not.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::collections::BTreeSet;
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use common::{Balancer, Origin, header, wait_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const TWICE: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno";

#[test]
fn a_request_passes_with_its_headers_in_order_and_case_less_those_of_the_hop() {
    let origin = Origin::answering(
        "HTTP/1.1 200 Fine\r\nX-oRder: 1\r\nContent-Length: 2\r\nETag: \"x\"\r\nKeep-Alive: 5\r\n\r\nok",
    );
    let balancer = Balancer::before(&[&origin], "");
    let answer = balancer
        .client()
        .send("GET /a%20b/../c?d=e HTTP/1.1\r\nHost: test\r\nX-bEe: 1\r\nTE: trailers\r\nKeep-Alive: 1\r\nAccept: x\r\n\r\n")
        .response();
    assert!(answer.head.starts_with("HTTP/1.1 200 Fine\r\nServer: nginx"), "{}", answer.head);
    assert!(
        answer.head.contains("\r\nX-oRder: 1\r\nContent-Length: 2\r\nETag: \"x\"\r\n"),
        "{}",
        answer.head
    );
    assert_eq!((answer.header("keep-alive"), answer.body.as_str()), (None, "ok"));
    let seen = &origin.seen()[0];
    assert!(seen.starts_with("GET /a%20b/../c?d=e HTTP/1.1\r\nHost: origins\r\n"), "{seen}");
    assert!(seen.ends_with("X-bEe: 1\r\nAccept: x\r\n\r\n"), "{seen}");
    assert!(header(seen, "te").is_none() && header(seen, "keep-alive").is_none(), "{seen}");
}

#[test]
fn connections_are_kept_on_both_sides() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").body, "ok");
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn each_chunk_passes_at_once() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::scripted(move |served| {
        served.read_request();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        wait.lock().unwrap().recv().unwrap();
        served.send("6;ext=1\r\nsecond\r\n");
        wait.lock().unwrap().recv().unwrap();
        served.send("0\r\n\r\n");
        served.read_to_end();
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(header(&client.head().unwrap(), "transfer-encoding"), Some("chunked"));
    assert_eq!(client.bytes(10), b"5\r\nfirst\r\n");
    go.send(()).unwrap();
    assert_eq!(client.bytes(11), b"6\r\nsecond\r\n");
    go.send(()).unwrap();
    assert_eq!(client.bytes(5), b"0\r\n\r\n");
}

#[test]
fn answers_and_requests_are_read_in_any_pieces() {
    let origin = Origin::scripted(|served| {
        while served.read_request().is_some() {
            for byte in "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".chars() {
                served.send(&byte.to_string());
            }
        }
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    for _ in 0..2 {
        for byte in
            "POST /x HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                .chars()
        {
            client.send(&byte.to_string());
        }
        assert_eq!(client.response().body, "abc");
    }
    assert_eq!(
        header(&origin.seen()[1], "content-length"),
        Some("3"),
        "a body that is known to its end has a length"
    );
}

#[test]
fn chunks_of_a_streamed_body_that_came_together_go_on_as_one() {
    let (said, heard) = mpsc::channel();
    let said = Mutex::new(said);
    let origin = Origin::scripted(move |served| {
        served.read_head();
        let mut text = Vec::new();
        for wanted in [&b"1\r\na\r\n"[..], b"5\r\nbcdef\r\n0\r\n\r\n"] {
            text.resize(wanted.len(), 0);
            served.read_exactly(&mut text);
            said.lock().unwrap().send(text.escape_ascii().to_string()).unwrap();
        }
        served.send(OK);
    });
    let balancer = Balancer::before(&[&origin], "proxy_request_buffering off;");
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    assert_eq!(heard.recv_timeout(common::PATIENCE).unwrap(), "1\\r\\na\\r\\n");
    client.send("2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n");
    assert_eq!(heard.recv_timeout(common::PATIENCE).unwrap(), "5\\r\\nbcdef\\r\\n0\\r\\n\\r\\n");
    assert_eq!(client.response().body, "ok");
}

#[test]
fn a_body_that_ends_with_the_connection_is_chunked_for_1_1_and_closed_for_1_0() {
    let origin = Origin::scripted(|served| {
        served.read_request();
        served.send("HTTP/1.0 200 OK\r\n\r\nuntil the end");
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    assert_eq!(client.get("/").body, "until the end");
    assert_eq!(client.get("/").body, "until the end", "the client's connection goes on");
    let answer = balancer.client().send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").response();
    assert_eq!((answer.body.as_str(), answer.header("connection")), ("until the end", Some("close")));
}

#[test]
fn answers_without_a_body_have_none_whatever_their_headers_say() {
    let origin = Origin::scripted(|served| {
        while let Some(head) = served.read_request() {
            let status = head.split('/').nth(1).unwrap().split(' ').next().unwrap().to_owned();
            served.send(&format!("HTTP/1.1 {status} X\r\nContent-Length: 7\r\n\r\n"));
        }
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    let answer = client.send("HEAD /200 HTTP/1.1\r\nHost: test\r\n\r\n").response_to_head();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("7")));
    assert_eq!((client.get("/304").status, client.get("/204").status), (304, 204));
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1, "nothing was owed on the connection");
}

#[test]
fn interim_answers_pass_and_100_is_ours() {
    let origin = Origin::scripted(|served| {
        while served.read_request().is_some() {
            served.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            served.send(OK);
        }
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let hints = client.head().unwrap();
    assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a>"), "{hints}");
    assert_eq!(client.response().status, 200);
    let old = balancer.client().send("GET / HTTP/1.0\r\n\r\n").response();
    assert_eq!(old.status, 200, "a client of HTTP/1.0 knows no interim answers");
}

#[test]
fn endless_interim_answers_are_cut() {
    let origin = Origin::scripted(|served| {
        served.read_request();
        for _ in 0..1000 {
            served.send("HTTP/1.1 102 Processing\r\n\r\n");
        }
        served.read_to_end();
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let status = loop {
        let head = client.head().unwrap();
        if !head.starts_with("HTTP/1.1 102") {
            break head;
        }
    };
    assert!(status.starts_with("HTTP/1.1 502"), "{status}");
}

#[test]
fn answers_that_could_be_read_in_two_ways_become_502_and_their_connection_is_never_used_again() {
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
        "garbage\r\n\r\n",
    ] {
        let origin = Origin::answering(bad);
        let balancer = Balancer::before(&[&origin], "");
        let mut client = balancer.client();
        assert_eq!((client.get("/").status, client.get("/").status), (502, 502), "{bad:?}");
        assert_eq!(origin.connections.load(Ordering::SeqCst), 2, "{bad:?}");
    }
}

#[test]
fn bytes_behind_an_answer_are_nobodys() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    );
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    assert_eq!((client.get("/").body, client.get("/").body), ("ok".to_owned(), "ok".to_owned()));
    assert_eq!(origin.connections.load(Ordering::SeqCst), 2);
}

#[test]
fn of_a_server_that_once_said_more_than_it_was_asked_nothing_is_kept() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let origin = Origin::scripted(move |served| {
        while let Some(head) = served.read_request() {
            if head.starts_with("GET /held") {
                held.lock().unwrap().recv().unwrap();
            }
            served.send(if head.starts_with("GET /extra") { TWICE } else { OK });
        }
    });
    let balancer = Balancer::before(&[&origin], "");
    let connections = || origin.connections.load(Ordering::SeqCst);
    let (mut one, mut other) = (balancer.client(), balancer.client());
    assert_eq!((one.get("/").body, connections()), ("ok".to_owned(), 1));
    one.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
    common::wait_until("the first one waits", || origin.seen().len() == 2);
    assert_eq!((other.get("/extra").body, connections()), ("ok".to_owned(), 2));
    release.send(()).unwrap();
    assert_eq!(one.response().body, "ok");
    assert_eq!((other.get("/").body, connections()), ("ok".to_owned(), 3), "nor what was lent meanwhile");
    assert_eq!((other.get("/").body, connections()), ("ok".to_owned(), 4));
    assert_eq!(balancer.errors().matches("more data than its answer").count(), 1, "{}", balancer.errors());
}

#[test]
fn an_answer_that_was_cut_never_looks_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
    ] {
        let origin = Origin::scripted(move |served| {
            served.read_request();
            served.send(answer);
        });
        let balancer = Balancer::before(&[&origin], "");
        let mut client = balancer.client();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.try_response(), None, "{answer:?}");
        let mut old = balancer.client();
        old.send("GET / HTTP/1.0\r\n\r\n");
        old.head();
        let (body, is_clean) = old.rest();
        assert!(
            !is_clean || body.len() < 3 || answer.contains("Content-Length"),
            "{answer:?} ended cleanly: {body:?}"
        );
    }
}

/// Answers each request when its head has come, and reads what follows to the end.
fn early_origin() -> Origin {
    Origin::scripted(|served| {
        served.read_head();
        served.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
        served.read_to_end();
    })
}

#[test]
fn an_answer_that_comes_long_before_the_body_ends_says_that_both_connections_end() {
    let origin = early_origin();
    let balancer = Balancer::before(&[&origin], "client_max_body_size 0; proxy_request_buffering off;");
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\nsome");
    let answer = client.response();
    assert_eq!(
        (answer.status, answer.body.as_str(), answer.header("connection")),
        (403, "no", Some("close"))
    );
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest().0, b"");
    assert_eq!(balancer.client().get("/").status, 403);
    assert_eq!(origin.connections.load(Ordering::SeqCst), 2);
}

#[test]
fn after_an_answer_that_came_early_a_short_rest_of_the_body_is_read_away() {
    for (framing, rest) in
        [("Content-Length: 10", "567890"), ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n")]
    {
        let origin = early_origin();
        let balancer = Balancer::before(&[&origin], "proxy_request_buffering off;");
        let mut client = balancer.client();
        let begun = if framing.contains("Length") { "1234" } else { "4\r\n1234\r\n" };
        client.send(&format!("POST / HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n{begun}"));
        let answer = client.response();
        assert_eq!((answer.status, answer.header("connection")), (403, Some("keep-alive")), "{framing}");
        client.send(rest);
        assert_eq!(client.get("/").status, 403, "{framing}");
        assert_eq!(origin.connections.load(Ordering::SeqCst), 2, "what saw half a body is not used again");
    }
}

#[test]
fn headers_named_by_connection_go_and_those_that_say_who_asks_stay() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], "");
    balancer
        .client()
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Hop: 1\r\nX-Forwarded-For: 1.1.1.1\r\nX-Real-IP: 2.2.2.2\r\n\
             Connection: X-Hop, X-Forwarded-For, X-Real-IP, Host, close\r\nProxy-Connection: x\r\n\r\n",
        )
        .response();
    let seen = &origin.seen()[0];
    assert_eq!(header(seen, "x-hop"), None);
    assert_eq!(header(seen, "proxy-connection"), None);
    assert_eq!(header(seen, "x-forwarded-for"), Some("1.1.1.1"));
    assert_eq!(header(seen, "x-real-ip"), Some("2.2.2.2"));
    assert!(header(seen, "host").is_some());
}

#[test]
fn the_host_of_the_request_line_outranks_the_header() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; server_name other; return 403; }}\n\
         server {{ listen 127.0.0.1:PORT; server_name right; location / {{ proxy_pass http://127.0.0.1:{}; \
         proxy_set_header Host $host; }} }}",
        origin.port
    ));
    let answer =
        balancer.client().send("GET http://Right:80/p?q#f HTTP/1.1\r\nHost: other\r\n\r\n").response();
    assert_eq!(answer.status, 200);
    let seen = &origin.seen()[0];
    assert!(seen.starts_with("GET /p?q HTTP/1.1\r\n"), "{seen}");
    assert_eq!(header(seen, "host"), Some("right"));
}

#[test]
fn trailers_carry_no_headers_past_the_rules() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
    );
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    let ask = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Real-IP\r\n\r\n\
               2\r\nhi\r\n0\r\nX-Real-IP: 6.6.6.6\r\n\r\n";
    assert_eq!(client.send(ask).response().body, "ok");
    assert_eq!(
        client.send(ask).response().body,
        "ok",
        "what followed the trailers was read from the right place"
    );
    let seen = origin.seen();
    assert!(seen.iter().all(|head| header(head, "x-real-ip").is_none() && header(head, "trailer").is_none()));
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_forged_header_in_a_value_stays_a_value() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], "proxy_set_header X-Uri $uri; add_header X-Arg $arg_a;");
    let answer = balancer.client().get("/a%0d%0aX-Evil:%201?a=b");
    assert_eq!(answer.header("x-arg"), Some("b"));
    let seen = &origin.seen()[0];
    assert_eq!(header(seen, "x-uri"), Some("/a  X-Evil: 1"), "{seen}");
    assert_eq!(header(seen, "x-evil"), None);
}

/// Answers `/stall` with a head and a part of the body and then waits, all else with its name.
fn stalling(name: &'static str) -> Origin {
    Origin::scripted(move |served| {
        while let Some(head) = served.read_request() {
            if head.starts_with("GET /stall ") {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart");
                served.read_to_end();
                return;
            }
            served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}"));
        }
    })
}

#[test]
fn a_server_that_falls_silent_after_its_head_stays_in_the_rotation() {
    let (one, two) = (stalling("1"), stalling("2"));
    let balancer = Balancer::start(&format!(
        "upstream two {{ server 127.0.0.1:{} max_fails=1 fail_timeout=1h; server 127.0.0.1:{} max_fails=1 fail_timeout=1h; }}\n\
         server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://two; proxy_read_timeout 200ms; }}\n\
         location /page {{ ssi on; ssi_types *; root DIR; }} }}",
        one.port, two.port
    ));
    std::fs::write(balancer.path("page"), "<!--# include virtual=\"/stall\" -->").unwrap();
    for path in ["/stall", "/stall", "/page", "/page"] {
        assert!(balancer.client().send(&format!("GET {path} HTTP/1.0\r\n\r\n")).head().is_some());
        wait_until("the answer has ended", || {
            let log = std::fs::read_to_string(balancer.path("access.log")).unwrap_or_default();
            log.contains(&format!("GET {path} "))
        });
    }
    let answers: BTreeSet<String> = (0..2).map(|_| balancer.client().get("/").body).collect();
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(balancer.errors().contains("timed out while reading upstream"));
}

#[test]
fn an_origin_of_http11_is_always_told_a_host() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = Balancer::start(&format!(
        "upstream origins {{ server 127.0.0.1:{}; }}\n\
         server {{ listen 127.0.0.1:PORT; proxy_pass_request_headers off; proxy_set_header Connection close;\n\
         location / {{ proxy_pass http://origins; proxy_set_header Host $http_host; }}\n\
         location /none {{ proxy_pass http://origins; proxy_set_header Host \"\"; }}\n\
         location /old {{ proxy_pass http://origins; proxy_set_header Host \"\"; proxy_http_version 1.0; }} }}",
        origin.port
    ));
    for path in ["/", "/none", "/old"] {
        balancer.client().send(&format!("GET {path} HTTP/1.0\r\n\r\n")).response();
    }
    let hosts: Vec<Option<String>> =
        origin.seen().iter().map(|head| common::header(head, "host").map(str::to_owned)).collect();
    assert_eq!(hosts, [Some("origins".to_owned()), Some("origins".to_owned()), None]);
}
