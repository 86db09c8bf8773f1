//! How requests end, as the log tells it, and which trace they belong to.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod common;
mod frames;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::{Balancer, Client, Origin, PATIENCE, wait_until};
use frames::{END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, SETTINGS, block};

const CANCEL: [u8; 4] = 8u32.to_be_bytes();

/// A balancer whose log has a line `PATH ENDING` for each request.
fn logging(http: &str) -> Balancer {
    logging_with("", http)
}

/// The same with directives of the main context.
fn logging_with(main: &str, http: &str) -> Balancer {
    Balancer::start_with(
        &format!("worker_processes 1; {main}"),
        &format!(
            "log_format ends '$uri $balancer_ending'; access_log DIR/ends.log ends; client_header_timeout 300ms;\n{http}"
        ),
    )
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
fn a_refusal_without_an_answer_is_no_clients_doing() {
    let balancer = logging("server { listen 127.0.0.1:PORT; location / { return 444; } }");
    balancer.client().send("GET /unheard HTTP/1.1\r\nHost: x\r\n\r\n").rest();
    assert_eq!(ending_of(&balancer, "/unheard"), "PR");
}

/// A tunnel through the balancer, by its path, and its other end.
struct Tunnel {
    client: Client,
    upstream: TcpStream,
}

impl Tunnel {
    fn open(balancer: &Balancer, path: &str, listener: &TcpListener) -> Tunnel {
        let mut client = balancer.client();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"));
        let (mut upstream, _) = listener.accept().unwrap();
        upstream.set_read_timeout(Some(PATIENCE)).unwrap();
        upstream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            upstream.read_exact(&mut byte).unwrap();
            asked.push(byte[0]);
        }
        let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        upstream.write_all(switched.as_bytes()).unwrap();
        assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
        Tunnel { client, upstream }
    }
}

/// Ends the connection with a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn tunneling(main: &str, location: &str, listener: &TcpListener) -> Balancer {
    logging_with(
        main,
        &format!(
            "server {{ listen 127.0.0.1:PORT; proxy_set_header Connection upgrade; proxy_set_header Upgrade x;\n\
             location / {{ proxy_pass http://127.0.0.1:{}; {location} }} }}",
            listener.local_addr().unwrap().port()
        ),
    )
}

#[test]
fn a_tunnel_is_ended_by_who_breaks_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let balancer = tunneling("", "send_timeout 300ms; proxy_read_timeout 1h;", &listener);

    let whole = Tunnel::open(&balancer, "/whole", &listener);
    drop(whole.upstream);
    assert_eq!(ending_of(&balancer, "/whole"), "--");

    let broken = Tunnel::open(&balancer, "/upstream", &listener);
    reset(broken.upstream);
    assert_eq!(ending_of(&balancer, "/upstream"), "SD");
    assert!(balancer.errors().contains("while proxying upgraded connection"), "{}", balancer.errors());

    let left = Tunnel::open(&balancer, "/client", &listener);
    reset(left.client.stream);
    assert_eq!(ending_of(&balancer, "/client"), "CD");

    // Nobody reads it: at some point the kernels take no more, and `send_timeout` runs.
    let mut deaf = Tunnel::open(&balancer, "/deaf", &listener);
    let piece = vec![b'x'; 1 << 20];
    while deaf.upstream.write_all(&piece).is_ok() {}
    assert_eq!(ending_of(&balancer, "/deaf"), "cD");
}

#[test]
fn a_tunnel_on_which_nothing_moves_is_ended_for_its_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let balancer = tunneling("", "send_timeout 1h; proxy_read_timeout 300ms;", &listener);
    let _idle = Tunnel::open(&balancer, "/idle", &listener);
    assert_eq!(ending_of(&balancer, "/idle"), "sD");
}

#[test]
fn what_our_own_end_cuts_is_told_as_that() {
    let silent = Origin::scripted(|served| {
        served.read_request();
        served.read_to_end();
    });
    for (order, main) in [("stop", ""), ("quit", "worker_shutdown_timeout 100ms;")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Behind the location of the tunnel, another.
        let location = format!("}} location /held {{ proxy_pass http://127.0.0.1:{};", silent.port);
        let balancer = tunneling(main, &location, &listener);
        let _open = Tunnel::open(&balancer, "/tunnel", &listener);
        let mut held = balancer.client();
        let asked = || silent.seen().iter().filter(|head| head.contains("/held")).count();
        let before = asked();
        held.send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_until("the origin is asked", || asked() > before);
        balancer.signal(order);
        assert_eq!(ending_of(&balancer, "/tunnel"), "KD", "{order}");
        assert_eq!(ending_of(&balancer, "/held"), "KH", "{order}");
    }
}

#[test]
fn what_a_reload_bounds_and_cuts_is_told_as_that() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let balancer = tunneling("worker_shutdown_timeout 100ms;", "proxy_read_timeout 1h;", &listener);
    let _open = Tunnel::open(&balancer, "/tunnel", &listener);
    balancer.signal_reload();
    assert_eq!(ending_of(&balancer, "/tunnel"), "KD");
}

/// A client of HTTP/2 that has asked for this path on stream 1.
fn ask(balancer: &Balancer, path: &str) -> Frames {
    let mut client = Frames::connect(balancer.port);
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "x")];
    assert!(client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields)));
    client
}

#[test]
fn streams_of_http2_are_told_apart_like_connections() {
    let origin = Origin::scripted(|served| {
        let Some(head) = served.read_request() else { return };
        match head.split(' ').nth(1).unwrap() {
            "/whole" => served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            "/cut" => served.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok"),
            "/begun" => {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok");
                served.read_to_end();
            }
            "/shut" => served
                .send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000))),
            _ => drop(served.read_to_end()),
        }
    });
    let balancer = logging(&format!(
        "server {{ listen 127.0.0.1:PORT; http2 on; proxy_next_upstream off; send_timeout 300ms;\n\
         location / {{ proxy_read_timeout 1h; proxy_pass http://127.0.0.1:{0}; }}\n\
         location /late {{ proxy_read_timeout 300ms; proxy_pass http://127.0.0.1:{0}; }} }}",
        origin.port
    ));
    let asked = |path: &str| origin.seen().iter().any(|head| head.contains(path));

    let mut whole = ask(&balancer, "/whole");
    assert!(std::iter::from_fn(|| whole.next()).any(|frame| frame.ends_stream()));
    assert_eq!(ending_of(&balancer, "/whole"), "--");
    for (path, ending) in [("/cut", "SD"), ("/late", "sH")] {
        let _client = ask(&balancer, path);
        assert_eq!(ending_of(&balancer, path), ending);
    }

    let mut fickle = ask(&balancer, "/reset");
    wait_until("the origin is asked", || asked("/reset"));
    fickle.send(RST_STREAM, 0, 1, &CANCEL);
    assert_eq!(ending_of(&balancer, "/reset"), "CH");
    let leaver = ask(&balancer, "/left");
    wait_until("the origin is asked", || asked("/left"));
    drop(leaver);
    assert_eq!(ending_of(&balancer, "/left"), "CH");
    let mut begun = ask(&balancer, "/begun");
    assert_eq!(begun.first(HEADERS).unwrap().stream, 1);
    begun.send(RST_STREAM, 0, 1, &CANCEL);
    assert_eq!(ending_of(&balancer, "/begun"), "CD");

    // A window that is never opened.
    let mut shut = Frames::connect(balancer.port);
    shut.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/shut"), (":authority", "x")];
    shut.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields));
    assert_eq!(ending_of(&balancer, "/shut"), "cD");

    let _held = ask(&balancer, "/stopped");
    wait_until("the origin is asked", || asked("/stopped"));
    balancer.signal("stop");
    assert_eq!(ending_of(&balancer, "/stopped"), "KH");
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
