//! Requests with a body that go on to a second location: what its upstream gets is the client's body, whole, or nothing
//! at all. And how a body is read where a directive has something to say about it.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};

use common::{Balancer, Origin, header, wait_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LONG: usize = 100 * 1024;

/// Bodies, in the order in which they came.
type Bodies = Arc<Mutex<Vec<Vec<u8>>>>;

/// Answers 200 and notes each body.
fn noting() -> (Origin, Bodies) {
    let bodies = Bodies::default();
    let noted = bodies.clone();
    let origin = Origin::scripted(move |served| {
        while let Some((_, body)) = served.read_request_with_body() {
            noted.lock().unwrap().push(body);
            served.send(OK);
        }
    });
    (origin, bodies)
}

/// Takes a whole request and says nothing.
fn failing() -> Origin {
    Origin::scripted(|served| {
        served.read_request();
    })
}

/// `/` passes to the first origin, and when that fails to the second.
fn two_locations((first, one): (&Origin, &str), (second, two): (&Origin, &str)) -> Balancer {
    Balancer::start(&format!(
        "upstream a {{ server 127.0.0.1:{}; keepalive 4; }} upstream b {{ server 127.0.0.1:{}; keepalive 4; }}\n\
         server {{ listen 127.0.0.1:PORT; client_body_buffer_size 16k;\n\
         location / {{ proxy_pass http://a; error_page 502 504 = @b; {one} }}\n\
         location @b {{ proxy_pass http://b; {two} }} }}",
        first.port, second.port
    ))
}

fn body(len: usize) -> String {
    (0..len).map(|at| char::from(b'a' + (at % 23) as u8)).collect()
}

fn post(framing: &str, body: &str) -> String {
    let body = match framing {
        "chunked" => body.as_bytes().chunks(5000).fold(String::new(), |all, piece| {
            format!("{all}{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece))
        }),
        _ => body.to_owned(),
    };
    match framing {
        "chunked" => {
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n")
        }
        _ => format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    }
}

#[test]
fn a_body_that_one_location_has_sent_away_is_not_sent_in_part_by_another() {
    for framing in ["length", "chunked"] {
        for is_taken_whole in [true, false] {
            let first = Origin::scripted(move |served| {
                if is_taken_whole || served.number > 1 {
                    served.read_request();
                } else {
                    served.read_head();
                    served.read_exactly(&mut [0; 40_000]);
                }
            });
            let (second, bodies) = noting();
            let balancer = two_locations((&first, ""), (&second, ""));
            let mut client = balancer.client();
            let answer = client.send(&post(framing, &body(LONG))).response();
            assert_eq!(answer.status, 502, "{framing} {is_taken_whole}");
            assert!(
                balancer.errors().contains("body was sent to an earlier upstream"),
                "{}",
                balancer.errors()
            );
            assert_eq!(second.seen(), [""; 0], "{framing} {is_taken_whole}");
            // Who asks next is heard as if nothing had been.
            assert_eq!(balancer.client().send(&post(framing, &body(10))).response().status, 200);
            assert_eq!(*bodies.lock().unwrap(), [body(10).into_bytes()]);
        }
    }
}

#[test]
fn a_body_that_is_kept_goes_whole_to_the_second_location() {
    for (framing, len, one) in [
        ("length", 100, ""),
        ("chunked", 100, ""),
        ("length", LONG, "proxy_request_buffering on;"),
        ("chunked", LONG, "proxy_request_buffering ON;"),
        ("length", LONG, "client_body_in_file_only clean;"),
    ] {
        let first = failing();
        let (second, bodies) = noting();
        let balancer = two_locations((&first, one), (&second, ""));
        let mut client = balancer.client();
        for _ in 0..2 {
            assert_eq!(
                client.send(&post(framing, &body(len))).response().status,
                200,
                "{framing} {len} {one}"
            );
        }
        assert!(
            bodies.lock().unwrap().iter().all(|came| came == body(len).as_bytes()),
            "{framing} {len} {one}"
        );
        assert_eq!(
            second.connections.load(Ordering::SeqCst),
            1,
            "nothing is owed on it: {framing} {len} {one}"
        );
    }
}

#[test]
fn a_body_set_for_one_location_is_not_sent_by_another_nor_followed_by_the_clients() {
    for len in [100, LONG] {
        for (two, expected) in [("", body(len)), ("proxy_set_body theirs;", "theirs".to_owned())] {
            for one in ["proxy_set_body ours;", "proxy_pass_request_body off; proxy_set_header X-A 1;"] {
                let first = failing();
                let (second, bodies) = noting();
                let balancer = two_locations((&first, one), (&second, two));
                let mut client = balancer.client();
                for _ in 0..2 {
                    assert_eq!(
                        client.send(&post("length", &body(len))).response().status,
                        200,
                        "{one} {two}"
                    );
                }
                let heads = second.seen();
                assert!(heads.iter().all(|head| head.starts_with("POST / ")), "{heads:?}");
                let bodies = bodies.lock().unwrap();
                assert_eq!(bodies.len(), 2);
                assert!(
                    bodies.iter().all(|came| came == expected.as_bytes()),
                    "{len} {one} {two}: {heads:?}"
                );
                assert_eq!(second.connections.load(Ordering::SeqCst), 1, "nothing is owed on it");
            }
        }
    }
}

#[test]
fn a_retry_tells_the_length_of_a_body_whose_end_came_late() {
    let (head_came, told) = mpsc::channel();
    let head_came = Mutex::new(head_came);
    let first = Origin::scripted(move |served| {
        served.read_head();
        head_came.lock().unwrap().send(()).unwrap();
        served.read_exactly(&mut [0; "2000\r\n".len() + 0x2000 + "\r\n0\r\n\r\n".len()]);
        served.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    });
    let (second, bodies) = noting();
    let balancer = Balancer::before(
        &[&first, &second],
        "client_body_buffer_size 8k; proxy_next_upstream http_503 non_idempotent;",
    );
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n");
    client.send(&body(0x2000)).send("\r\n");
    told.recv_timeout(common::PATIENCE).unwrap();
    assert_eq!(client.send("0\r\n\r\n").response().status, 200);
    assert_eq!(*bodies.lock().unwrap(), [body(0x2000).into_bytes()]);
}

#[test]
fn a_body_goes_to_a_file_also_where_no_buffer_is_left_for_it() {
    for directive in ["proxy_request_buffering on;", "client_body_in_file_only clean;"] {
        let (origin, bodies) = noting();
        let balancer = Balancer::before(&[&origin], &format!("client_body_buffer_size 0; {directive}"));
        let mut client = balancer.client();
        for len in [LONG, 1] {
            assert_eq!(client.send(&post("length", &body(len))).response().status, 200);
            assert_eq!(bodies.lock().unwrap().pop(), Some(body(len).into_bytes()));
        }
    }
}

#[test]
fn http_1_0_is_told_the_length_of_what_came_in_chunks() {
    for directive in ["", "proxy_request_buffering off;"] {
        let (origin, bodies) = noting();
        let balancer = Balancer::before(&[&origin], &format!("proxy_http_version 1.0; {directive}"));
        assert_eq!(balancer.client().send(&post("chunked", &body(LONG))).response().status, 200);
        let head = origin.seen().remove(0);
        assert!(head.starts_with("POST / HTTP/1.0\r\n"), "{head}");
        assert_eq!(header(&head, "content-length"), Some("102400"), "{head}");
        assert_eq!(header(&head, "transfer-encoding"), None, "{head}");
        assert_eq!(*bodies.lock().unwrap(), [body(LONG).into_bytes()]);
    }
}

#[test]
fn a_body_that_is_made_of_the_clients_knows_it() {
    let (origin, bodies) = noting();
    let balancer =
        Balancer::before(&[&origin], "proxy_set_body \"<$request_body>\"; client_body_buffer_size 16k;");
    let mut client = balancer.client();
    let mut sent = |framing: &str, len: usize| {
        assert_eq!(client.send(&post(framing, &body(len))).response().status, 200);
        String::from_utf8(bodies.lock().unwrap().pop().unwrap()).unwrap()
    };
    assert_eq!(sent("length", 100), format!("<{}>", body(100)));
    assert_eq!(sent("chunked", 12_000), format!("<{}>", body(12_000)));
    // nginx has it in a file by then, and no value.
    assert_eq!(sent("length", LONG), "<>");
    assert_eq!(sent("length", 0), "<>");
}

#[test]
fn the_log_has_whole_bodies_only() {
    let balancer = Balancer::start(
        "log_format bodies '$uri [$request_body]'; client_body_buffer_size 16k;\n\
         server { listen 127.0.0.1:PORT; access_log DIR/bodies.log bodies; location / { return 200; } }",
    );
    let mut client = balancer.client();
    for len in [LONG, 5] {
        assert_eq!(client.send(&post("length", &body(len))).response().status, 200);
    }
    let log = || std::fs::read_to_string(balancer.path("bodies.log")).unwrap_or_default();
    wait_until("both are logged", || log().lines().count() == 2);
    assert_eq!(log(), "/ [-]\n/ [-]\n");
}

#[test]
fn the_api_does_not_take_a_body_in_a_file_for_none() {
    let (origin, _) = noting();
    let balancer = Balancer::start(&format!(
        "upstream a {{ zone a 64k; server 127.0.0.1:{}; }}\n\
         server {{ listen 127.0.0.1:PORT; client_body_in_file_only clean; proxy_request_buffering on;\n\
         location /api {{ api write=on; }} location / {{ proxy_pass http://a; }} }}",
        origin.port
    ));
    let text = "{\"server\": \"127.0.0.1:9\"}";
    let request = format!(
        "POST /api/9/http/upstreams/a/servers HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    assert_eq!(balancer.client().send(&request).response().status, 201);
}
