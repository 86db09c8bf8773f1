//! Directives that the answer to one plain request does not show: about the process, its workers, and connections as a
//! whole.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod frames;
mod keys;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use common::{Balancer, Client, Origin, PATIENCE, wait_until};
use frames::{Frames, SETTINGS};
use keys::Keys;

const SAYS_HERE: &str = "server { listen 127.0.0.1:PORT; location / { return 200 here; } }";

/// A line of `/proc/PID/NAME`.
fn of_process(balancer: &Balancer, file: &str, line: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{}/{file}", balancer.pid())).unwrap();
    text.lines().find(|found| found.starts_with(line)).unwrap().to_owned()
}

#[test]
fn worker_rlimit_nofile_is_the_limit_of_open_files() {
    let balancer = Balancer::start_with("worker_rlimit_nofile 777;", SAYS_HERE);
    assert_eq!(balancer.client().get("/").body, "here");
    let limit = of_process(&balancer, "limits", "Max open files");
    assert_eq!(limit.split_whitespace().nth(3), Some("777"), "{limit}");
}

#[test]
fn worker_priority_is_the_nice_value_of_each_thread() {
    let balancer = Balancer::start_with("worker_priority 7; user nobody;", SAYS_HERE);
    assert_eq!(balancer.client().get("/").body, "here");
    let threads = std::fs::read_dir(format!("/proc/{}/task", balancer.pid())).unwrap();
    for thread in threads {
        let told = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        // Behind the name, which may hold anything: the state is the first.
        let nice = told.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap();
        assert_eq!(nice, "7", "{told}");
    }
}

#[test]
fn root_becomes_the_user_of_the_configuration_and_nobody_else_becomes_another() {
    let balancer = Balancer::start_with("user nobody;", SAYS_HERE);
    let own = nix::unistd::geteuid();
    let expected =
        if own.is_root() { nix::unistd::User::from_name("nobody").unwrap().unwrap().uid } else { own };
    // Who answers has become what it is to be.
    assert_eq!(balancer.client().get("/").body, "here");
    let uids = of_process(&balancer, "status", "Uid:");
    assert_eq!(uids.split_whitespace().nth(2), Some(expected.to_string().as_str()), "{uids}");
}

#[test]
fn folders_for_bodies_are_made_at_the_start_for_whom_workers_run_as() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let http = |directive: &str| {
        let port = origin.port;
        format!(
            "client_body_temp_path DIR/bodies; client_body_buffer_size 1k; client_body_in_file_only off;\n\
             server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://127.0.0.1:{port}; {directive} }} }}"
        )
    };
    let balancer = Balancer::start_with("user nobody;", &http("proxy_request_buffering on;"));
    assert!(balancer.path("bodies").is_dir());
    // What is above it is the test's own, and not nobody's.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(balancer.path(""), open).unwrap();
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n{}", "x".repeat(9000));
    assert_eq!(balancer.client().send(&request).response().status, 200, "{}", balancer.errors());
    let streaming = Balancer::start_with("user nobody;", &http(""));
    assert!(!streaming.path("bodies").exists(), "nobody asked for it");
    // A folder that cannot be made is found out at the start, and by -t.
    let conf = balancer.path("nginx.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, text.replace("/bodies;", "/nginx.conf/bodies;")).unwrap();
    let tested = Command::new(env!("CARGO_BIN_EXE_balancer")).args(["-t", "-c"]).arg(&conf).output().unwrap();
    let said = String::from_utf8_lossy(&tested.stderr);
    assert!(
        !tested.status.success() && said.contains("[emerg]") && said.contains("nginx.conf/bodies"),
        "{said}"
    );
}

#[test]
fn without_a_master_process_there_is_one_worker() {
    let threads = |main: &str| {
        let balancer = Balancer::start_with(main, SAYS_HERE);
        assert_eq!(balancer.client().get("/").body, "here");
        std::fs::read_dir(format!("/proc/{}/task", balancer.pid())).unwrap().count()
    };
    let (four, one) = (threads("worker_processes 4;"), threads("worker_processes 4; master_process off;"));
    assert_eq!(four - one, 3);
}

#[test]
fn no_more_connections_than_worker_connections_are_served() {
    let answered = |events: &str, room: usize| {
        let balancer = Balancer::start_with(&format!("worker_processes 1; {events}"), SAYS_HERE);
        let refused = || balancer.errors().matches(" 10 worker_connections are not enough\n").count();
        // Who has begun to ask is not idle, and makes room for nobody.
        let begin = |_| {
            let mut client = balancer.client();
            let _ = client.stream.write_all(b"GET / HTTP/1.1\r\n");
            client
        };
        let mut clients: Vec<Client> = (0..30).map(begin).collect();
        wait_until("who finds no room is gone", || refused() == 30 - room);
        for client in &mut clients {
            let _ = client.stream.write_all(b"Host: test\r\n\r\n");
        }
        let served = clients.iter_mut().filter_map(Client::try_response);
        (served.count(), balancer.errors().matches("[alert]").count())
    };
    assert_eq!(answered("events { worker_connections 10; }", 10), (10, 20));
    assert_eq!(answered("", 30), (30, 0));
}

/// An origin that tells of each request, and answers once that is allowed.
fn held() -> (Origin, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let (allow, allowed) = mpsc::channel();
    let allowed = std::sync::Mutex::new(allowed);
    let origin = Origin::scripted(move |served| {
        while let Some(head) = served.read_request() {
            if head.starts_with("GET /held") {
                let _ = tell.send(());
                let _ = allowed.lock().unwrap().recv_timeout(PATIENCE);
            }
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    (origin, told, allow)
}

#[test]
fn worker_shutdown_timeout_bounds_a_quit() {
    let (origin, told, _allow) = held();
    let balancer = Balancer::start_with(
        "worker_shutdown_timeout 100ms;",
        &format!(
            "server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
            origin.port
        ),
    );
    let mut client = balancer.client();
    client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
    told.recv_timeout(PATIENCE).unwrap();
    balancer.signal("quit");
    wait_until("the balancer is gone", || !balancer.path("pid").exists());
    assert_eq!(client.try_response(), None, "the request that held it was cut");
}

#[test]
fn a_request_whose_client_left_goes_on_when_proxy_ignore_client_abort_says_so() {
    let status = |directive: &str| {
        let (origin, told, allow) = held();
        let balancer = Balancer::before(&[&origin], directive);
        let mut client = balancer.client();
        client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
        told.recv_timeout(PATIENCE).unwrap();
        drop(client);
        // The worker has seen what came before this answer.
        assert_eq!(balancer.client().get("/other").body, "ok");
        allow.send(()).unwrap();
        let line = || {
            let log = std::fs::read_to_string(balancer.path("access.log")).unwrap();
            log.lines().find(|line| line.contains("/held")).map(str::to_owned)
        };
        wait_until("the request is logged", || line().is_some());
        line().unwrap().split('"').nth(2).unwrap().split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(status(""), "499");
    assert_eq!(status("proxy_ignore_client_abort on;"), "200");
}

#[test]
fn an_origin_that_takes_no_body_is_left_after_proxy_send_timeout() {
    let deaf = Origin::scripted(|_| {
        loop {
            std::thread::park();
        }
    });
    let hears = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = Balancer::before(
        &[&deaf, &hears],
        "proxy_send_timeout 100ms; proxy_read_timeout 1h; proxy_request_buffering on; client_max_body_size 0;",
    );
    let body = "x".repeat(16 << 20);
    let mut client = balancer.client();
    client
        .send(&format!("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()))
        .send(&body);
    assert_eq!(client.response().body, "ok", "{}", balancer.errors());
}

/// Whether the kernel has a keepalive timer for the connection from here to that port (`tr` of proc_net_tcp).
fn is_kept_alive(port: u16) -> bool {
    let to = format!("0100007F:{port:04X}");
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut fields = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = fields.find(|fields| fields[2] == to && fields[3] == "01").expect("a connection is kept");
    found[5].starts_with("02:")
}

#[test]
fn connections_to_upstreams_have_tcp_keepalive_where_proxy_socket_keepalive_says_so() {
    let seen = |directive: &str| {
        let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let balancer = Balancer::before(&[&origin], directive);
        assert_eq!(balancer.client().get("/").body, "ok");
        is_kept_alive(origin.port)
    };
    assert!(seen("proxy_socket_keepalive on;"));
    assert!(!seen(""));
}

#[test]
fn upstreams_are_told_of_the_client_in_the_proxy_protocol_for_each_request_anew() {
    for version in ["on", "v2"] {
        let balancer = Balancer::start(&format!(
            "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;\n\
             upstream inner {{ server 127.0.0.2:PORT; keepalive 4; }}\n\
             server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://inner; proxy_set_header Connection \"\"; \
               proxy_protocol {version}; }} }}\n\
             server {{ listen 127.0.0.2:PORT proxy_protocol; real_ip_header X-None; location / {{ \
               return 200 '$proxy_protocol_addr $proxy_protocol_server_addr $connection_requests'; }} }}"
        ));
        let mut client = balancer.client();
        for from in ["192.0.2.7", "192.0.2.8"] {
            client.send(&format!("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {from}\r\n\r\n"));
            assert_eq!(client.response().body, format!("{from} 127.0.0.1 1"), "{version}");
        }
    }
}

#[test]
fn checks_of_servers_that_demand_the_proxy_protocol_send_its_header() {
    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (version, header) in [("on", &b"PROXY UNKNOWN\r\n"[..]), ("v2", LOCAL)] {
        let origin = Origin::scripted(move |served| {
            let mut came = vec![0; header.len()];
            served.read_exactly(&mut came);
            assert_eq!(came, header);
            served.read_request();
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        });
        let _balancer = Balancer::start(&format!(
            "upstream g {{ zone g; server 127.0.0.1:{}; }}\n\
             server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://g; proxy_protocol {version};\n\
             health_check interval=20ms uri=/health; }} }}",
            origin.port
        ));
        wait_until("two checks came", || origin.seen().len() >= 2);
        assert!(origin.seen()[1].starts_with("GET /health HTTP/1.1\r\n"), "{:?}", origin.seen());
    }
}

#[test]
fn gzip_comp_level_packs_more_or_less() {
    let folder = tempfile::tempdir().unwrap();
    let text: String =
        (0..20_000_u32).map(|number| format!("{} ", number.wrapping_mul(2_654_435_761))).collect();
    std::fs::write(folder.path().join("numbers"), &text).unwrap();
    let packed = |level: u8| {
        let balancer = Balancer::start(&format!(
            "server {{ listen 127.0.0.1:PORT; root {}; gzip on; gzip_http_version 1.0; gzip_types *; gzip_comp_level {level}; }}",
            folder.path().display()
        ));
        let request =
            "GET /numbers HTTP/1.0\r\nHost: test\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n";
        let (bytes, _) = balancer.client().send(request).rest();
        let at = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let mut unpacked = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[at..]), &mut unpacked)
            .unwrap();
        assert!(unpacked == text, "level {level} changed the text");
        bytes.len() - at
    };
    let (fast, best) = (packed(1), packed(9));
    assert!(best < fast, "{best} bytes at level 9, {fast} at level 1");
}

#[test]
fn ip_hash_ipv6_bits_keeps_a_client_whose_privacy_address_changes() {
    let origins: Vec<Origin> = ["0", "1", "2", "3"]
        .map(|name| {
            Origin::scripted(move |served| {
                while served.read_request().is_some() {
                    served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}"));
                }
            })
        })
        .into();
    let servers: String = origins.iter().map(|origin| format!("server 127.0.0.1:{};", origin.port)).collect();
    let reached = |bits: &str| -> BTreeSet<String> {
        let balancer = Balancer::start(&format!(
            "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;\n\
             upstream origins {{ ip_hash; {bits} {servers} }}\n\
             server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://origins; }} }}"
        ));
        let ask = |last: u8| {
            let mut client = balancer.client();
            let from = format!("2001:db8::{last:x}");
            client.send(&format!("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {from}\r\n\r\n"));
            client.response().body
        };
        (1..=24).map(ask).collect()
    };
    assert_eq!(reached("ip_hash_ipv6_bits 64;").len(), 1);
    assert!(reached("").len() > 1, "as in nginx, all of the address counts");
}

/// What the server says at the start: the value of this setting.
fn setting(http: &str, identifier: u16) -> Option<u32> {
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; http2 on; {http} location / {{ return 200 here; }} }}"
    ));
    let settings = Frames::connect(balancer.port).first(SETTINGS).unwrap().payload;
    let (pairs, rest) = settings.as_chunks::<6>();
    assert!(rest.is_empty());
    let found = pairs.iter().find(|pair| u16::from_be_bytes([pair[0], pair[1]]) == identifier)?;
    Some(u32::from_be_bytes([found[2], found[3], found[4], found[5]]))
}

#[test]
fn clients_of_http2_are_told_the_limits_of_the_configuration() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    assert_eq!(setting("http2_max_concurrent_streams 7;", MAX_CONCURRENT_STREAMS), Some(7));
    assert_eq!(setting("", MAX_CONCURRENT_STREAMS), Some(128));
    assert_eq!(setting("http2_body_preread_size 3k;", INITIAL_WINDOW_SIZE), Some(3072));
    assert_eq!(setting("", INITIAL_WINDOW_SIZE), Some(65_536));
}

#[test]
fn a_ticket_opens_wherever_its_ssl_session_ticket_key_is() {
    let keys = Keys::new();
    keys.own("one.test", "rsa");
    keys.openssl("rand -out first.key 80");
    keys.openssl("rand -out second.key 80");
    let start = |key: &str| {
        Balancer::start(&format!(
            "server {{ listen 127.0.0.1:PORT ssl; {} ssl_protocols TLSv1.2; ssl_session_ticket_key {}; \
               location / {{ return 200 here; }} }}",
            keys.shown("one.test"),
            keys.path(key)
        ))
    };
    let talk = |balancer: &Balancer, way: &str| {
        let ticket = keys.path("ticket");
        let done = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", balancer.port), way, &ticket])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&done.stdout).contains("\nReused,")
    };
    assert!(!talk(&start("first.key"), "-sess_out"), "the first session is a new one");
    assert!(talk(&start("first.key"), "-sess_in"), "another process with the same key opens the ticket");
    assert!(!talk(&start("second.key"), "-sess_in"));
}

#[test]
fn who_does_not_say_the_whole_proxy_protocol_header_in_time_is_sent_away() {
    let balancer = Balancer::start(
        "server { listen 127.0.0.1:PORT proxy_protocol; client_header_timeout 300ms; location / { return 200 here; } }",
    );
    for part in ["", "PROXY TCP4", "\r\n\r\n\0\r\nQUIT\n\x21\x11\0"] {
        let mut client = balancer.client();
        client.send(part);
        match client.stream.read(&mut [0]) {
            Ok(len) => assert_eq!(len, 0, "{part:?}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{part:?}: {error}"),
        }
    }
}
