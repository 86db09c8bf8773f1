//! Active health checks, through the binary: whom they name, several of one group, and changes of servers meanwhile.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod h2_server;
mod keys;
mod nginx;

use std::collections::BTreeSet;
use std::sync::mpsc;

use bytes::Bytes;
use common::{Balancer, Client, Origin, wait_until};
use h2_server::h2_server;
use http::{HeaderMap, Request, Response};
use keys::Keys;
use nginx::Nginx;
use serde_json::{Value, json};

const API: &str = "location /api { api write=on; }";

fn call(client: &mut Client, method: &str, path: &str, body: &str) -> Value {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    serde_json::from_str(&client.send(&request).response().body).unwrap()
}

/// What the API says of the first server of a group.
fn peer(balancer: &Balancer, group: &str) -> Value {
    call(&mut balancer.client(), "GET", &format!("/api/9/http/upstreams/{group}"), "")["peers"][0].clone()
}

#[test]
fn a_check_names_whom_proxy_ssl_name_says_and_else_the_group_without_a_port() {
    let keys = Keys::new();
    keys.own("ca", "rsa");
    keys.signed("origin.test", "ca");
    let origin = Nginx::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; {}\n\
         location / {{ if ($ssl_server_name != origin.test) {{ return 500; }} return 200 ok; }} }}",
        keys.shown("origin.test")
    ));
    let trust = format!(
        "proxy_ssl_verify on; proxy_ssl_server_name on; proxy_ssl_trusted_certificate {};",
        keys.path("ca.crt")
    );
    let balancer = Balancer::start(&format!(
        "upstream named {{ zone named; server 127.0.0.1:{0}; }}\n\
         upstream origin.test:8443 {{ zone ported; server 127.0.0.1:{0}; }}\n\
         upstream other {{ zone other; server 127.0.0.1:{0}; }}\n\
         server {{ listen 127.0.0.1:PORT; {API} {trust}\n\
         location /a {{ proxy_pass https://named; proxy_ssl_name origin.test:443; health_check interval=20ms; }}\n\
         location /b {{ proxy_pass https://origin.test:8443; proxy_set_header Host else.test; health_check interval=20ms; }}\n\
         location /c {{ proxy_pass https://other; health_check interval=20ms; }} }}",
        origin.port
    ));
    for (group, state) in [("named", "up"), ("origin.test:8443", "up"), ("other", "unhealthy")] {
        wait_until("two checks are over", || {
            peer(&balancer, group)["health_checks"]["checks"].as_u64().unwrap() >= 2
        });
        assert_eq!(peer(&balancer, group)["state"], json!(state), "{group}: {}", balancer.errors());
    }
}

#[test]
fn a_server_that_fails_one_of_two_checks_stays_out_whatever_the_other_finds() {
    let origin = Origin::scripted(|served| {
        while let Some(head) = served.read_request() {
            let status = if head.starts_with("GET /bad ") { "500 No" } else { "200 OK" };
            served.send(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let balancer = Balancer::start(&format!(
        "upstream g {{ zone g; server 127.0.0.1:{}; }}\n\
         server {{ listen 127.0.0.1:PORT; {API}\n\
         location / {{ proxy_pass http://g; health_check interval=10ms uri=/good; }}\n\
         location /b {{ proxy_pass http://g; health_check interval=10ms uri=/bad; }} }}",
        origin.port
    ));
    let checks = || peer(&balancer, "g")["health_checks"].clone();
    wait_until("each has been checked often", || checks()["fails"].as_u64().unwrap() >= 10);
    let checks = checks();
    assert!(checks["checks"].as_u64() > checks["fails"].as_u64(), "{checks}");
    assert_eq!(checks["unhealthy"], json!(1), "{checks}");
    assert_eq!(peer(&balancer, "g")["state"], json!("unhealthy"));
}

#[test]
fn checks_go_on_at_their_pace_however_often_servers_change() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let balancer = Balancer::start(&format!(
        "upstream g {{ zone g; server 127.0.0.1:{}; }}\n\
         server {{ listen 127.0.0.1:PORT; {API} location / {{ proxy_pass http://g; health_check interval=300ms; }} }}",
        origin.port
    ));
    let change = |weight: u64| {
        let body = format!("{{\"weight\": {weight}}}");
        call(&mut balancer.client(), "PATCH", "/api/9/http/upstreams/g/servers/0", &body)
    };
    // Each change comes long before the next check is due.
    wait_until("checks came while servers changed", || {
        (1..=5).for_each(|weight| drop(change(weight)));
        origin.seen().len() >= 3
    });
    assert!(peer(&balancer, "g")["health_checks"]["checks"].as_u64().unwrap() >= 2);
}

#[test]
fn a_server_that_is_added_waits_for_its_mandatory_check_from_the_first_moment() {
    let origin = Origin::scripted(|served| {
        while let Some(head) = served.read_request() {
            // A check gets no answer.
            if !head.starts_with("GET /health ") {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    });
    let balancer = Balancer::start(&format!(
        "upstream g {{ zone g; state DIR/g.state; }}\n\
         server {{ listen 127.0.0.1:PORT; {API} location / {{ proxy_pass http://g; proxy_next_upstream off;\n\
         health_check mandatory uri=/health interval=1h; }} }}"
    ));
    let (mut adding, mut asking) = (balancer.client(), balancer.client());
    let servers = "/api/9/http/upstreams/g/servers";
    for _ in 0..30 {
        let body = format!("{{\"server\": \"127.0.0.1:{}\"}}", origin.port);
        let request =
            format!("POST {servers} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        adding.send(&request);
        (0..3).for_each(|_| assert_eq!(asking.get("/").status, 502));
        let added: Value = serde_json::from_str(&adding.response().body).unwrap();
        let id = &added["id"];
        assert_eq!(asking.get("/").status, 502);
        call(&mut adding, "DELETE", &format!("{servers}/{id}"), "");
    }
}

/// The state of each group, once it has been checked twice.
fn states(balancer: &Balancer, groups: &[&str]) -> Vec<String> {
    let state = |group: &&str| {
        wait_until("two checks are over", || {
            peer(balancer, group)["health_checks"]["checks"].as_u64().unwrap() >= 2
        });
        peer(balancer, group)["state"].as_str().unwrap().to_owned()
    };
    groups.iter().map(state).collect()
}

#[test]
fn servers_of_http2_are_checked_in_it() {
    let origin = Nginx::start(
        "server { listen 127.0.0.1:PORT http2; location / { return 200 ok; }\n\
         location /ill { return 200 ill; } }",
    );
    let group = |name: &str| format!("upstream {name} {{ zone {name}; server 127.0.0.1:{}; }}", origin.port);
    let balancer = Balancer::start(&format!(
        "match good {{ status 200; body ~ \"^ok$\"; }} {} {} {}\n\
         server {{ listen 127.0.0.1:PORT; {API}\n\
         location /a {{ proxy_pass http://a; proxy_http_version 2; health_check interval=20ms match=good; }}\n\
         location /b {{ grpc_pass b; health_check interval=20ms match=good; }}\n\
         location /c {{ grpc_pass c; health_check interval=20ms match=good uri=/ill; }} }}",
        group("a"),
        group("b"),
        group("c")
    ));
    assert_eq!(states(&balancer, &["a", "b", "c"]), ["up", "up", "unhealthy"], "{}", balancer.errors());
}

/// Tells who asked about what.
type Asked = (String, Vec<u8>);

/// The health service of a gRPC server: `ill` does not serve, and `old` has no such service.
async fn answer_check(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    tell: mpsc::Sender<Asked>,
) {
    let (parts, mut body) = request.into_parts();
    let mut message = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        message.extend_from_slice(&data);
    }
    let head = Response::builder().header("content-type", "application/grpc");
    if message.ends_with(b"old") {
        respond.send_response(head.header("grpc-status", "12").body(()).unwrap(), true).unwrap();
    } else {
        let status = if message.ends_with(b"ill") { 2 } else { 1 };
        let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
        stream.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 0x08, status]), false).unwrap();
        stream
            .send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]))
            .unwrap();
    }
    let _ = tell.send((format!("{} {}", parts.method, parts.uri.path()), message));
}

#[test]
fn a_grpc_server_is_asked_whether_it_serves() {
    let (port, told) = h2_server(answer_check);
    let cases = [
        ("whole", "", "up"),
        ("named", "grpc_service=a.B", "up"),
        ("ill", "grpc_service=ill", "unhealthy"),
        ("old", "grpc_service=old", "unhealthy"),
        ("other", "grpc_service=old grpc_status=12", "up"),
    ];
    let groups: String = cases
        .iter()
        .map(|(name, ..)| format!("upstream {name} {{ zone {name}; server 127.0.0.1:{port}; }}\n"))
        .collect();
    let locations: String = cases
        .iter()
        .map(|(name, more, _)| {
            format!("location /{name} {{ grpc_pass {name}; health_check interval=20ms type=grpc {more}; }}\n")
        })
        .collect();
    let balancer =
        Balancer::start(&format!("{groups} server {{ listen 127.0.0.1:PORT; {API} {locations} }}"));
    assert_eq!(
        states(&balancer, &cases.map(|(name, ..)| name)),
        cases.map(|(.., state)| state),
        "{}",
        balancer.errors()
    );
    let asked: BTreeSet<Asked> = told.try_iter().collect();
    let message = |name: &str| {
        let field =
            if name.is_empty() { Vec::new() } else { [&[0x0a, name.len() as u8], name.as_bytes()].concat() };
        [&[0, 0, 0, 0, field.len() as u8], &field[..]].concat()
    };
    let check = |name| ("POST /grpc.health.v1.Health/Check".to_owned(), message(name));
    assert_eq!(asked, BTreeSet::from(["", "a.B", "ill", "old"].map(check)));
}
