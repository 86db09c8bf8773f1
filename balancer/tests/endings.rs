//! How requests end, as the log tells it, and which trace they belong to.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod common;

use std::net::TcpListener;

use common::{Balancer, Client, Origin, wait_until};

/// A balancer whose log has a line `PATH ENDING` for each request.
fn logging(http: &str) -> Balancer {
    Balancer::start(&format!(
        "log_format ends '$uri $balancer_ending'; access_log DIR/ends.log ends; client_header_timeout 300ms;\n{http}"
    ))
}

fn ending_of(balancer: &Balancer, path: &str) -> String {
    let log = balancer.path("ends.log");
    let line = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let found = text.lines().find_map(|line| line.strip_prefix(path)?.strip_prefix(' '));
        found.map(str::to_owned)
    };
    wait_until(&format!("{path} is in the log"), || line().is_some());
    line().unwrap()
}

#[test]
fn a_line_says_by_whom_and_when_a_request_was_ended() {
    let origin = Origin::scripted(|served| {
        let Some(head) = served.read_request() else { return };
        match head.split(' ').nth(1) {
            Some("/whole") => served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            Some("/cut") => served.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok"),
            Some("/stalls") => {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok");
                served.read_to_end();
            }
            Some("/no-head") => {}
            _ => drop(served.read_to_end()),
        }
    });
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let balancer = logging(&format!(
        "upstream g {{ server 127.0.0.1:{0}; }} upstream gone {{ server 127.0.0.1:1; }}\n\
         upstream full {{ server 127.0.0.1:{1} max_conns=1; queue 3 timeout=300ms; }}\n\
         server {{ listen 127.0.0.1:PORT; proxy_read_timeout 300ms; proxy_next_upstream off;\n\
         location / {{ proxy_pass http://g; }} location /waits {{ proxy_read_timeout 1h; proxy_pass http://g; }}\n\
         location /gone {{ proxy_pass http://gone; }} location /own {{ return 204; }}\n\
         location /denied {{ deny all; }} location /big {{ client_max_body_size 1; proxy_pass http://g; }}\n\
         location /held {{ proxy_read_timeout 1h; proxy_pass http://full; }} location /queued {{ proxy_pass http://full; }} }}",
        origin.port,
        silent.local_addr().unwrap().port(),
    ));
    for (path, status, ending) in [
        ("/whole", 200, "--"),
        ("/own", 204, "LR"),
        ("/denied", 403, "PR"),
        ("/gone", 502, "SC"),
        ("/no-head", 502, "SH"),
        ("/silent", 504, "sH"),
    ] {
        assert_eq!(balancer.client().get(path).status, status, "{path}");
        assert_eq!(ending_of(&balancer, path), ending, "{path}");
    }
    for (path, ending) in [("/cut", "SD"), ("/stalls", "sD")] {
        let mut client = balancer.client();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).rest();
        assert_eq!(ending_of(&balancer, path), ending, "{path}");
    }
    let mut client = balancer.client();
    assert_eq!(
        client.send("POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab").response().status,
        413
    );
    assert_eq!(ending_of(&balancer, "/big"), "PR");

    let mut leaver = balancer.client();
    leaver.send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_until("the origin is asked", || origin.seen().iter().any(|head| head.contains("/waits")));
    drop(leaver);
    assert_eq!(ending_of(&balancer, "/waits"), "CH");

    let mut held = balancer.client();
    held.send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n");
    let (_asked, _) = silent.accept().unwrap();
    assert_eq!(balancer.client().get("/queued").status, 502);
    assert_eq!(ending_of(&balancer, "/queued"), "sQ");
}

#[test]
fn a_client_that_is_too_slow_with_its_head_is_told_apart() {
    let balancer = logging("server { listen 127.0.0.1:PORT; location / { return 200; } }");
    let mut slow = balancer.client();
    slow.send("GET /slow HTTP/1.1\r\n").rest();
    let log = balancer.path("ends.log");
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("the line is there", || text().ends_with('\n'));
    assert!(text().ends_with(" cR\n"), "{}", text());
}

#[test]
fn a_trace_goes_on_where_it_is_sound_and_begins_here_elsewhere() {
    let origin = Origin::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let balancer = Balancer::before(
        &[&origin],
        "proxy_set_header traceparent $balancer_traceparent; add_header X-Id $request_id;",
    );
    const SOUND: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let ask = |headers: &str| {
        let mut client: Client = balancer.client();
        let answer = client.send(&format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).response();
        let head = origin.seen().pop().unwrap();
        let traces: Vec<String> =
            head.lines().filter_map(|line| line.strip_prefix("traceparent: ").map(str::to_owned)).collect();
        assert_eq!(traces.len(), 1, "{head}");
        (traces[0].clone(), answer.header("x-id").unwrap().to_owned())
    };
    assert_eq!(ask(&format!("Traceparent: {SOUND}\r\n")).0, SOUND);
    for unsound in
        [String::new(), "traceparent: 00-0-0-0\r\n".into(), format!("traceparent: {SOUND}\r\n").repeat(2)]
    {
        let (trace, id) = ask(&unsound);
        assert_eq!(trace, format!("00-{id}-{}-00", &id[16..]), "{unsound}");
    }
}
