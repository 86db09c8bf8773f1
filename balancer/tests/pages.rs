//! Pages with commands (`ssi`), charsets, and logs whose names have variables, through the binary.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::io::{Read as _, Write as _};

use common::{Balancer, Origin, wait_until};

fn with_pages(pages: &[(&str, &str)], http: &str) -> Balancer {
    let balancer = Balancer::start(http);
    for (name, text) in pages {
        std::fs::write(balancer.path(name), text).unwrap();
    }
    balancer
}

#[test]
fn a_page_is_made_of_what_its_commands_bring() {
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n<b>\r\n0\r\n\r\n");
    let balancer = with_pages(
        &[
            (
                "page.html",
                "a<!--#include virtual=\"/up?x\" -->b<!--#include virtual=\"/up\" set=\"v\" --><!--#echo var=\"v\" -->",
            ),
            (
                "if.html",
                "<!--#if expr=\"$arg_a = /^1+$/\" -->one<!--#elif expr=\"$arg_a\" -->other<!--#else -->none<!--#endif -->",
            ),
            (
                "nest.html",
                "[<!--#include virtual=\"/if.html?a=11\" -->]<!--#set var=\"x\" value=\"$arg_q-$mine\" --><!--#echo var=\"x\" encoding=\"none\" -->",
            ),
            (
                "stub.html",
                "<!--#block name=\"s\" -->gone<!--#endblock --><!--#include virtual=\"/no.html\" stub=\"s\" --><!--#nonsense -->",
            ),
            ("self.html", "x<!--#include virtual=\"/self.html\" -->"),
        ],
        &format!(
            "ssi on; root DIR; types {{ text/html html; }} map $arg_q $mine {{ default m; }}\n\
             server {{ listen 127.0.0.1:PORT; location / {{ set $never 1; }}\n\
             location /up {{ ssi off; proxy_pass http://127.0.0.1:{}; }} }}",
            origin.port
        ),
    );
    let mut client = balancer.client();
    let page = client.get("/page.html");
    assert_eq!((page.status, &page.body[..]), (200, "a<b>b&lt;b&gt;"));
    assert_eq!(page.header("last-modified"), None, "it is not as old as its text");
    assert!(origin.seen()[0].starts_with("GET /up?x "));
    assert_eq!(client.get("/if.html?a=11").body, "one");
    assert_eq!(client.get("/if.html?a=12").body, "other");
    assert_eq!(client.get("/if.html").body, "none");
    assert_eq!(client.get("/nest.html?q=7").body, "[one]7-m");
    assert_eq!(client.get("/stub.html").body, "gone[an error occurred while processing the directive]");
    let looped = client.get("/self.html");
    assert!(looped.status == 200 && looped.body.starts_with("xxxx"), "it ends");
    assert_eq!(client.get("/if.html").body, "none", "the connection goes on");
}

#[test]
fn pages_of_upstreams_are_made_too_and_what_is_no_page_passes() {
    let origin = Origin::scripted(|served| {
        while let Some(head) = served.read_request() {
            let kind = if head.starts_with("GET /text") { "text/plain" } else { "text/html" };
            let body = "<!--#echo var=\"arg_a\" -->";
            served.send(&format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nETag: \"1\"\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
    });
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; ssi on; gzip on; gzip_min_length 1;\n\
         location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port
    ));
    let mut client = balancer.client();
    assert_eq!(client.get("/?a=%3Ci").body, "%3Ci");
    assert_eq!(client.get("/text").body, "<!--#echo var=\"arg_a\" -->");
    client.send("GET /?a=zz HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n");
    let (answer, _) = client.rest();
    assert!(String::from_utf8_lossy(&answer).contains("Content-Encoding: gzip"));
    client = balancer.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_to_head().status, 200);
}

#[test]
fn a_charset_is_named_where_a_text_does_not_say_its_own() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=latin1\r\nContent-Length: 0\r\n\r\n",
    );
    let balancer = Balancer::start(&format!(
        "charset utf-8; default_type text/plain;\n\
         server {{ listen 127.0.0.1:PORT; location / {{ return 200 x; }} location /off {{ charset off; return 200 x; }}\n\
         location /up {{ proxy_pass http://127.0.0.1:{}; }} location /over {{ override_charset on; proxy_pass http://127.0.0.1:{}; }}\n\
         location /bin {{ default_type image/png; return 200 x; }} }}",
        origin.port, origin.port
    ));
    let mut client = balancer.client();
    let mut kind = |path: &str| client.get(path).header("content-type").unwrap().to_owned();
    assert_eq!(kind("/"), "text/plain; charset=utf-8");
    assert_eq!(kind("/off"), "text/plain");
    assert_eq!(kind("/up"), "text/html; charset=latin1");
    assert_eq!(kind("/over"), "text/html; charset=utf-8");
    assert_eq!(kind("/bin"), "image/png");
}

#[test]
fn logs_may_have_variables_in_their_names_and_may_be_packed() {
    let balancer = Balancer::start(
        "log_format short $uri; server { listen 127.0.0.1:PORT;\n\
         location / { access_log DIR/log_$arg_n short; access_log DIR/packed.gz short gzip flush=10ms; return 200 x; } }",
    );
    let mut client = balancer.client();
    for path in ["/a?n=1", "/b?n=2", "/c?n=1", "/d?n=../../x"] {
        assert_eq!(client.get(path).status, 200);
    }
    let read = |name: &str| std::fs::read_to_string(balancer.path(name)).unwrap_or_default();
    wait_until("all is written", || read("log_1") == "/a\n/c\n" && read("log_2") == "/b\n");
    wait_until("the refusal is told", || balancer.errors().contains("\"..\" in the name of a log"));
    wait_until("the packed log can be read", || {
        let mut text = String::new();
        let packed = std::fs::read(balancer.path("packed.gz")).unwrap_or_default();
        flate2::read::MultiGzDecoder::new(&packed[..]).read_to_string(&mut text).is_ok()
            && text == "/a\n/b\n/c\n/d\n"
    });
}

#[test]
fn a_header_variable_that_is_set_somewhere_is_the_clients_elsewhere() {
    let balancer = Balancer::start(
        "server { listen 127.0.0.1:PORT; location /set { set $http_x mine; return 200 $http_x; }\n\
         location / { return 200 $http_x; } }",
    );
    let ask = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX: theirs\r\n\r\n");
        balancer.client().send(&request).response().body
    };
    assert_eq!((&ask("/set")[..], &ask("/")[..]), ("mine", "theirs"));
}

#[test]
fn an_included_answer_may_begin_before_its_request_is_whole() {
    let origin = Origin::scripted(|served| {
        let head = served.read_head().unwrap();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
        let len = common::header(&head, "content-length").unwrap().parse().unwrap();
        served.read_exactly(&mut vec![0; len]);
        served.send("part");
    });
    // Far more than sockets hold.
    let mut sets = format!("set $body0 {};", "x".repeat(1024));
    for level in 1..=7 {
        sets.push_str(&format!(" set $body{level} {};", format!("$body{}", level - 1).repeat(4)));
    }
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; ssi on; default_type text/html;\n\
         location = /page {{ return 200 'a <!--#include virtual=\"/part\" --> b'; }}\n\
         location /part {{ {sets} proxy_set_body $body7; proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port
    ));
    assert_eq!(balancer.client().get("/page").body, "a part b");
}

#[test]
fn an_include_opens_nothing_above_the_root() {
    let balancer = Balancer::start(
        "ssi on; root DIR/site; types { text/html html; } server { listen 127.0.0.1:PORT; location / { } }",
    );
    std::fs::create_dir_all(balancer.path("site/inc")).unwrap();
    for (name, text) in [
        ("secret.html", "secret"),
        ("site/inc/a b.html", "beside"),
        ("site/virtual.html", "[<!--#include virtual=\"/inc/$arg_page\" -->]"),
        ("site/inc/file.html", "[<!--#include file=\"$arg_page\" -->]"),
        (
            "site/set.html",
            "[<!--#set var=\"p\" value=\"inc/$arg_page\" --><!--#include virtual=\"/$p?x\" -->]",
        ),
    ] {
        std::fs::write(balancer.path(name), text).unwrap();
    }
    let mut client = balancer.client();
    for page in ["/virtual.html", "/inc/file.html", "/set.html"] {
        for climb in ["../../secret.html", "%2e%2e/%2E./secret.html", "x/../a%20b.html", ".."] {
            let body = client.get(&format!("{page}?page={climb}")).body;
            assert_eq!(body, "[[an error occurred while processing the directive]]", "{page} {climb}");
        }
        assert_eq!(client.get(&format!("{page}?page=a%20b.html")).body, "[beside]", "{page}");
    }
    assert!(balancer.errors().contains("unsafe URI \"/inc/../../secret.html\" was detected"));
}

#[test]
fn includes_that_multiply_end() {
    let twice = "x<!--#include virtual=\"/twice.html\" --><!--#include virtual=\"/twice.html\" -->";
    let long = "<!--#include virtual=\"/mega.txt\" -->".repeat(20);
    let mega = "m".repeat(1024 * 1024);
    let balancer = with_pages(
        &[("twice.html", twice), ("long.html", &long), ("mega.txt", &mega)],
        "ssi on; root DIR; types { text/html html; text/plain txt; }\n\
         server { listen 127.0.0.1:PORT; location / { } }",
    );
    let long = balancer.client().get("/long.html").body;
    assert_eq!(long.matches("an error occurred").count(), 4);
    assert_eq!(long.matches(&mega).count(), 16);
    let twice = balancer.client().get("/twice.html").body;
    assert!(twice.matches('x').count() <= 1001 && twice.contains("an error occurred"));
}

#[test]
fn a_pipe_among_the_files_makes_nobody_wait() {
    let balancer = with_pages(
        &[("x.txt", "plain")],
        "root DIR; gzip_static always; server { listen 127.0.0.1:PORT; location / { } }",
    );
    for name in ["x.txt.gz", "pipe"] {
        assert!(std::process::Command::new("mkfifo").arg(balancer.path(name)).status().unwrap().success());
    }
    assert_eq!(balancer.client().get("/x.txt").body, "plain");
    assert_eq!(balancer.client().get("/pipe").status, 404);
}

#[test]
fn a_log_tells_what_was_packed_and_what_came_behind_a_body() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 17\r\nX-Sum: 18\r\n\r\n",
    );
    let text = "text ".repeat(100);
    let balancer = Balancer::start(&format!(
        "log_format what '$uri [$gzip_ratio] [$upstream_trailer_x_sum] [$upstream_cache_status]';\n\
         gzip on; gzip_types text/plain; gzip_http_version 1.0; access_log DIR/what.log what;\n\
         server {{ listen 127.0.0.1:PORT; location / {{ return 200 '{text}'; }}\n\
         location /up {{ proxy_pass http://127.0.0.1:{port}; }}\n\
         location /up/on {{ proxy_pass_trailers on; proxy_pass http://127.0.0.1:{port}; }} }}",
        port = origin.port
    ));
    let mut client = balancer.client();
    client.send("GET /packed HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert!(client.head().unwrap().contains("Content-Encoding: gzip"));
    let (packed, _) = client.rest();
    for path in ["/plain", "/up", "/up/on"] {
        assert_eq!(balancer.client().get(path).status, 200);
    }
    // Rounded, as nginx rounds it.
    let ratio = (text.len() * 1000 / packed.len() + 5) / 10;
    let lines = [
        format!("/packed [{}.{:02}] [-] [-]\n", ratio / 100, ratio % 100),
        "/plain [-] [-] [-]\n".to_owned(),
        "/up [-] [-] [-]\n".to_owned(),
        "/up/on [-] [17, 18] [-]\n".to_owned(),
    ];
    let log = || std::fs::read_to_string(balancer.path("what.log")).unwrap_or_default();
    wait_until("all is in the log", || log().lines().count() == lines.len());
    assert_eq!(log(), lines.concat());
}

#[test]
fn a_log_tells_what_the_kernel_knows_of_a_connection() {
    let balancer = Balancer::start(
        "server { listen 127.0.0.1:PORT; listen unix:DIR/socket;\n\
         location / { return 200 '$tcpinfo_rtt $tcpinfo_rttvar $tcpinfo_snd_cwnd $tcpinfo_rcv_space'; } }",
    );
    let told = balancer.client().get("/").body;
    let numbers: Vec<u32> = told.split(' ').map(|number| number.parse().unwrap()).collect();
    assert!(numbers.len() == 4 && numbers.iter().all(|number| *number > 0), "{told}");
    let mut client = std::os::unix::net::UnixStream::connect(balancer.path("socket")).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\n   "), "{answer}");
}
