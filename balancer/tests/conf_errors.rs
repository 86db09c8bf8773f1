//! What is refused, in nginx's words and with the place.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod conf_world;

use conf_world::{complaint, load};

/// The complaint about an http block that starts on line 2.
fn in_http(text: &str) -> String {
    complaint(&format!("events {{}}\nhttp {{\n{text}\n}}\n"))
}

fn in_location(text: &str) -> String {
    in_http(&format!("server {{ listen 80; location / {{\n{text}\n}} }}"))
}

#[test]
fn the_form_of_directives_is_checked() {
    let cases = [
        ("bogus on;", "unknown directive \"bogus\" in /etc/nginx.conf:3"),
        ("\n\nlisten 80;", "\"listen\" directive is not allowed here in /etc/nginx.conf:5"),
        ("server_tokens;", "invalid number of arguments in \"server_tokens\" directive in /etc/nginx.conf:3"),
        (
            "merge_slashes maybe;",
            "invalid value \"maybe\" in \"merge_slashes\" directive, it must be \"on\" or \"off\" in /etc/nginx.conf:3",
        ),
        ("server_tokens maybe;", "invalid value \"maybe\" in /etc/nginx.conf:3"),
        (
            "client_body_min_rate fast; server { }",
            "\"client_body_min_rate\" directive invalid value in /etc/nginx.conf:3",
        ),
        (
            "client_header_min_rate 1k before=1s; server { }",
            "invalid parameter \"before=1s\" in /etc/nginx.conf:3",
        ),
        ("send_timeout soon;", "\"send_timeout\" directive invalid value in /etc/nginx.conf:3"),
        ("keepalive_requests -1;", "\"keepalive_requests\" directive invalid number in /etc/nginx.conf:3"),
        ("send_timeout 1;\nsend_timeout 2;", "\"send_timeout\" directive is duplicate in /etc/nginx.conf:4"),
        ("server;", "directive \"server\" has no opening \"{\" in /etc/nginx.conf:3"),
        ("send_timeout 1 { }", "directive \"send_timeout\" is not terminated by \";\" in /etc/nginx.conf:3"),
        (";", "unexpected \";\" in /etc/nginx.conf:3"),
        ("send_timeout 1", "unexpected \"}\" in /etc/nginx.conf:4"),
    ];
    for (text, expected) in cases {
        assert_eq!(in_http(text), expected, "{text}");
    }
    assert_eq!(complaint("events {} http {"), "unexpected end of file, expecting \"}\" in /etc/nginx.conf:1");
    assert_eq!(complaint("events {} }"), "unexpected \"}\" in /etc/nginx.conf:1");
    assert_eq!(complaint("http {}"), "no \"events\" section in configuration");
    assert_eq!(complaint("pid"), "unexpected end of file, expecting \";\" or \"}\" in /etc/nginx.conf:1");
    assert_eq!(
        complaint("worker_processes many; events {}"),
        "\"worker_processes\" directive invalid value in /etc/nginx.conf:1"
    );
    assert_eq!(
        complaint("worker_priority low; events {}"),
        "\"worker_priority\" directive invalid number in /etc/nginx.conf:1"
    );
    assert_eq!(
        complaint("env PATH; env TZ=UTC; events {}"),
        "\"TZ\" is taken from the balancer's own environment only in /etc/nginx.conf:1"
    );
    assert_eq!(
        complaint("error_log stderr loud; events {}"),
        "invalid log level \"loud\" in /etc/nginx.conf:1"
    );
}

#[test]
fn names_must_be_known() {
    let cases = [
        ("log_format a $nothing;", "unknown \"nothing\" variable in /etc/nginx.conf:3"),
        ("log_format a '$';", "invalid variable name in \"$\" in /etc/nginx.conf:3"),
        ("access_log /x unknown; server {}", "unknown log format \"unknown\" in /etc/nginx.conf:3"),
        ("log_format a b; log_format a c;", "duplicate \"log_format\" name \"a\" in /etc/nginx.conf:3"),
        ("server { location ~ ^/(?<host>.) { } }", "the duplicate \"host\" variable in /etc/nginx.conf:3"),
        ("map $a $a { } server {}", "cycle while evaluating variable \"a\" in /etc/nginx.conf:3"),
        ("map $host $a { x 1;\n x 2; }", "conflicting parameter \"x\" in /etc/nginx.conf:4"),
        (
            "map $host $a { ~a++b 1; }",
            "pattern \"a++b\" cannot be used: possessive quantifiers are not supported in /etc/nginx.conf:3",
        ),
        (
            "map $host $a { ~(?!a)b 1; }",
            "pattern \"(?!a)b\" cannot be used: look-around, including look-ahead and look-behind, is not supported in /etc/nginx.conf:3",
        ),
        (
            "map $host $a { ~(a)\\1 1; }",
            "pattern \"(a)\\1\" cannot be used: backreferences are not supported in /etc/nginx.conf:3",
        ),
        (
            "map $host $a { ~(?>a)b 1; }",
            "pattern \"(?>a)b\" cannot be used: unrecognized flag in /etc/nginx.conf:3",
        ),
        ("map $host $a { ~( 1; }", "pattern \"(\" cannot be used: unclosed group in /etc/nginx.conf:3"),
    ];
    for (text, expected) in cases {
        assert_eq!(in_http(text), expected, "{text}");
    }
}

#[test]
fn weights_and_times_of_servers_have_bounds() {
    for word in ["weight=65536", "fail_timeout=101y", "slow_start=3153600001"] {
        let expected = format!("invalid parameter \"{word}\" in /etc/nginx.conf:3");
        assert_eq!(in_http(&format!("upstream u {{ server web-1 {word}; }}")), expected);
    }
}

#[test]
fn upstreams_must_make_sense() {
    let cases = [
        ("upstream u { }", "no servers are inside upstream in /etc/nginx.conf:3"),
        (
            "upstream u { server nowhere:80; }",
            "host not found in upstream \"nowhere:80\" in /etc/nginx.conf:3",
        ),
        ("upstream u { server web-1:0; }", "invalid port in upstream \"web-1:0\" in /etc/nginx.conf:3"),
        ("upstream u { server web-1 weight=0; }", "invalid parameter \"weight=0\" in /etc/nginx.conf:3"),
        (
            "upstream u { server web-1 slow_start=often; }",
            "invalid parameter \"slow_start=often\" in /etc/nginx.conf:3",
        ),
        (
            "upstream u { random; server web-1 slow_start=3s; }",
            "balancing method does not support parameter \"slow_start\" in /etc/nginx.conf:3",
        ),
        (
            "upstream u { ip_hash; server web-1; server web-2 backup; }",
            "balancing method does not support parameter \"backup\" in /etc/nginx.conf:3",
        ),
        (
            "upstream u { server web-1; } upstream u { server web-1; }",
            "duplicate upstream \"u\" in /etc/nginx.conf:3",
        ),
        (
            "upstream u { least_conn; hash_balance_factor 150; server web-1; }",
            "\"hash_balance_factor\" directive needs \"hash\" in the same upstream in /etc/nginx.conf:3",
        ),
        (
            "upstream u { hash $uri; hash_balance_factor 100; server web-1; }",
            "\"hash_balance_factor\" directive invalid value, it must be 0 or more than 100 in /etc/nginx.conf:3",
        ),
        ("upstream u { least_time soon; server web-1; }", "invalid value \"soon\" in /etc/nginx.conf:3"),
        ("upstream u { server web-1; queue 0; }", "invalid value \"0\" in /etc/nginx.conf:3"),
        (
            "upstream u { server web-1; queue 5 time=1s; }",
            "invalid parameter \"time=1s\" in /etc/nginx.conf:3",
        ),
        (
            "upstream u { state /s; zone z; server web-1; }",
            "\"server\" directive is not compatible with \"state\" in /etc/nginx.conf:3",
        ),
        (
            "upstream u { state /s; }",
            "\"state\" directive needs a \"zone\" in the same upstream in /etc/nginx.conf:3",
        ),
        ("upstream u { server web-1; sticky by luck; }", "unknown parameter \"by\" in /etc/nginx.conf:3"),
        (
            "upstream u { server web-1; sticky cookie c samesite=often; }",
            "\"sticky\" directive invalid \"samesite\" parameter value in /etc/nginx.conf:3",
        ),
        (
            "upstream u { server web-1; sticky learn lookup=$cookie_a create=$cookie_a; }",
            "\"sticky\" directive \"zone\" parameter is not specified in /etc/nginx.conf:3",
        ),
        (
            "upstream a { server web-1; sticky learn zone=z:1m lookup=$cookie_a create=$cookie_a; }\
             upstream b { server web-1; sticky learn zone=z:1m lookup=$cookie_a create=$cookie_a; }",
            "sticky zone \"z\" is already used in upstream \"a\" in /etc/nginx.conf:3",
        ),
        ("match m { } match m { }", "duplicate match \"m\" in /etc/nginx.conf:3"),
        ("match m { status 99; }", "invalid status \"99\" in /etc/nginx.conf:3"),
        ("match m { header A like b; }", "\"header\" directive invalid parameters in /etc/nginx.conf:3"),
    ];
    for (text, expected) in cases {
        assert_eq!(in_http(text), expected, "{text}");
    }
}

#[test]
fn locations_must_make_sense() {
    let cases = [
        ("proxy_pass group;", "invalid URL prefix in /etc/nginx.conf:4"),
        ("proxy_pass http://nowhere;", "host not found in upstream \"nowhere\" in /etc/nginx.conf:4"),
        (
            "health_check;",
            "\"health_check\" directive needs a \"proxy_pass\" to a group in the same location in /etc/nginx.conf:4",
        ),
        (
            "proxy_pass http://web-1; health_check fails=0;",
            "invalid parameter \"fails=0\" in /etc/nginx.conf:4",
        ),
        ("proxy_pass http://web-1; health_check match=m;", "match \"m\" is not defined in /etc/nginx.conf:4"),
        (
            "proxy_pass http://web-1; health_check type=grpc;",
            "\"type=grpc\" needs \"grpc_pass\" or \"proxy_http_version 2\" in /etc/nginx.conf:4",
        ),
        (
            "grpc_pass web-1; health_check type=grpc uri=/x;",
            "\"type=grpc\" goes with neither \"uri\" nor \"match\" in /etc/nginx.conf:4",
        ),
        (
            "grpc_pass web-1; health_check grpc_status=12;",
            "\"grpc_service\" and \"grpc_status\" need \"type=grpc\" in /etc/nginx.conf:4",
        ),
        ("api write=maybe;", "invalid parameter \"write=maybe\" in /etc/nginx.conf:4"),
        ("dashboard api;", "invalid parameter \"api\" in /etc/nginx.conf:4"),
        ("proxy_next_upstream http_501;", "invalid value \"http_501\" in /etc/nginx.conf:4"),
        ("return 1000;", "invalid return code \"1000\" in /etc/nginx.conf:4"),
        ("return text;", "invalid return code \"text\" in /etc/nginx.conf:4"),
        ("allow 10.0.0.0/33;", "invalid parameter \"10.0.0.0/33\" in /etc/nginx.conf:4"),
        ("error_page 200 /x;", "value \"200\" must be between 300 and 599 in /etc/nginx.conf:4"),
        ("location @x { }", "named location \"@x\" can be on the server level only in /etc/nginx.conf:4"),
        ("add_header A b sometimes;", "invalid parameter \"sometimes\" in /etc/nginx.conf:4"),
        ("access_log off on;", "invalid parameter \"on\" in /etc/nginx.conf:4"),
        (
            "access_log /x combined flush=1s;",
            "no buffer is defined for access_log \"/x\" in /etc/nginx.conf:4",
        ),
        (
            "access_log /x combined buffer=1k;\naccess_log /x combined buffer=1k flush=1s;",
            "access_log \"/x\" already defined with conflicting parameters in /etc/nginx.conf:5",
        ),
        (
            "access_log /x combined buffer=64k;\naccess_log /x combined gzip;",
            "access_log \"/x\" already defined with conflicting parameters in /etc/nginx.conf:5",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(in_location(text), expected, "{text}");
    }
    let server = |text: &str| in_http(&format!("server {{ listen 80; {text} }}"));
    assert_eq!(server("location /a { } location /a { }"), "duplicate location \"/a\" in /etc/nginx.conf:3");
    assert_eq!(
        server("location =/a { location /a/b { } }"),
        "location \"/a/b\" cannot be inside the exact location \"/a\" in /etc/nginx.conf:3"
    );
    assert_eq!(
        server("location /a { location /b { } }"),
        "location \"/b\" is outside location \"/a\" in /etc/nginx.conf:3"
    );
    assert!(
        server("location ~ x { proxy_pass http://web-1/y; }")
            .contains("cannot have URI part in location given by regular expression")
    );
}

#[test]
fn listens_must_make_sense() {
    let cases = [
        ("server { listen 0; }", "invalid port in \"0\" of the \"listen\" directive in /etc/nginx.conf:3"),
        (
            "server { ssl_session_cache shared:S:1m; } server { ssl_session_cache shared:S:2m; }",
            "the size 2097152 of shared memory zone \"S\" conflicts with already declared size 1048576 in /etc/nginx.conf:3",
        ),
        (
            "server { listen 80 ssl; }",
            "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in /etc/nginx.conf:3",
        ),
        (
            "server { listen 80 quic; }",
            "parameter \"quic\" of \"listen\" is not supported yet in /etc/nginx.conf:3",
        ),
        (
            "server { listen 80 so_keepalive=::; }",
            "invalid parameter \"so_keepalive=::\" in /etc/nginx.conf:3",
        ),
        (
            "server { listen 80 so_keepalive=1:2:x; }",
            "invalid parameter \"so_keepalive=1:2:x\" in /etc/nginx.conf:3",
        ),
        ("server { listen 80 fastopen=many; }", "invalid parameter \"fastopen=many\" in /etc/nginx.conf:3"),
        ("server { listen 80 fast; }", "invalid parameter \"fast\" in /etc/nginx.conf:3"),
        ("server { listen 80; listen 80; }", "a duplicate listen 0.0.0.0:80 in /etc/nginx.conf:3"),
        (
            "server { listen 80 default_server; }\nserver { listen 80 default_server; }",
            "a duplicate default server for 0.0.0.0:80 in /etc/nginx.conf:4",
        ),
        (
            "server { listen 80 backlog=1; }\nserver { listen 80 backlog=2; }",
            "duplicate listen options for 0.0.0.0:80 in /etc/nginx.conf:4",
        ),
        ("server { server_name a*b; }", "server name \"a*b\" is invalid in /etc/nginx.conf:3"),
    ];
    for (text, expected) in cases {
        assert_eq!(in_http(text), expected, "{text}");
    }
}

#[test]
fn mistakes_in_included_files_are_found_there() {
    let error = load(&[
        ("/etc/nginx.conf", "events {}\nhttp {\n include a.inc;\n}"),
        ("/etc/a.inc", "server {\n listen 80;\n nonsense;\n}"),
    ]);
    assert_eq!(error.unwrap_err(), "unknown directive \"nonsense\" in /etc/a.inc:3");
    let error = load(&[("/etc/nginx.conf", "events {}\ninclude missing.inc;")]);
    assert_eq!(
        error.unwrap_err(),
        "open() \"/etc/missing.inc\" failed (2: No such file or directory) in /etc/nginx.conf:2"
    );
    let error = load(&[("/etc/nginx.conf", "include nginx.conf;")]);
    assert!(error.unwrap_err().starts_with("more than 32 files include one another"));
}

proptest::proptest! {
    /// Whatever an operator types, there is an answer and no panic.
    #[test]
    fn any_text_is_understood_or_refused(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "http", "events", "server", "location", "upstream", "map", "{", "}", ";", "listen", "80", "/", "~", "(",
                "$host", "$", "proxy_pass", "http://web-1", "return", "200", "server_name", "a", "\"", "'", "#", "\n",
                "keepalive", "hash", "zone", "include", "log_format", "access_log", "off", "\\", "=", "^~", "@x",
            ]),
            0..40,
        )
    ) {
        let _ = load(&[("/etc/nginx.conf", &words.join(" "))]);
    }
}
