//! Bytes in clear before an upstream's TLS (CVE-2026-1642), and requests that come before a client's handshake is over.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Balancer, PATIENCE};
use crate::keys::Keys;

const EVIL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
/// SETTINGS, then `:status: 200` with END_STREAM on stream 1.
const EVIL_HTTP2: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x88";

/// When somebody between us and the upstream says something in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Injects {
    Nothing,
    /// At once, and then nothing at all.
    Only,
    /// Once the client's hello has come.
    AfterHello,
    /// At once, and then the true server's words.
    BeforeServer,
    /// The true server's first flight, then this.
    BehindServer,
}

/// Stands before a true server of TLS: its port, and how many came to it.
fn between(server: u16, injects: Injects, evil: &'static [u8]) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let came = Arc::<AtomicUsize>::default();
    let count = came.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let client = client.unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            std::thread::spawn(move || relay(client, server, injects, evil));
        }
    });
    (port, came)
}

fn relay(mut client: TcpStream, server: u16, injects: Injects, evil: &[u8]) {
    let (mut hello, mut flight) = ([0; 4096], [0; 16384]);
    if matches!(injects, Injects::Only | Injects::BeforeServer) {
        client.write_all(evil).unwrap();
    }
    let Ok(hello_len @ 1..) = client.read(&mut hello) else { return };
    if injects == Injects::AfterHello {
        client.write_all(evil).unwrap();
    }
    if matches!(injects, Injects::Only | Injects::AfterHello) {
        let _ = client.read_to_end(&mut Vec::new());
        return;
    }
    let mut server = TcpStream::connect(("127.0.0.1", server)).unwrap();
    server.write_all(&hello[..hello_len]).unwrap();
    let flight_len = server.read(&mut flight).unwrap();
    let _ = client.write_all(&flight[..flight_len]);
    if injects == Injects::BehindServer {
        let _ = client.write_all(evil);
    }
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    up.join().unwrap();
}

#[test]
fn bytes_in_clear_before_an_upstreams_tls_are_a_502_and_never_an_answer() {
    let keys = Keys::new();
    keys.own("inner.test", "ec");
    let inner = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; http2 on; {} location / {{ return 200 inner; }} }}",
        keys.shown("inner.test")
    ));
    for version in ["1.1", "2"] {
        let evil = if version == "2" { EVIL_HTTP2 } else { EVIL };
        for injects in [
            Injects::Only,
            Injects::AfterHello,
            Injects::BeforeServer,
            Injects::BehindServer,
            Injects::Nothing,
        ] {
            let (port, came) = between(inner.port, injects, evil);
            let balancer = Balancer::start(&format!(
                "upstream inner {{ server 127.0.0.1:{port}; keepalive 4; }} server {{ listen 127.0.0.1:PORT; \
                 location / {{ proxy_http_version {version}; proxy_pass https://inner; }} }}"
            ));
            let mut client = balancer.client();
            for _ in 0..2 {
                let answer = client.get("/");
                let wanted = if injects == Injects::Nothing { 200 } else { 502 };
                assert_eq!(answer.status, wanted, "{injects:?} {version}: {}", answer.body);
                assert_eq!(answer.body == "inner", wanted == 200, "{injects:?} {version}: {}", answer.body);
            }
            let came = came.load(Ordering::SeqCst);
            assert_eq!(
                came,
                if injects == Injects::Nothing { 1 } else { 2 },
                "{injects:?}: one that failed is not kept"
            );
        }
    }
}

/// What `openssl s_client` says when it has sent this and the other side has closed.
fn s_client(port: u16, keys: &Keys, more: &str, request: &[u8]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-tls1_3", "-ign_eof", "-connect", &format!("127.0.0.1:{port}")])
        .args(more.split(' '))
        .current_dir(&keys.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(request).unwrap();
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

/// A session that says of itself that data may come early with it: what an honest client never does unasked. The form is
/// OpenSSL's SSL_SESSION, in which `[15]` is `max_early_data`.
fn forge(session: &[u8]) -> Vec<u8> {
    const MAX_EARLY_DATA: [u8; 6] = [0xaf, 4, 2, 2, 0x40, 0];
    let is_long = session[0] == 0x30 && session[1] == 0x82;
    assert!(is_long, "a sequence of some hundred bytes");
    let mut at = 4;
    while at < session.len() && session[at] <= 0xaf {
        let (first, long) = (usize::from(session[at + 1]), &session[at + 2..]);
        at += match first {
            0x81 => 3 + usize::from(long[0]),
            0x82 => 4 + usize::from(u16::from_be_bytes([long[0], long[1]])),
            len => 2 + len,
        };
    }
    let fields = [&session[4..at], &MAX_EARLY_DATA, &session[at..]].concat();
    let len = u16::try_from(fields.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82], &len[..], &fields].concat()
}

#[test]
fn a_request_that_comes_before_the_handshake_is_over_is_not_served() {
    let keys = Keys::new();
    keys.own("one.test", "ec");
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; {} ssl_early_data off; location / {{ return 200 $uri; }} }}",
        keys.shown("one.test")
    ));
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let first = s_client(balancer.port, &keys, "-sess_out first.pem", request("/first").as_bytes());
    assert!(first.contains("Max Early Data: 0"), "{first}");
    keys.openssl("sess_id -in first.pem -outform DER -out first.der");
    std::fs::write(keys.path("forged.der"), forge(&std::fs::read(keys.path("first.der")).unwrap())).unwrap();
    keys.openssl("enc -base64 -in forged.der -out forged.b64");
    let text = std::fs::read_to_string(keys.path("forged.b64")).unwrap();
    let framed =
        format!("-----BEGIN SSL SESSION PARAMETERS-----\n{text}-----END SSL SESSION PARAMETERS-----\n");
    std::fs::write(keys.path("forged.pem"), framed).unwrap();
    std::fs::write(keys.path("early"), request("/early")).unwrap();
    let more = "-sess_in forged.pem -early_data early";
    let second = s_client(balancer.port, &keys, more, request("/second").as_bytes());
    assert!(second.contains("Reused, TLSv1.3") && second.contains("Early data was rejected"), "{second}");
    assert!(second.contains("/second") && !second.contains("/early"), "{second}");
    let log = std::fs::read_to_string(balancer.path("access.log")).unwrap();
    assert!(log.contains("GET /second") && !log.contains("/early"), "{log}");
}
