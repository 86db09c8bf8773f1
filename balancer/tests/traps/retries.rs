//! Requests that must not be sent again, whatever they say of themselves and whatever the configuration lists.

use crate::OK;
use crate::common::{Balancer, Origin};

const LISTED: &str =
    "proxy_next_upstream error timeout invalid_header http_500 http_502 http_503 http_504 http_429;";

/// An origin that says this to its first request and leaves.
fn failing(answer: &'static str) -> Origin {
    Origin::scripted(move |served| {
        served.read_request();
        served.send(answer);
    })
}

#[test]
fn a_post_is_not_sent_again_however_its_answer_broke_off() {
    for answer in [
        "",
        "H",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
    ] {
        for more in [
            "",
            "Idempotency-Key: \"8e03978e\"\r\n",
            "X-Idempotency-Key: 1\r\nX-HTTP-Method-Override: GET\r\n",
        ] {
            let (first, spare) = (failing(answer), Origin::answering(OK));
            let balancer = Balancer::before(&[&first, &spare], LISTED);
            let mut client = balancer.client();
            client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{more}Content-Length: 2\r\n\r\nhi"));
            let head = loop {
                let head = client.head().unwrap();
                if !head.starts_with("HTTP/1.1 1") {
                    break head;
                }
            };
            assert!(head.starts_with("HTTP/1.1 50"), "{answer:?} {more:?}: {head}");
            assert_eq!((first.seen().len(), spare.seen().len()), (1, 0), "{answer:?} {more:?}");
        }
    }
}

#[test]
fn an_idempotency_key_reaches_the_origin_as_it_came() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(&[&origin], "");
    let post = "POST / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: \"8e03978e\"\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(balancer.client().send(post).response().status, 200);
    assert!(origin.seen()[0].contains("\r\nIdempotency-Key: \"8e03978e\"\r\n"), "{:?}", origin.seen());
}

#[test]
fn nothing_is_sent_again_once_its_answer_has_begun_also_where_non_idempotent_says_it_may() {
    for method in ["GET", "PUT", "POST"] {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX",
        ] {
            let (first, spare) = (failing(answer), Origin::answering(OK));
            let balancer =
                Balancer::before(&[&first, &spare], &LISTED.replace(" error", " non_idempotent error"));
            let mut client = balancer.client();
            client.send(&format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
            assert_eq!(client.try_response(), None, "{method} {answer:?}: it looks whole");
            assert_eq!((first.seen().len(), spare.seen().len()), (1, 0), "{method} {answer:?}");
        }
    }
}
