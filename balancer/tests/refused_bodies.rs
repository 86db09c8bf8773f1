//! Requests whose body is refused, or limited by one location after the other: nothing that lies behind the point of the
//! refusal is taken for a request, and nobody gets what was refused.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::sync::{Mutex, mpsc};

use common::{Balancer, Client, Origin, Response, header};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";

/// The inside of a server that passes to this origin; its own `/page` is there for errors.
fn server(origin: &Origin, inside: &str) -> Balancer {
    let pass = format!("proxy_pass http://127.0.0.1:{};", origin.port);
    let inside = inside.replace("PASS", &pass);
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; root DIR; location = /file.html {{ }} \
         location = /proxied {{ {pass} }} {inside} }}"
    ));
    std::fs::write(balancer.path("file.html"), "page").unwrap();
    balancer
}

fn post(path: &str, rest: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{rest}")
}

/// A body of so many bytes.
fn framed(framing: &str, len: usize) -> String {
    let body = "x".repeat(len);
    match framing {
        "chunked" => format!("{CHUNKED}{len:x}\r\n{body}\r\n0\r\n\r\n"),
        _ => format!("Content-Length: {len}\r\n\r\n{body}"),
    }
}

/// All that the client hears until the connection ends: one answer.
fn only_answer(client: &mut Client) -> Response {
    let answer = client.response();
    assert_eq!(answer.header("connection"), Some("close"), "{}", answer.head);
    let (rest, _) = client.rest();
    assert!(rest.is_empty(), "a second answer: {}", String::from_utf8_lossy(&rest));
    answer
}

#[test]
fn what_lies_in_a_refused_body_is_not_the_next_request() {
    let hidden = "\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\nX: ";
    for page in ["/file.html", "/proxied", "@named"] {
        let origin = Origin::answering(OK);
        let balancer = server(
            &origin,
            &format!(
                "client_max_body_size 1k; error_page 413 {page}; location / {{ PASS }}\n\
                 location @named {{ PASS }}"
            ),
        );
        let mut client = balancer.client();
        client.send(&post("/", &format!("{CHUNKED}1000\r\n{}", "A".repeat(1100))));
        let head = client.head().unwrap();
        // A second reading of what was read already would end the chunk here.
        let fill = "A".repeat(2996 - 1100);
        let _ = std::io::Write::write_all(
            &mut client.stream,
            format!("{fill}{hidden}{}\r\n0\r\n\r\n", "A".repeat(1000)).as_bytes(),
        );
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        assert!(head.starts_with("HTTP/1.1 413 "), "{page}: {head}");
        assert_eq!(header(&head, "connection"), Some("close"), "{page}: {head}");
        let (rest, _) = client.rest();
        assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1 "), "{page}: a second answer");
        assert!(!origin.seen().iter().any(|head| head.contains("/admin")), "{page}: {:?}", origin.seen());
    }
}

#[test]
fn a_connection_ends_with_a_body_that_is_none_whatever_page_tells_of_it() {
    for page in ["/file.html", "/proxied", "@named"] {
        let origin = Origin::answering(OK);
        let balancer = server(
            &origin,
            &format!("error_page 400 {page}; location / {{ PASS }} location @named {{ PASS }}"),
        );
        let mut client = balancer.client();
        client.send(&post(
            "/",
            &format!("{CHUNKED}5\r\nabcdeZ\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n"),
        ));
        assert_eq!(only_answer(&mut client).status, 400, "{page}");
        assert!(!origin.seen().iter().any(|head| head.contains("/admin")), "{page}: {:?}", origin.seen());
    }
}

#[test]
fn a_body_that_nobody_reads_is_discarded_to_its_end_and_not_to_the_limit() {
    let origin = Origin::answering(OK);
    let balancer = server(&origin, "location / { client_max_body_size 1k; stub_status; }");
    let mut client = balancer.client();
    let hidden = "\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\nX: ";
    let body = format!("{}{hidden}{}", "A".repeat(2996), "A".repeat(0x1000 - 2996 - hidden.len()));
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{CHUNKED}1000\r\n");
    client.send(&format!("{head}{}", &body[..1100]));
    assert_eq!(client.response().status, 200);
    client.send(&format!("{}\r\n0\r\n\r\nGET /file.html HTTP/1.1\r\nHost: a\r\n\r\n", &body[1100..]));
    assert_eq!(client.response().body, "page");
}

#[test]
fn a_connection_ends_with_a_body_that_is_refused_on_its_way_up() {
    for (rest, status) in [("5\r\nabcdeZ\r\n0\r\n\r\n", 400), ("ff\r\nabcde\r\n0\r\n\r\n", 413)] {
        let (came, head_came) = mpsc::channel();
        let came = Mutex::new(came);
        let origin = Origin::scripted(move |served| {
            served.read_head();
            came.lock().unwrap().send(()).unwrap();
            served.read_to_end();
        });
        let balancer = server(
            &origin,
            "client_max_body_size 5; error_page 400 413 /file.html; location / { proxy_request_buffering off; PASS }",
        );
        let mut client = balancer.client();
        client.send(&post("/", CHUNKED));
        head_came.recv_timeout(common::PATIENCE).unwrap();
        client.send(&format!("{rest}GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = only_answer(&mut client);
        assert_eq!((answer.status, &answer.body[..]), (status, "page"));
    }
}

#[test]
fn a_refused_body_is_sent_to_nobody() {
    for framing in ["length", "chunked"] {
        for (inside, expected) in
            [("", "0"), ("proxy_request_buffering on;", "0"), ("proxy_set_body \"our:$request_body\";", "4")]
        {
            let origin = Origin::answering(OK);
            let balancer = server(
                &origin,
                &format!(
                    "location / {{ client_max_body_size 1k; error_page 413 @big; PASS }}\n\
                     location @big {{ client_max_body_size 0; {inside} PASS }}"
                ),
            );
            let mut client = balancer.client();
            client.send(&post("/", &framed(framing, 5000)));
            assert_eq!(only_answer(&mut client).status, 413, "{framing} {inside}");
            let [head] = &origin.seen()[..] else { panic!("{framing} {inside}: {:?}", origin.seen()) };
            assert_eq!(header(head, "content-length"), Some(expected), "{framing} {inside}: {head}");
            assert_eq!(header(head, "transfer-encoding"), None, "{framing} {inside}: {head}");
        }
    }
}

/// As nginx 1.31.5 answers: it looks at a length that is known where a path finds a location, and at chunks as they come.
#[test]
fn a_body_is_limited_by_the_location_that_reads_it() {
    let origin = Origin::answering(OK);
    let balancer = server(
        &origin,
        "location /none-path { client_max_body_size 0; try_files /nope /small; }\n\
         location /none-named { client_max_body_size 0; try_files /nope @small; }\n\
         location /less-named { client_max_body_size 10; try_files /nope @large; }\n\
         location /denied { client_max_body_size 0; deny all; error_page 403 /small; }\n\
         location /failed { client_max_body_size 0; proxy_pass http://127.0.0.1:1; error_page 502 /small; }\n\
         location /failed-named { client_max_body_size 0; proxy_pass http://127.0.0.1:1; error_page 502 = @small; }\n\
         location /small { client_max_body_size 100; PASS }\n\
         location @small { client_max_body_size 100; PASS } location @large { client_max_body_size 50m; PASS }",
    );
    for (path, length, chunked) in [
        ("/none-path", 413, 413),
        ("/none-named", 200, 413),
        ("/less-named", 413, 200),
        // nginx reads these chunks for a page that is a GET, and answers 413.
        ("/denied", 413, 403),
        ("/failed", 413, 413),
        ("/failed-named", 200, 200),
    ] {
        for (framing, expected) in [("length", length), ("chunked", chunked)] {
            let answer = balancer.client().send(&post(path, &framed(framing, 500))).response();
            assert_eq!(answer.status, expected, "{path} {framing}: {}", balancer.errors());
        }
    }
}
