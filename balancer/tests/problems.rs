//! What `deploy/nginx.conf` answers by itself: problems as the replicas make them (RFC 9457), from us and from nginx.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod nginx;

use common::{Balancer, Client, Origin, Response, wait_until};
use nginx::Nginx;
use serde_json::Value;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/nginx.conf");
const OVERLOADED: &str = "{\"type\":\"urn:arena:problem:unavailable\",\"status\":503}";

/// The inside of the file's http block with this origin in place of all replicas, less patience with it, and another log.
fn inside(origin: &Origin, log: &str) -> String {
    let text = std::fs::read_to_string(FILE).unwrap();
    let inside = text.split_once("http {\n").unwrap().1.trim_end().strip_suffix('}').unwrap();
    let lines = inside.lines().map(|line| match line.trim_start().strip_prefix("server web-") {
        Some(rest) => {
            format!("server 127.0.0.1:{} {}", origin.port, rest.split_once(' ').unwrap().1)
        }
        None => line.to_owned(),
    });
    let lines: Vec<String> = lines.collect();
    lines
        .join("\n")
        .replace("access_log /dev/stdout arena", &format!("access_log {log}"))
        .replace("listen 80 default_server backlog=4096", "listen 127.0.0.1:PORT default_server")
        .replace("proxy_read_timeout 60s", "proxy_read_timeout 200ms")
}

/// Answers `/busy` as a replica that is full does, and nothing else.
fn origin() -> Origin {
    Origin::scripted(|served| {
        while let Some(head) = served.read_request() {
            if !head.starts_with("GET /busy ") {
                served.read_to_end();
                return;
            }
            served.send(&format!(
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 7\r\n\
                 X-Request-Id: of-the-replica\r\nContent-Length: {}\r\n\r\n{OVERLOADED}",
                OVERLOADED.len()
            ));
        }
    })
}

/// The request with which this status is provoked, and the problem's `type` and `instance`.
struct Case {
    status: u16,
    request: String,
    kind: &'static str,
    instance: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |status, request: &str, kind, instance| Case {
        status,
        request: request.replace("HOST", "Host: arena\r\nX-Request-Id: abcdefgh-1"),
        kind,
        instance,
    };
    let long = "a".repeat(9000);
    vec![
        case(
            413,
            "POST /api/x?token=t HTTP/1.1\r\nHOST\r\nContent-Length: 2000000\r\n\r\n",
            "too-large",
            "/api/x",
        ),
        case(414, &format!("GET /{long} HTTP/1.1\r\n\r\n"), "bad-request", "/"),
        case(400, "GET /api/users HTTP/1.1\r\n\r\n", "bad-request", "/api/users"),
        case(400, &format!("GET /api/users HTTP/1.1\r\nA: {long}\r\n\r\n"), "bad-request", "/api/users"),
        case(400, "GARBAGE\r\n\r\n", "bad-request", "/"),
        case(404, "GET /problem HTTP/1.1\r\nHOST\r\n\r\n", "not-found", "/problem"),
        case(405, "TRACE /x\"y HTTP/1.1\r\nHOST\r\n\r\n", "method-not-allowed", "/"),
        case(501, "POST /api/x HTTP/1.1\r\nHOST\r\nTransfer-Encoding: new\r\n\r\n", "internal", "/api/x"),
        case(504, "GET /api/slow?token=t HTTP/1.1\r\nHOST\r\n\r\n", "unavailable", "/api/slow"),
    ]
}

fn check(port: u16, case: &Case) {
    let answer = Client::connect(port).send(&case.request).response();
    assert_eq!(answer.status, case.status, "{}\n{answer:?}", case.request);
    let body = problem(&answer);
    assert_eq!(body["type"], format!("urn:arena:problem:{}", case.kind), "{answer:?}");
    assert_eq!(body["instance"], case.instance, "{answer:?}");
    // We look at no header of what we refuse by its first line, such as a TRACE.
    if matches!(case.status, 404 | 413 | 504) {
        assert_eq!(body["request_id"], "abcdefgh-1", "a sane id is taken over: {answer:?}");
    }
    let retry_after = answer.header("retry-after");
    assert_eq!(retry_after, (case.status >= 502).then_some("1"), "{answer:?}");
}

/// Its fields, which must be whole.
fn problem(answer: &Response) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_else(|why| panic!("{why}: {answer:?}"));
    for name in ["type", "title", "detail", "instance", "request_id"] {
        assert!(body[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {answer:?}");
    }
    assert_eq!(body["status"], answer.status, "{answer:?}");
    assert_eq!(answer.header("x-request-id"), body["request_id"].as_str(), "{answer:?}");
    assert!(!answer.body.contains("token"), "what stands in a query is nobody's business: {answer:?}");
    body
}

fn check_all(port: u16, origin: &Origin) {
    for case in cases() {
        check(port, &case);
    }
    let busy = Client::connect(port).get("/busy");
    assert_eq!((busy.status, &busy.body[..]), (503, OVERLOADED), "a replica's own problem stays as it is");
    assert_eq!(busy.header("retry-after"), Some("7"));
    assert_eq!(busy.header("x-request-id"), Some("of-the-replica"));

    let head = Client::connect(port).send("HEAD /problem HTTP/1.1\r\nHost: arena\r\n\r\n").response_to_head();
    assert_eq!((head.status, head.header("content-type")), (404, Some("application/problem+json")));

    check_request_ids(port);
    origin.kill();
    for path in ["/api/users", "/messages/stream/x", "/api/messages/stream/x", "/ws/x", "/health", "/"] {
        let answer = Client::connect(port).get(path);
        assert_eq!(answer.status, 502, "{path}: {answer:?}");
        assert_eq!(problem(&answer)["instance"], path);
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
}

/// The same ids are taken over as in web/src/layers.rs, so that the logs of both name a request alike.
fn check_request_ids(port: u16) {
    let told = |id: &str| {
        let request = format!("GET /problem HTTP/1.1\r\nHost: arena\r\nX-Request-Id: {id}\r\n\r\n");
        let body = problem(&Client::connect(port).send(&request).response());
        body["request_id"].as_str().unwrap().to_owned()
    };
    for id in ["7", "Az09-_.:/+=", "00-4bf92f35/77:b7=+", &"x".repeat(128)] {
        assert_eq!(told(id), id);
    }
    for id in ["a b", "a\"b", "a\\b", "a,b", "a<b>", "a%0ab", "\u{e9}", &"x".repeat(129)] {
        let made = told(id);
        assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}: {made}");
    }
}

#[test]
fn an_error_of_the_balancer_itself_is_a_problem_with_a_request_id() {
    let origin = origin();
    let balancer = Balancer::start(&inside(&origin, "DIR/arena.log arena"));
    check_all(balancer.port, &origin);
    wait_until("the log tells what was asked, not that its answer came from elsewhere", || {
        let log = std::fs::read_to_string(balancer.path("arena.log")).unwrap_or_default();
        ["\"POST /api/x HTTP/1.1\" 413", "\"GET /api/slow HTTP/1.1\" 504", "\"GET /ws/x HTTP/1.1\" 502"]
            .iter()
            .all(|line| log.contains(line))
    });
}

#[test]
fn nginx_answers_the_same_with_the_same_file() {
    let origin = origin();
    // Younger than Debian's nginx, and no matter here.
    let is_known = |line: &&str| !line.trim_start().starts_with("keepalive_min_timeout");
    let inside = inside(&origin, "off").lines().filter(is_known).collect::<Vec<_>>().join("\n");
    let nginx = Nginx::start(&inside);
    check_all(nginx.port, &origin);
}

#[test]
fn answers_of_503_to_one_client_cost_nobody_else_a_replica() {
    let origin = Origin::scripted(|served| {
        while let Some(head) = served.read_request() {
            let (status, body) =
                if head.starts_with("GET /api/busy ") { (503, OVERLOADED) } else { (200, "here") };
            served.send(&format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let balancer = Balancer::start(&inside(&origin, "off"));
    // More than twenty, which would be two for each of ten replicas.
    for _ in 0..60 {
        let refused = balancer.client().get("/api/busy");
        assert_eq!((refused.status, &refused.body[..]), (503, OVERLOADED), "the replica's own word");
    }
    assert_eq!(balancer.client().get("/api/users").body, "here");
}
