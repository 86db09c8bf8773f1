//! Where connections or descriptors run out, those that have idled longest make room, and nobody else does.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod frames;
mod keys;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Mutex, mpsc};

use common::{Balancer, Client, Origin, PATIENCE, wait_until};
use frames::{DATA, END_HEADERS, END_STREAM, Frames, GET, HEADERS, PING};
use keys::Keys;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET_HELD: &str = "GET /held HTTP/1.1\r\nHost: a\r\n\r\n";

/// One worker that may have so many connections.
fn start(connections: usize, http: &str) -> Balancer {
    let main = format!("worker_processes 1; events {{ worker_connections {connections}; }}");
    Balancer::start_with(&main, http)
}

/// What a location `/` answers by itself, and what the origin does.
fn before(origin: &Origin) -> String {
    format!(
        "upstream origin {{ server 127.0.0.1:{}; keepalive 4; }}\n\
         server {{ listen 127.0.0.1:PORT; http2 on; location / {{ return 200 here; }}\n\
         location /origin {{ proxy_pass http://origin; }}\n\
         location /held {{ proxy_pass http://origin; proxy_set_header Upgrade $http_upgrade;\n\
         proxy_set_header Connection $http_connection; }} }}",
        origin.port
    )
}

/// An origin that tells of each request for `/held` and answers it once that is allowed; it echoes after an upgrade.
fn held() -> (Origin, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let ((tell, told), (allow, allowed)) = (mpsc::channel(), mpsc::channel());
    let allowed = Mutex::new(allowed);
    let origin = Origin::scripted(move |served| {
        while let Some(head) = served.read_request() {
            if head.contains("Upgrade: echo") {
                served
                    .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
                let mut word = [0; 4];
                served.read_exactly(&mut word);
                served.send(std::str::from_utf8(&word).unwrap());
                return;
            }
            if head.starts_with("GET /held") {
                let _ = tell.send(());
                let _ = allowed.lock().unwrap().recv_timeout(PATIENCE);
            }
            served.send(OK);
        }
    });
    (origin, told, allow)
}

fn is_here(client: &mut Client) -> bool {
    client.get("/").body == "here"
}

/// Closed without a byte, or it will be.
fn is_closed(client: &mut Client) -> bool {
    client.stream.read(&mut [0]).is_ok_and(|len| len == 0)
}

/// Nothing has come, not even the end.
fn is_open(client: &Client) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let read = (&client.stream).read(&mut [0]);
    client.stream.set_nonblocking(false).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Lines about want of connections: that some were reused, and that there was none to be had.
fn warnings_and_alerts(balancer: &Balancer) -> (usize, usize) {
    let errors = balancer.errors();
    let lines: Vec<&str> =
        errors.lines().filter(|line| line.contains("worker_connections are not")).collect();
    let is_warning =
        |line: &&&str| line.contains("[warn]") && line.ends_with("are not enough, reusing connections");
    let warnings = lines.iter().filter(is_warning).count();
    (warnings, lines.iter().filter(|line| line.contains("[alert]")).count())
}

#[test]
fn the_longest_idle_client_makes_room_for_who_comes() {
    const MAX: usize = 8;
    let balancer = start(MAX, "server { listen 127.0.0.1:PORT; location / { return 200 here; } }");
    let mut clients: Vec<Client> = (0..MAX).map(|_| balancer.client()).collect();
    assert!(clients.iter_mut().all(is_here));
    assert!(is_here(&mut clients[0]), "it has idled least now");
    assert!(is_here(&mut balancer.client()), "who comes is served");
    let mut longest = clients.remove(1);
    assert_eq!(longest.rest(), (Vec::new(), true), "closed without a word");
    assert!(clients.iter_mut().all(is_here), "the others are still there");
    assert_eq!(warnings_and_alerts(&balancer), (1, 0), "{}", balancer.errors());
}

#[test]
fn clients_that_have_not_said_a_word_make_room() {
    let keys = Keys::new();
    keys.own("one.test", "ec");
    let shown = keys.shown("one.test");
    // Plain words on a port of TLS get a page too.
    let listens = [("", ""), ("http2 on;", ""), ("", "proxy_protocol"), (&*shown, "ssl")];
    for (directives, listen) in listens {
        let balancer = start(
            3,
            &format!(
                "server {{ listen 127.0.0.1:PORT {listen}; {directives} location / {{ return 200 here; }} }}"
            ),
        );
        let mut silent: Vec<Client> = (0..3).map(|_| balancer.client()).collect();
        let mut speaker = balancer.client();
        let first = if listen == "proxy_protocol" { "PROXY UNKNOWN\r\n" } else { "" };
        let answer = speaker.send(&format!("{first}GET / HTTP/1.1\r\nHost: a\r\n\r\n")).response();
        assert_eq!(answer.status, if listen == "ssl" { 400 } else { 200 }, "{listen}{directives}");
        assert!(is_closed(&mut silent[0]), "{listen}{directives}");
        assert!(is_open(&silent[1]) && is_open(&silent[2]), "{listen}{directives}");
    }
}

#[test]
fn clients_spared_by_keepalive_min_timeout_stay() {
    let balancer = start(
        2,
        "keepalive_min_timeout 60s; server { listen 127.0.0.1:PORT; location / { return 200 here; } }",
    );
    let mut spared = balancer.client();
    assert!(is_here(&mut spared));
    let mut silent = balancer.client();
    assert!(is_here(&mut balancer.client()));
    assert!(is_closed(&mut silent), "it came later, and is nobody's to spare");
    assert!(is_here(&mut spared));
}

#[test]
fn who_has_a_request_a_tunnel_or_a_stream_under_way_is_never_cut() {
    let (origin, told, allow) = held();
    // Two connections for each that is busy, one for the idle one.
    let balancer = start(7, &before(&origin));
    let mut asking = balancer.client();
    asking.send(GET_HELD);
    told.recv_timeout(PATIENCE).unwrap();
    let mut tunnel = balancer.client();
    tunnel.send("GET /held HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(tunnel.head().unwrap().starts_with("HTTP/1.1 101"));
    let mut stream = Frames::connect(balancer.port);
    let get_held: Vec<u8> = [&GET[..2], b"\x04\x05/held", &GET[3..]].concat();
    assert!(stream.send(HEADERS, END_STREAM | END_HEADERS, 1, &get_held));
    told.recv_timeout(PATIENCE).unwrap();
    let mut half = balancer.client();
    half.send("GET / HTTP/1.1\r\nHo");
    // Each sends the one before it away, and not one of those above, which have waited longer.
    for _ in 0..20 {
        let mut nobody = balancer.client();
        let _ = nobody.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(nobody.try_response().is_none(), "all places are taken by who is busy");
    }
    assert!(half.send("st: a\r\n\r\n").response().body == "here");
    for _ in 0..20 {
        assert!(is_here(&mut balancer.client()), "{}", balancer.errors());
    }
    (0..2).for_each(|_| allow.send(()).unwrap());
    assert_eq!(asking.response().body, "ok");
    assert_eq!(tunnel.send("echo").bytes(4), b"echo");
    assert_eq!(stream.first(DATA).unwrap().payload, b"ok");
}

#[test]
fn with_nobody_idle_who_comes_is_closed_with_an_alert_and_the_process_goes_on() {
    let (origin, told, allow) = held();
    let balancer = start(3, &before(&origin));
    let mut asking = balancer.client();
    asking.send(GET_HELD);
    told.recv_timeout(PATIENCE).unwrap();
    let mut without = balancer.client();
    let answer = without.get("/origin");
    assert_eq!(answer.status, 500, "an upstream's connection is one too: nginx's status");
    let of_upstream = "3 worker_connections are not enough while connecting to upstream, client: 127.0.0.1";
    assert!(balancer.errors().contains(of_upstream), "{}", balancer.errors());
    assert_eq!(warnings_and_alerts(&balancer), (0, 1));
    assert!(is_closed(&mut without), "as nginx's 500 has it");
    let mut half = balancer.client();
    half.send("GET / HT");
    let mut late = balancer.client();
    let _ = late.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((late.try_response(), warnings_and_alerts(&balancer).1), (None, 2));
    allow.send(()).unwrap();
    assert_eq!(asking.response().body, "ok");
    assert_eq!(half.send("TP/1.1\r\nHost: a\r\n\r\n").response().body, "here");
    assert!(is_here(&mut balancer.client()), "{}", balancer.errors());
}

#[test]
fn the_longest_idle_go_first_be_they_clients_or_upstreams() {
    let origin = Origin::answering(OK);
    let ops = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let balancer = Balancer::start_with(
        &format!("worker_processes 1; ops_listen {ops}; events {{ worker_connections 4; }}"),
        &before(&origin),
    );
    let mut first = balancer.client();
    assert_eq!(first.get("/origin").body, "ok");
    let mut others: Vec<Client> = (0..2).map(|_| balancer.client()).collect();
    assert!(others.iter_mut().all(is_here));
    assert!(is_here(&mut balancer.client()));
    let shed = || {
        let text = Client::connect(ops.port()).get("/metrics").body;
        ["client", "upstream"].map(|side| {
            let name = format!("balancer_connections_shed_total{{side=\"{side}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
            line.parse::<u64>().unwrap()
        })
    };
    assert_eq!(shed(), [0, 1], "the connection to the origin has idled longest");
    assert!(is_here(&mut first));
    assert!(others.iter_mut().all(is_here));
    let mut last = balancer.client();
    assert!(is_here(&mut last));
    assert_eq!(
        first.get("/origin").body,
        "ok",
        "over a new connection, for which the longest idle client goes"
    );
    assert_eq!(origin.connections.load(std::sync::atomic::Ordering::SeqCst), 2);
    assert!(is_closed(&mut others[0]));
    assert_eq!(shed(), [1, 1]);
    assert!(is_here(&mut others[1]) && is_here(&mut last));
}

#[test]
fn a_connection_of_http2_without_streams_goes_with_a_word() {
    let balancer = start(3, "server { listen 127.0.0.1:PORT; http2 on; location / { return 200 here; } }");
    let mut idle = Frames::connect(balancer.port);
    for stream in [1, 3] {
        assert!(idle.send(HEADERS, END_STREAM | END_HEADERS, stream, GET));
        while !idle.next().unwrap().ends_stream() {}
    }
    let mut fresh = Frames::connect(balancer.port);
    assert!(fresh.send(PING, 0, 0, &[7; 8]) && fresh.first(PING).is_some());
    let mut kept = balancer.client();
    assert!(is_here(&mut kept));
    let goodbye = |frames: &mut Frames| {
        let payload = frames.first(frames::GOAWAY).unwrap().payload;
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        (number(0), number(4))
    };
    let mut newcomers = [balancer.client(), balancer.client()];
    for ((frames, last), newcomer) in [(&mut idle, 3), (&mut fresh, 0)].into_iter().zip(&mut newcomers) {
        assert!(is_here(newcomer));
        assert_eq!(
            goodbye(frames),
            (last, 0),
            "nothing behind that stream was looked at, and nothing is wrong"
        );
        assert_eq!(frames.next(), None, "the connection has ended");
    }
    assert!(is_here(&mut kept));
}

#[test]
fn an_answer_of_http2_that_its_client_has_yet_to_take_is_not_cut() {
    const LEN: usize = 48_000;
    let http = "server { listen 127.0.0.1:PORT sndbuf=4k; http2 on; location / { root DIR; } }";
    let balancer = start(1, http);
    std::fs::write(balancer.path("file"), "x".repeat(LEN)).unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = Frames::over(socket, balancer.port);
    let get_file: Vec<u8> = [&GET[..2], b"\x04\x05/file", &GET[3..]].concat();
    assert!(slow.send(HEADERS, END_STREAM | END_HEADERS, 1, &get_file));
    let is_done =
        || std::fs::read_to_string(balancer.path("access.log")).unwrap_or_default().contains("/file");
    wait_until("the answer is made", is_done);
    let mut late = balancer.client();
    let _ = late.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(late.try_response(), None, "no stream is under way, but its answer is");
    let mut len = 0;
    while len < LEN {
        len += slow.first(DATA).expect("the whole answer").payload.len();
    }
    assert!(balancer.client().get("/file").body.len() == LEN, "now the slow one makes room");
}

/// A balancer that may have so many more descriptors open than it needs for one client.
fn short_of_descriptors(room: usize, http: &str) -> Balancer {
    let start = |limit: &str| Balancer::start_with(&format!("worker_processes 1; {limit}"), http);
    let roomy = start("");
    let mut client = roomy.client();
    assert!(is_here(&mut client));
    let needed = std::fs::read_dir(format!("/proc/{}/fd", roomy.pid())).unwrap().count();
    start(&format!("worker_rlimit_nofile {};", needed + room))
}

#[test]
fn idle_clients_make_room_where_descriptors_run_out() {
    const ROOM: usize = 8;
    let keys = Keys::new();
    std::fs::write(keys.path("file"), "text").unwrap();
    std::fs::write(keys.path("users"), "user:{PLAIN}word\n").unwrap();
    let origin = Origin::answering(OK);
    let http = format!(
        "keepalive_requests 1000000; client_body_buffer_size 1k;\n\
         server {{ listen 127.0.0.1:PORT; location / {{ return 200 here; }}\n\
         location /origin {{ proxy_pass http://127.0.0.1:{0}; }}\n\
         location /spooled {{ proxy_pass http://127.0.0.1:{0}; proxy_request_buffering on; client_body_temp_path DIR/bodies; }}\n\
         location /closed {{ auth_basic x; auth_basic_user_file {1}; return 200 here; }}\n\
         location /file {{ root {2}; }} }}",
        origin.port,
        keys.path("users"),
        keys.path("")
    );
    let balancer = short_of_descriptors(ROOM, &http);
    // Far more than there is room for: the longest idle ones have to go.
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..ROOM * 4 {
        clients.push(balancer.client());
        assert!(is_here(clients.last_mut().unwrap()), "{}", balancer.errors());
    }
    assert!(is_closed(&mut clients[0]));
    let errors = balancer.errors();
    assert!(
        errors.contains("[crit]") && errors.contains("accept4() failed (Too many open files"),
        "{errors}"
    );
    assert!(errors.contains("open files are not enough, reusing connections"), "{errors}");
    let body = "x".repeat(3000);
    let requests = [
        ("GET /origin HTTP/1.1\r\nHost: a\r\n\r\n".into(), "ok"),
        ("GET /file HTTP/1.1\r\nHost: a\r\n\r\n".into(), "text"),
        ("GET /closed HTTP/1.1\r\nHost: a\r\nAuthorization: Basic dXNlcjp3b3Jk\r\n\r\n".into(), "here"),
        (format!("POST /spooled HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()), "ok"),
    ];
    for (request, body) in &requests {
        // It takes the last descriptor; its request needs one more.
        let mut client = balancer.client();
        assert!(is_here(&mut client));
        assert_eq!(client.send(request).response().body, *body, "{request} {}", balancer.errors());
        clients.push(client);
    }
}
