//! HTTP/2 to clients and to upstreams: curl, nginx and the h2 crate as peers, bare frames for what no honest peer does.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod frames;
mod h2_server;

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Balancer, Origin, PATIENCE, wait_until};
use frames::{END_HEADERS, END_STREAM, Frames, GET, HEADERS, RST_STREAM};
use h2_server::h2_server;
use http::{HeaderMap, Request, Response};

/// One request over a connection of its own: the answer's head, body and trailers.
fn ask(port: u16, request: Request<()>, body: Option<&[u8]>) -> (Response<()>, Vec<u8>, HeaderMap) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let wire = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (send, connection) = h2::client::handshake(wire).await.unwrap();
        let driver = tokio::spawn(connection);
        let (answer, mut sending) =
            send.ready().await.unwrap().send_request(request, body.is_none()).unwrap();
        if let Some(body) = body {
            sending.send_data(Bytes::copy_from_slice(body), true).unwrap();
        }
        let (head, mut stream) = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().into_parts();
        let mut body = Vec::new();
        while let Some(data) = stream.data().await {
            let data = data.unwrap();
            stream.flow_control().release_capacity(data.len()).unwrap();
            body.extend_from_slice(&data);
        }
        let trailers = stream.trailers().await.unwrap().unwrap_or_default();
        driver.abort();
        (Response::from_parts(head, ()), body, trailers)
    })
}

fn get(port: u16, path: &str) -> Request<()> {
    Request::get(format!("http://127.0.0.1:{port}{path}")).body(()).unwrap()
}

/// A request that an upstream was sent, with its body.
type Call = (Request<()>, Vec<u8>);

/// A server that ends its answers with trailers, and tells what it was asked.
fn grpc_server() -> (u16, mpsc::Receiver<Call>) {
    h2_server(answer_call)
}

async fn answer_call(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    tell: mpsc::Sender<Call>,
) {
    let (parts, mut body) = request.into_parts();
    let mut message = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        message.extend_from_slice(&data);
    }
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    stream.send_data(Bytes::from(message.clone()), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    let _ = tell.send((Request::from_parts(parts, ()), message));
}

fn echo() -> Origin {
    Origin::scripted(|served| {
        while let Some((_, body)) = served.read_request_with_body() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-From: Origin\r\n\r\n", body.len());
            served.send(&head);
            served.send(&String::from_utf8(body).unwrap());
        }
    })
}

fn on(port: &str, location: &str) -> Balancer {
    Balancer::start(&format!("server {{ listen 127.0.0.1:{port}; http2 on; location / {{ {location} }} }}"))
}

#[test]
fn one_port_serves_both_versions_in_clear_text_and_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (crt, key) = (folder.path().join("x.crt"), folder.path().join("x.key"));
    let made = Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x -days 3"
                .split(' '),
        )
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&crt)
        .output()
        .unwrap();
    assert!(made.status.success());
    let shown = format!("ssl_certificate {}; ssl_certificate_key {};", crt.display(), key.display());
    let answers = "http2 on; location / { return 200 \"$server_protocol $scheme $connection_requests\"; }";
    let plain = Balancer::start(&format!("server {{ listen 127.0.0.1:PORT; {answers} }}"));
    let tls = Balancer::start(&format!("server {{ listen 127.0.0.1:PORT ssl; {shown} {answers} }}"));
    let curl = |version: &str, urls: &[&str]| {
        let done =
            Command::new("curl").args(["-sk", "--max-time", "20", version]).args(urls).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    let clear = format!("http://127.0.0.1:{}/", plain.port);
    assert_eq!(curl("--http2-prior-knowledge", &[&clear]), "HTTP/2.0 http 1");
    assert_eq!(curl("--http1.1", &[&clear, &clear]), "HTTP/1.1 http 1HTTP/1.1 http 2");
    let sealed = format!("https://127.0.0.1:{}/", tls.port);
    assert_eq!(curl("--http2", &[&sealed, &sealed]), "HTTP/2.0 https 1HTTP/2.0 https 2");
    assert_eq!(curl("--http1.1", &[&sealed, &sealed]), "HTTP/1.1 https 1HTTP/1.1 https 2");
}

#[test]
fn a_request_of_http2_reaches_an_origin_of_http1_with_its_body_and_back() {
    let origin = echo();
    let balancer =
        on("PORT", &format!("proxy_pass http://127.0.0.1:{}; client_max_body_size 0;", origin.port));
    let body = "0123456789".repeat(50_000);
    let request = Request::post(format!("http://name.test:{}/x?y=1", balancer.port))
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(())
        .unwrap();
    let (head, back, _) = ask(balancer.port, request, Some(body.as_bytes()));
    assert_eq!((head.status().as_u16(), head.headers()["x-from"].to_str().unwrap()), (200, "Origin"));
    assert!(head.headers().get("connection").is_none() && head.headers().get("transfer-encoding").is_none());
    assert_eq!(back.len(), body.len());
    assert!(back == body.as_bytes());
    let seen = &origin.seen()[0];
    assert!(seen.starts_with("POST /x?y=1 HTTP/1.1\r\n"), "{seen}");
    assert_eq!(common::header(seen, "cookie"), Some("a=1; b=2"));
}

#[test]
fn trailers_of_an_origin_pass_when_they_are_asked_for() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nSet-Cookie: no\r\n\r\n",
    );
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; http2 on; location / {{ proxy_pass http://127.0.0.1:{port}; }}\n\
         location /with {{ proxy_pass http://127.0.0.1:{port}; proxy_pass_trailers on; }} }}",
        port = origin.port
    ));
    let (_, body, trailers) = ask(balancer.port, get(balancer.port, "/with"), None);
    assert_eq!((&body[..], trailers.len()), (&b"ok"[..], 1));
    assert_eq!(trailers["x-sum"], "7");
    let (_, body, trailers) = ask(balancer.port, get(balancer.port, "/"), None);
    assert_eq!((&body[..], trailers.len()), (&b"ok"[..], 0));
}

#[test]
fn a_page_without_a_body_of_its_own_ends_its_stream() {
    let origin = Origin::answering("HTTP/1.1 304 Not Modified\r\nContent-Length: 300\r\n\r\n");
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; http2 on; error_page 404 /page; location / {{ return 404; }}\n\
         location /page {{ proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port
    ));
    let (head, body, _) = ask(balancer.port, get(balancer.port, "/"), None);
    assert_eq!((head.status().as_u16(), body.len()), (404, 0));
}

#[test]
fn an_answer_that_is_cut_ends_in_a_reset() {
    let origin = Origin::scripted(|served| {
        served.read_request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let balancer = on("PORT", &format!("proxy_pass http://127.0.0.1:{};", origin.port));
    let mut client = Frames::connect(balancer.port);
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, GET);
    assert_eq!(client.first(RST_STREAM).unwrap().stream, 1);
}

#[test]
fn a_grpc_call_passes_with_its_trailers() {
    let (port, told) = grpc_server();
    let balancer = on("PORT", &format!("grpc_pass grpc://127.0.0.1:{port};"));
    let call = |message: &[u8]| {
        let request = Request::post(format!("http://127.0.0.1:{}/pkg.Service/Call", balancer.port))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        ask(balancer.port, request, Some(message))
    };
    for message in [&b"first"[..], b"second"] {
        let (head, body, trailers) = call(message);
        assert_eq!((head.status().as_u16(), &body[..]), (200, message));
        assert_eq!(trailers["grpc-status"], "0");
        let (seen, came) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!((seen.uri().path(), &came[..]), ("/pkg.Service/Call", message));
        assert_eq!(seen.headers()["te"], "trailers");
    }
}

/// Refuses every stream.
fn refusing_server() -> (u16, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let refused = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let count = refused.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((wire, _)) = listener.accept().await {
                let mut connection = h2::server::handshake(wire).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                }
            }
        });
    });
    (port, refused)
}

#[test]
fn a_stream_that_was_refused_is_sent_to_the_next_server_even_if_it_is_a_post() {
    let (refusing, refused) = refusing_server();
    let (port, told) = grpc_server();
    let balancer = Balancer::start(&format!(
        "upstream both {{ server 127.0.0.1:{refusing}; server 127.0.0.1:{port} backup; }}\n\
         server {{ listen 127.0.0.1:PORT; http2 on;\n\
           location / {{ proxy_http_version 2; proxy_pass http://both; proxy_pass_trailers on; }} }}"
    ));
    let request = Request::post(format!("http://127.0.0.1:{}/once", balancer.port)).body(()).unwrap();
    let (head, body, _) = ask(balancer.port, request, Some(b"order"));
    assert_eq!((head.status().as_u16(), &body[..]), (200, &b"order"[..]));
    assert_eq!(refused.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().1, b"order");
    assert!(told.try_recv().is_err(), "once");
}

/// Takes so much of a stream's body, refuses the stream, and says so.
fn refusing_late(len: usize) -> (u16, mpsc::Receiver<()>) {
    h2_server(move |request, mut respond, tell| async move {
        let mut body = request.into_body();
        let mut taken = 0;
        while taken < len {
            let data = body.data().await.unwrap().unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            taken += data.len();
        }
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        let _ = tell.send(());
    })
}

#[test]
fn a_body_of_which_part_is_gone_is_not_sent_to_the_next_server_by_a_refused_stream() {
    let half = "0123456789abcdef".repeat(4096);
    let (refusing, refused) = refusing_late(half.len());
    let (port, told) = grpc_server();
    let balancer = Balancer::start(&format!(
        "upstream both {{ server 127.0.0.1:{refusing}; server 127.0.0.1:{port} backup; }}\n\
         server {{ listen 127.0.0.1:PORT;\n\
           location / {{ proxy_http_version 2; proxy_request_buffering off; proxy_pass http://both; }} }}"
    ));
    let mut client = balancer.client();
    let chunk = format!("{:x}\r\n{half}\r\n", half.len());
    client.send(&format!("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"));
    refused.recv_timeout(PATIENCE).unwrap();
    client.send(&format!("{chunk}0\r\n\r\n"));
    assert_eq!(client.response().status, 502);
    assert!(told.try_recv().is_err(), "the next server got what was left of the body");
}

#[test]
fn an_upstream_of_http2_is_asked_over_one_kept_connection() {
    let inner = on("PORT", "return 200 \"$server_protocol $connection_requests $host\";");
    let balancer = Balancer::start(&format!(
        "upstream inner {{ server 127.0.0.1:{}; keepalive 2; }}\n\
         server {{ listen 127.0.0.1:PORT; location / {{ proxy_http_version 2; proxy_pass http://inner; }} }}",
        inner.port
    ));
    for count in 1..4 {
        assert_eq!(balancer.client().get("/").body, format!("HTTP/2.0 {count} inner"));
    }
    let head = balancer.client().send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").response_to_head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("16")));
    assert_eq!(balancer.client().get("/").body, "HTTP/2.0 5 inner");
}

#[test]
fn who_opens_no_window_loses_the_stream_and_not_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("big"), vec![b'x'; 1 << 20]).unwrap();
    let balancer = on("PORT", &format!("root {}; send_timeout 300ms;", folder.path().display()));
    let mut client = Frames::connect(balancer.port);
    let big = &[0x82, 0x86, 0x04, 4, b'/', b'b', b'i', b'g', 0x41, 1, b'x'];
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, big);
    let started = Instant::now();
    assert_eq!(client.first(RST_STREAM).unwrap().stream, 1);
    assert!(started.elapsed() < Duration::from_secs(10));
    let missing = &[0x82, 0x86, 0x04, 3, b'/', b'n', b'o', 0x41, 1, b'x'];
    client.send(HEADERS, END_STREAM | END_HEADERS, 3, missing);
    assert_eq!(client.first(HEADERS).unwrap().stream, 3);
}

#[test]
fn a_client_that_says_nothing_more_is_sent_away() {
    let balancer = Balancer::start(
        "server { listen 127.0.0.1:PORT; http2 on; keepalive_timeout 300ms; client_header_timeout 300ms;\n\
         location / { return 200 ok; } }",
    );
    let mut client = Frames::connect(balancer.port);
    assert_eq!(client.goodbye(), Some(0), "no request at all");
    let mut client = Frames::connect(balancer.port);
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, GET);
    assert_eq!(client.first(HEADERS).unwrap().stream, 1);
    assert_eq!(client.goodbye(), Some(0), "idle after one");
}

#[test]
fn a_drain_says_goodbye_and_lets_the_stream_under_way_end() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let origin = Origin::scripted(move |served| {
        served.read_request();
        held.lock().unwrap().recv().unwrap();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let balancer = on("PORT", &format!("proxy_pass http://127.0.0.1:{};", origin.port));
    let mut client = Frames::connect(balancer.port);
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, GET);
    wait_until("the request is at the origin", || !origin.seen().is_empty());
    balancer.signal("quit");
    assert_eq!(client.goodbye(), Some(0));
    release.send(()).unwrap();
    assert_eq!(client.first(HEADERS).unwrap().stream, 1);
    assert!(std::iter::from_fn(|| client.next()).count() > 0, "its body, then the end of the connection");
}

/// Two servers of HTTP/2, each of which one failure would take out.
fn before_two_servers(location: &str) -> (Balancer, [mpsc::Receiver<Call>; 2]) {
    let ((one, told_one), (two, told_two)) = (grpc_server(), grpc_server());
    let balancer = Balancer::start(&format!(
        "upstream both {{ server 127.0.0.1:{one}; server 127.0.0.1:{two}; }}\n\
         server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://both; proxy_http_version 2; \
         proxy_read_timeout 1s; {location} }} }}"
    ));
    (balancer, [told_one, told_two])
}

#[test]
fn a_target_that_is_no_utf8_reaches_an_upstream_of_http2_in_escapes() {
    let (balancer, told) = before_two_servers("");
    let mut client = balancer.client();
    client.stream.write_all(b"GET /\xe9<?\xff HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.response().status, 200);
    let call = told.iter().find_map(|told| told.try_recv().ok()).unwrap();
    assert_eq!(call.0.uri().path_and_query().unwrap(), "/%E9%3C?%FF");
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_host_for_which_http2_has_no_words_is_answered_at_once_and_no_server_is_blamed() {
    let (balancer, _told) = before_two_servers("proxy_set_header Host $http_host;");
    for _ in 0..3 {
        let mut client = balancer.client();
        client.send("GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n");
        assert_eq!(client.response().status, 400);
    }
    assert_eq!(balancer.client().get("/").status, 200);
    assert!(!balancer.errors().contains("timed out"));
}

#[test]
fn an_upstream_of_http2_is_always_told_an_authority() {
    let (balancer, told) = before_two_servers("proxy_set_header Host $http_host;");
    let mut client = balancer.client();
    assert_eq!(client.send("GET / HTTP/1.0\r\n\r\n").response().status, 200);
    let call = told.iter().find_map(|told| told.try_recv().ok()).unwrap();
    assert_eq!(call.0.uri().authority().unwrap(), "both");
}
