//! Who may come in: limits of rates and numbers, addresses, passwords, and another location's word.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::sync::Mutex;
use std::sync::mpsc;

use base64::Engine as _;
use common::{Balancer, Origin};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn with_password(balancer: &Balancer, path: &str, pair: &str) -> u16 {
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {encoded}\r\n\r\n");
    balancer.client().send(&request).response().status
}

#[test]
fn requests_beyond_the_rate_are_refused_for_that_key_alone_and_a_reload_goes_on_counting() {
    let balancer = Balancer::start(
        "limit_req_zone $arg_key zone=one:1m rate=1r/m;\n\
         server { listen 127.0.0.1:PORT; location = /free { return 200; }\n\
         location / { limit_req zone=one; limit_req_status 429; proxy_pass http://127.0.0.1:PORT/free; } }",
    );
    assert_eq!(balancer.client().get("/?key=a").status, 200);
    assert_eq!(balancer.client().get("/?key=a").status, 429);
    assert_eq!(balancer.client().get("/?key=b").status, 200);
    assert_eq!(balancer.client().get("/?other").status, 200);
    balancer.reload();
    assert_eq!(balancer.client().get("/?key=a").status, 429);
    assert!(balancer.errors().contains("limiting requests, excess: "), "{}", balancer.errors());
    assert!(balancer.errors().contains(" by zone \"one\", client: 127.0.0.1"), "{}", balancer.errors());
}

#[test]
fn a_burst_waits_for_its_turn() {
    let balancer = Balancer::start(
        "limit_req_zone $server_addr zone=one:1m rate=4r/s;\n\
         server { listen 127.0.0.1:PORT; location = /free { return 200; }\n\
         location / { limit_req zone=one burst=1; proxy_pass http://127.0.0.1:PORT/free; } }",
    );
    let start = std::time::Instant::now();
    assert_eq!([0, 1].map(|_| balancer.client().get("/").status), [200, 200]);
    assert!(start.elapsed().as_millis() >= 240, "{:?}", start.elapsed());
}

#[test]
fn no_more_requests_at_once_than_the_limit_and_a_place_is_free_again_after_the_answer() {
    let (entered, seen) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (entered, released) = (Mutex::new(entered), Mutex::new(released));
    let origin = Origin::scripted(move |served| {
        while served.read_request().is_some() {
            entered.lock().unwrap().send(()).unwrap();
            let _ = released.lock().unwrap().recv();
            served.send(OK);
        }
    });
    let balancer = Balancer::start(&format!(
        "limit_conn_zone $server_addr zone=all:1m;\n\
         server {{ listen 127.0.0.1:PORT; location / {{ limit_conn all 1; proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port
    ));
    let mut first = balancer.client();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    seen.recv().unwrap();
    assert_eq!(balancer.client().get("/").status, 503);
    release.send(()).unwrap();
    assert_eq!(first.response().status, 200);
    release.send(()).unwrap();
    assert_eq!(balancer.client().get("/").status, 200);
}

#[test]
fn a_dry_run_refuses_nothing_and_says_what_it_would_have_done() {
    let balancer = Balancer::start(
        "limit_req_zone $server_addr zone=one:1m rate=1r/m;\n\
         server { listen 127.0.0.1:PORT; limit_req_dry_run on; add_header X-Said $limit_req_status always;\n\
         location / { limit_req zone=one; } }",
    );
    assert_eq!(balancer.client().get("/").header("x-said"), Some("PASSED"));
    let second = balancer.client().get("/");
    assert_eq!((second.status, second.header("x-said")), (404, Some("REJECTED_DRY_RUN")));
}

#[test]
fn a_password_opens_and_a_wrong_one_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("htpasswd");
    std::fs::write(&file, "ann:{PLAIN}secret\nbob:$apr1$salt$Xxd1irWT9ycqoYxGFn4cb.\n").unwrap();
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; location = /free {{ return 200; }}\n\
         location / {{ auth_basic \"the vault\"; auth_basic_user_file {}; proxy_pass http://127.0.0.1:PORT/free;\n\
         location /open {{ auth_basic off; proxy_pass http://127.0.0.1:PORT/free; }} }} }}",
        file.display()
    ));
    let refused = balancer.client().get("/");
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"the vault\""));
    assert_eq!(with_password(&balancer, "/", "ann:secret"), 200);
    assert_eq!(with_password(&balancer, "/", "bob:password"), 200);
    for wrong in ["ann:password", "ann:", "carl:secret", ":secret", "ann"] {
        assert_eq!(with_password(&balancer, "/", wrong), 401, "{wrong}");
    }
    assert_eq!(balancer.client().get("/open").status, 200);
}

#[test]
fn another_location_says_whether_a_request_may_come_in() {
    let word = Origin::scripted(|served| {
        while let Some(head) = served.read_request() {
            let answer = if head.contains("X-Token: good") {
                "HTTP/1.1 204 No Content\r\nX-User: ann\r\n\r\n"
            } else {
                "HTTP/1.1 401 No\r\nWWW-Authenticate: Token\r\nContent-Length: 2\r\n\r\nno"
            };
            served.send(answer);
        }
    });
    let origin = Origin::answering(OK);
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT;\n\
         location / {{ auth_request /word; auth_request_set $user $upstream_http_x_user;\n\
         proxy_set_header X-User $user; proxy_pass http://127.0.0.1:{}; }}\n\
         location = /word {{ internal; proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port, word.port
    ));
    let request = |token: &str| {
        let text =
            format!("POST /x HTTP/1.1\r\nHost: a\r\nX-Token: {token}\r\nContent-Length: 4\r\n\r\nbody");
        balancer.client().send(&text).response()
    };
    assert_eq!(request("good").status, 200);
    let refused = request("bad");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Token")));
    assert!(origin.seen()[0].contains("X-User: ann") && origin.seen().len() == 1, "{:?}", origin.seen());
    let asked = &word.seen()[0];
    assert!(asked.starts_with("GET /word HTTP/1.1") && !asked.contains("Content-Length"), "{asked}");
}

#[test]
fn satisfy_any_takes_the_first_check_that_passes() {
    let balancer = Balancer::start(
        "server { listen 127.0.0.1:PORT; location = /yes { return 204; } location = /no { return 403; }\n\
         location /any { satisfy any; deny all; auth_request /yes; }\n\
         location /all { satisfy all; allow all; auth_request /no; }\n\
         location /none { satisfy any; deny all; auth_request /no; } }",
    );
    assert_eq!(balancer.client().get("/any").status, 404);
    assert_eq!(balancer.client().get("/all").status, 403);
    assert_eq!(balancer.client().get("/none").status, 403);
}

#[test]
fn limit_except_holds_for_the_other_methods() {
    let balancer =
        Balancer::start("server { listen 127.0.0.1:PORT; location / { limit_except GET { deny all; } } }");
    let status = |method: &str| {
        balancer
            .client()
            .send(&format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"))
            .response()
    };
    assert_eq!((status("GET").status, status("PUT").status), (404, 403));
}

#[test]
fn errors_go_to_the_log_of_their_block() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.log");
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; location / {{ deny all; }}\n\
         location /own {{ error_log {}; deny all; }} }}",
        own.display()
    ));
    balancer.client().get("/");
    balancer.client().get("/own");
    let own = std::fs::read_to_string(own).unwrap();
    assert!(own.contains("access forbidden by rule") && own.contains("GET /own"), "{own}");
    assert!(balancer.errors().contains("GET / ") && !balancer.errors().contains("GET /own"));
}

#[test]
fn a_body_that_comes_while_another_location_is_asked_is_not_lost() {
    let (entered, asked) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (entered, released) = (Mutex::new(entered), Mutex::new(released));
    let word = Origin::scripted(move |served| {
        while served.read_request().is_some() {
            entered.lock().unwrap().send(()).unwrap();
            let _ = released.lock().unwrap().recv();
            served.send("HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    let origin = Origin::scripted(|served| {
        while let Some((_, body)) = served.read_request_with_body() {
            served.send(&format!("HTTP/1.1 200 OK\r\nX-Len: {}\r\nContent-Length: 0\r\n\r\n", body.len()));
        }
    });
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; location / {{ auth_request /word; proxy_pass http://127.0.0.1:{}; }}\n\
         location = /word {{ internal; proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port, word.port
    ));
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nfirst");
    asked.recv().unwrap();
    client.send("last");
    // The answer follows the body: it is read from the socket while the word is awaited, or after it.
    release.send(()).unwrap();
    assert_eq!(client.response().header("x-len"), Some("9"));
}

#[test]
fn limit_except_leaves_the_api_in_its_place() {
    let balancer = Balancer::start(
        "server { listen 127.0.0.1:PORT; location /api { limit_except GET { allow all; } api write=on; }\n\
         location /status { limit_except POST { allow all; } stub_status; }\n\
         location /live { limit_except POST { allow all; } dashboard /api; } }",
    );
    let request = "DELETE /api/9/http/upstreams/none/servers/0 HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = balancer.client().send(request).response();
    assert!(answer.body.contains("UpstreamNotFound"), "{}", answer.body);
    assert!(balancer.client().get("/status").body.contains("Active connections"));
    assert_eq!(balancer.client().get("/live").status, 200);
}
