//! What the log, the API and the metrics say of each server that was tried: of nginx's variables, what a real nginx says of
//! the same requests to the same origins.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod nginx;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use common::{Balancer, Client, Origin, wait_until};
use nginx::Nginx;
use regex::Regex;
use serde_json::{Value, json};

const WHOLE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
const BAD_LINE: &str = "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello!";

/// Does what the path's end says, once on each connection.
fn origin() -> Origin {
    Origin::scripted(|served| {
        let Some(head) = served.read_request() else { return };
        let target = head.split(' ').nth(1).unwrap();
        let path = target.split('?').next().unwrap();
        match path.rsplit('/').next().unwrap() {
            "whole" if head.starts_with("HEAD") => served.send(WHOLE.trim_end_matches("hello")),
            "whole" => served.send(WHOLE),
            "chunked" => served.send(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5;x=y\r\nhello\r\n00\r\nX-Sum: 1\r\n\r\n",
            ),
            "until-close" => served.send("HTTP/1.1 200 OK\r\n\r\nhello"),
            "busy" => served.send(
                "HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbusy",
            ),
            "missing" => served.send(
                "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnone",
            ),
            "bad-line" => served.send(BAD_LINE),
            "cut" => served.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhello"),
            "accel" => served.send(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Accel-Redirect: /whole\r\nContent-Length: 2\r\n\r\nok",
            ),
            "switch" => {
                served.send(SWITCHED);
                served.read_exactly(&mut [0; 4]);
            }
            "half-head" => {
                served.send("HTTP/1.1 200 OK\r\nX-Half: 1\r\n");
                served.read_to_end();
            }
            "silent" | "held" => drop(served.read_to_end()),
            "closed" => {}
            other => panic!("{other}"),
        }
    })
}

/// Bound and not listening: nobody else gets this port, and nobody answers there.
fn refusing() -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

fn http_block((first, second, dead): (u16, u16, u16), log: &Path) -> String {
    format!(
        "log_format facts '$request_uri|$status|$upstream_addr|$upstream_status|$upstream_connect_time|$upstream_header_time|\
         $upstream_response_time|$upstream_bytes_received|$upstream_bytes_sent|$upstream_response_length';\n\
         upstream one {{ server 127.0.0.1:{first} max_fails=0; }} upstream gone {{ server 127.0.0.1:{dead} max_fails=0; }}\n\
         upstream two {{ server 127.0.0.1:{first} max_fails=0 weight=100; server 127.0.0.1:{second} max_fails=0; }}\n\
         upstream dead_first {{ server 127.0.0.1:{dead} max_fails=0 weight=100; server 127.0.0.1:{first} max_fails=0; }}\n\
         upstream none {{ server 127.0.0.1:{first} down; server 127.0.0.1:{second} down; }}\n\
         server {{ listen 127.0.0.1:PORT; access_log {log} facts; proxy_http_version 1.1; proxy_set_header Connection close;\n\
         proxy_read_timeout 300ms; proxy_next_upstream error timeout http_503;\n\
         location / {{ proxy_pass http://one; }} location /two/ {{ proxy_pass http://two; }}\n\
         location /dead-first/ {{ proxy_pass http://dead_first; }} location /gone {{ proxy_pass http://gone; }}\n\
         location /none {{ proxy_pass http://none; }} location /held {{ proxy_read_timeout 1h; proxy_pass http://one; }}\n\
         location /unbuffered/ {{ proxy_buffering off; proxy_pass http://one; }}\n\
         location /paged {{ error_page 502 = /whole; proxy_pass http://gone; }}\n\
         location /read-first/ {{ error_page 404 = /two/busy; proxy_intercept_errors on; proxy_pass http://one; }}\n\
         location /lost {{ error_page 502 = @lost; proxy_pass http://gone; }}\n\
         location @lost {{ set $name no.test; proxy_pass http://$name; }}\n\
         location /switch {{ proxy_set_header Connection upgrade; proxy_set_header Upgrade websocket; proxy_pass http://one; }} }}",
        log = log.display()
    )
}

const REQUESTS: &[&str] = &[
    "GET /whole",
    "GET /chunked",
    "GET /until-close",
    "GET /unbuffered/chunked",
    "HEAD /whole?head",
    "POST /whole?post",
    "GET /missing",
    "GET /silent",
    "GET /half-head",
    "GET /closed",
    "GET /bad-line",
    "GET /cut",
    "GET /gone",
    "GET /none",
    "GET /two/busy",
    "GET /two/closed",
    "GET /two/silent",
    "GET /two/bad-line",
    "GET /dead-first/whole",
    "GET /dead-first/missing",
    "GET /dead-first/silent",
    "GET /accel",
    "GET /paged",
    "GET /read-first/missing",
    "GET /lost",
];

/// Sends each request over a connection of its own, and tells what the log says of it: times only as `t`.
fn told(port: u16, log: &Path, asked: &Origin) -> BTreeMap<String, String> {
    for request in REQUESTS {
        let body = if request.starts_with("POST") { "Content-Length: 5\r\n\r\n12345" } else { "\r\n" };
        let text = format!("{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{body}");
        Client::connect(port).send(&text).rest();
    }
    let mut talker = Client::connect(port);
    talker.send("GET /switch HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(talker.head().unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(talker.bytes(6), b"hello!");
    talker.send("ping").rest();
    let held = || asked.seen().iter().filter(|head| head.starts_with("GET /held ")).count();
    let before = held();
    let mut leaver = Client::connect(port);
    leaver.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the origin is asked", || held() > before);
    drop(leaver);
    let text = || std::fs::read_to_string(log).unwrap_or_default();
    wait_until("each request is in the log", || text().matches('\n').count() == REQUESTS.len() + 2);
    let time = Regex::new(r"\b\d+\.\d{3}\b").unwrap();
    let lines = text();
    let pairs = lines.lines().map(|line| line.split_once('|').unwrap());
    pairs.map(|(uri, facts)| (uri.to_owned(), time.replace_all(facts, "t").into_owned())).collect()
}

#[test]
fn each_server_that_was_tried_is_told_of_as_nginx_tells_of_it() {
    let origins = [origin(), origin()];
    let (_held, dead) = refusing();
    let ports = (origins[0].port, origins[1].port, dead);
    let logs = tempfile::tempdir().unwrap();
    let (theirs, ours) = (logs.path().join("theirs"), logs.path().join("ours"));
    let nginx = Nginx::start(&http_block(ports, &theirs));
    let balancer = Balancer::start(&http_block(ports, &ours));
    let theirs = told(nginx.port, &theirs, &origins[0]);
    let ours = told(balancer.port, &ours, &origins[0]);
    assert_eq!(theirs.len(), REQUESTS.len() + 2);
    let differing: Vec<String> = theirs
        .iter()
        .filter(|(uri, facts)| ours.get(*uri) != Some(facts))
        .map(|(uri, facts)| format!("{uri}\n  nginx {facts}\n  ours  {}", ours[uri]))
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    // What the comparison stands on, whichever nginx it was.
    let status = |uri: &str| ours[uri].split('|').nth(2).unwrap().to_owned();
    let statuses =
        ["/silent", "/bad-line", "/held", "/two/busy", "/dead-first/whole", "/accel", "/lost"].map(status);
    assert_eq!(statuses, ["504", "502", "-", "503, 503", "502, 200", "200 : 200", "502 : "]);
}

#[test]
fn only_an_answer_that_could_be_used_is_counted_as_one() {
    let origin = origin();
    let ops = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let balancer = Balancer::start_with(
        &format!("ops_listen {ops};"),
        &format!(
            "upstream g {{ zone g; server 127.0.0.1:{} max_fails=0; }}\n\
             server {{ listen 127.0.0.1:PORT; location /api/ {{ api; }}\n\
             location / {{ proxy_read_timeout 300ms; proxy_pass http://g; }} }}",
            origin.port
        ),
    );
    for (path, status) in [("/bad-line", 502), ("/silent", 504), ("/half-head", 504), ("/missing", 404)] {
        assert_eq!(balancer.client().get(path).status, status, "{path}");
    }
    let state = balancer.client().get("/api/9/http/upstreams/g").body;
    let peer = serde_json::from_str::<Value>(&state).unwrap()["peers"][0].clone();
    assert_eq!((&peer["requests"], &peer["responses"]["codes"]), (&json!(4), &json!({"404": 1})), "{peer}");
    assert_eq!(peer["responses"]["total"], 1, "{peer}");
    let metrics = Client::connect(ops.port()).get("/metrics").body;
    for (class, count) in [("none", 3), ("2xx", 0), ("4xx", 1), ("5xx", 0)] {
        let line = format!(
            "balancer_upstream_responses_total{{upstream=\"g\",server=\"127.0.0.1:{}\",status=\"{class}\"}} {count}",
            origin.port
        );
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn an_answer_has_its_head_once_the_final_one_has_come() {
    let origin = Origin::scripted(|served| {
        served.read_request();
        served.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        served.read_to_end();
    });
    let balancer = Balancer::start(&format!(
        "log_format head '$upstream_status $upstream_header_time $balancer_ending';\n\
         server {{ listen 127.0.0.1:PORT; access_log DIR/head.log head;\n\
         location / {{ proxy_read_timeout 300ms; proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port
    ));
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 103"));
    assert_eq!(client.response().status, 504);
    let text = || std::fs::read_to_string(balancer.path("head.log")).unwrap_or_default();
    wait_until("it is in the log", || text().ends_with('\n'));
    assert_eq!(text(), "504 - sH\n");
}
