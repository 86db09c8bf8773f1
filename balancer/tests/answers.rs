//! What a location adds to answers and how it sends them: expiry, trailers, gzip, speed; and whom a proxy in front names.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::io::{Read, Write};
use std::time::Instant;

use common::{Balancer, Origin};

/// The whole answer, as bytes, of a connection that ends with it, by a reset if need be.
fn raw(balancer: &Balancer, request: &str) -> Vec<u8> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", balancer.port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn body_of(answer: &[u8]) -> &[u8] {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    &answer[head + 4..]
}

fn unpacked(packed: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(packed).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn expires_replaces_what_the_upstream_said_and_add_header_its_validators() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nExpires: 0\r\nCache-Control: private\r\nCache-Control: x\r\nETag: \"theirs\"\r\n\
         Last-Modified: Mon, 28 Sep 1970 06:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
    );
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://127.0.0.1:{0}; expires 1h; \
           add_header ETag '\"ours\"'; add_header X-Tells $sent_http_cache_control; }}\n\
         location /gone {{ proxy_pass http://127.0.0.1:{0}; expires -1; add_header Last-Modified ''; }}\n\
         location /since {{ proxy_pass http://127.0.0.1:{0}; expires modified 10s; }}\n\
         location /var {{ proxy_pass http://127.0.0.1:{0}; expires $arg_e; }} }}",
        origin.port
    ));
    let answer = balancer.client().get("/");
    assert_eq!(answer.header("cache-control"), Some("max-age=3600"));
    assert_eq!((answer.header("etag"), answer.header("x-tells")), (Some("\"ours\""), Some("max-age=3600")));
    assert_eq!(answer.head.matches("Cache-Control").count() + answer.head.matches("Expires").count(), 2);
    let gone = balancer.client().get("/gone");
    assert_eq!((gone.header("cache-control"), gone.header("last-modified")), (Some("no-cache"), None));
    assert_eq!(balancer.client().get("/since").header("expires"), Some("Mon, 28 Sep 1970 06:00:10 GMT"));
    assert_eq!(balancer.client().get("/var?e=epoch").header("cache-control"), Some("no-cache"));
    assert_eq!(balancer.client().get("/var?e=junk").header("cache-control"), Some("private"));
}

#[test]
fn trailers_follow_the_body_and_know_the_head() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok");
    let balancer = Balancer::before(
        &[&origin],
        "add_trailer X-Len $upstream_response_length; add_trailer X-Head $sent_http_x_a;",
    );
    let answer = raw(&balancer, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8(answer).unwrap();
    assert!(text.ends_with("\r\n\r\n2\r\nok\r\n0\r\nX-Len: 2\r\nX-Head: 1\r\n\r\n"), "{text}");
    assert!(!text.contains("Content-Length"), "{text}");
    let old = raw(&balancer, "GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(String::from_utf8(old).unwrap().ends_with("Content-Length: 2\r\nConnection: close\r\n\r\nok"));
}

#[test]
fn answers_are_packed_for_clients_that_take_it_and_unpacked_for_those_that_do_not() {
    let text = "abc ".repeat(1000);
    let plain: &'static str = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"x\"\r\nContent-Length: 4000\r\n\r\n{text}"
    )
    .leak();
    let origin = Origin::answering(plain);
    let packing = Balancer::before(&[&origin], "gzip on; gzip_vary on;");
    let get = |balancer: &Balancer, fields: &str| {
        raw(balancer, &format!("GET / HTTP/1.0\r\nHost: a\r\n{fields}\r\n"))
    };
    let old = get(&packing, "Accept-Encoding: gzip\r\n");
    assert_eq!(body_of(&old), text.as_bytes(), "HTTP/1.0 gets it as it is");
    let answer = raw(
        &packing,
        "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip;q=0.5\r\nConnection: close\r\n\r\n",
    );
    let head = String::from_utf8_lossy(&answer[..answer.len() - body_of(&answer).len()]).into_owned();
    for line in
        ["Content-Encoding: gzip", "Vary: Accept-Encoding", "ETag: W/\"x\"", "Transfer-Encoding: chunked"]
    {
        assert!(head.contains(line), "{head}");
    }
    let unpacking = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; gzip_http_version 1.0;\n\
         location / {{ gunzip on; proxy_set_header Accept-Encoding gzip; proxy_pass http://127.0.0.1:PORT/packed; }}\n\
         location /packed {{ gzip on; gzip_http_version 1.0; proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port
    ));
    assert_eq!(body_of(&get(&unpacking, "")), text.as_bytes());
    assert_eq!(unpacked(body_of(&get(&unpacking, "Accept-Encoding: gzip\r\n"))), text);
}

#[test]
fn a_packed_file_is_sent_in_place_of_the_plain_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.html"), "plain").unwrap();
    std::fs::write(folder.path().join("a.html.gz"), "packed").unwrap();
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; gzip_static on; location / {{ root {}; }} }}",
        folder.path().display()
    ));
    let get = |fields: &str| {
        raw(&balancer, &format!("GET /a.html HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n"))
    };
    let packed = get("Accept-Encoding: gzip\r\n");
    assert_eq!(body_of(&packed), b"packed");
    assert!(String::from_utf8_lossy(&packed).contains("Content-Type: text/html\r\n"));
    assert_eq!(body_of(&get("")), b"plain");
}

#[test]
fn answers_are_no_faster_than_the_limit_from_wherever_they_come() {
    let origin = Origin::answering(
        format!("HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n{}", "x".repeat(3000)).leak(),
    );
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT;\n\
         location /down {{ limit_rate 2000; proxy_pass http://127.0.0.1:{0}; }}\n\
         location /own {{ set $limit_rate 2000; return 200 \"{1}\"; }}\n\
         location /after {{ limit_rate 1; limit_rate_after 10k; proxy_pass http://127.0.0.1:{0}; }} }}",
        origin.port,
        "y".repeat(3000)
    ));
    for path in ["/down", "/own"] {
        let start = Instant::now();
        assert_eq!(balancer.client().get(path).body.len(), 3000);
        assert!(start.elapsed().as_millis() >= 490, "{path}: {:?}", start.elapsed());
    }
    assert_eq!(balancer.client().get("/after").body.len(), 3000);
}

#[test]
fn a_proxy_in_front_names_the_client_and_nobody_else_gets_in() {
    let balancer = Balancer::start(
        "set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;\n\
         server { listen 127.0.0.1:PORT proxy_protocol;\n\
         location / { return 200 \"$remote_addr:$remote_port $proxy_protocol_server_addr $proxy_protocol_tlv_alpn\"; } }",
    );
    let get = "GET / HTTP/1.0\r\nHost: a\r\n\r\n";
    let v1 = raw(&balancer, &format!("PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n{get}"));
    assert_eq!(body_of(&v1), b"192.0.2.1:1234 192.0.2.2 ");
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", balancer.port)).unwrap();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x01\xc0\0\x02\x02\x04\xd2\0\x50\x01\0\x02h2";
    for byte in v2.iter().chain(get.as_bytes()) {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(body_of(&answer), b"192.0.2.1:1234 192.0.2.2 h2");
    assert_eq!(raw(&balancer, get), b"");
}

#[test]
fn a_body_is_in_a_file_where_that_is_asked_for_and_reaches_the_next_server_whole() {
    let gone = Origin::scripted(|served| {
        let _ = served.read_request();
    });
    let origin = Origin::scripted(|served| {
        while let Some((_, body)) = served.read_request_with_body() {
            served.send(&format!("HTTP/1.1 200 OK\r\nX-Len: {}\r\nContent-Length: 0\r\n\r\n", body.len()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let balancer = Balancer::before(
        &[&gone, &origin],
        &format!(
            "client_body_in_file_only clean; client_body_temp_path {}; add_header X-File $request_body_file;",
            folder.path().display()
        ),
    );
    let body = "z".repeat(100_000);
    let request = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for _ in 0..2 {
        let mut client = balancer.client();
        let answer = client.send(&request).response();
        assert_eq!((answer.status, answer.header("x-len")), (200, Some("100000")));
        assert!(answer.header("x-file").unwrap().starts_with(&folder.path().display().to_string()));
        // The next answer of the connection comes after the first request is forgotten.
        client.get("/");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
