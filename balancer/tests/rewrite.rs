//! `set`, `if`, `rewrite`, `return`, files and `try_files` over the wire.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod nginx;

use std::io::{Read, Write};

use common::{Balancer, Client};
use nginx::Nginx;

/// Status line, and the rest, of one answer.
fn ask(balancer: &Balancer, request: &str) -> (String, String) {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", balancer.port)).unwrap();
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (status, rest) = answer.split_once("\r\n").unwrap();
    (status.to_owned(), rest.to_owned())
}

fn get(balancer: &Balancer, target: &str) -> (String, String) {
    ask(balancer, &format!("GET {target} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"))
}

fn body(balancer: &Balancer, target: &str) -> String {
    get(balancer, target).1.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn location(balancer: &Balancer, target: &str) -> String {
    let (_, head) = get(balancer, target);
    let line = head.lines().find_map(|line| line.strip_prefix("Location: "));
    line.unwrap_or_else(|| panic!("no Location in {head}")).to_owned()
}

#[test]
fn steps_run_in_their_order() {
    let balancer = Balancer::start(
        r#"server { listen 127.0.0.1:PORT;
          set $where server;
          location /set { set $a 1; set $b "$a-$where"; return 200 "$b"; }
          location /if {
            if ($arg_x = yes) { set $seen "equal"; }
            if ($arg_x ~* ^(m.*)$) { set $seen "match $1"; }
            if ($arg_x !~ m) { set $seen "$seen, no m"; }
            if ($arg_y) { return 403; }
            return 200 "$seen";
          }
          location /old/ { rewrite ^/old/(.*)$ /new/$1?from=old last; return 500; }
          location /new/ { return 200 "$uri $args"; }
          location /stay/ { rewrite ^/stay/(.*)$ /new/$1 break; return 200 "stayed"; }
          location /loop/ { rewrite ^ /loop/again last; }
          location /gone/ { rewrite ^/gone/(?<rest>.*)$ https://example.org/$rest permanent; }
          location /temp/ { rewrite ^/temp/(.*)$ /new/$1? redirect; }
        }"#,
    );
    assert_eq!(body(&balancer, "/set"), "1-server");
    assert_eq!(body(&balancer, "/if?x=yes"), "equal, no m");
    assert_eq!(body(&balancer, "/if?x=Mine"), "match Mine, no m");
    assert_eq!(body(&balancer, "/if?x=mine"), "match mine");
    assert!(get(&balancer, "/if?y=1").0.contains("403"));
    assert_eq!(body(&balancer, "/old/a%20b?c=d"), "/new/a b from=old&c=d");
    assert!(get(&balancer, "/loop/").0.contains("500"));
    assert_eq!(location(&balancer, "/gone/x?y=z"), "https://example.org/x?y=z");
    assert!(location(&balancer, "/temp/x?y=z").ends_with("/new/x"));
}

#[test]
fn a_server_s_steps_come_before_its_locations() {
    let balancer = Balancer::start(
        r#"server { listen 127.0.0.1:PORT;
          if ($http_x_block) { return 429; }
          rewrite ^/a$ /b;
          location /a { return 200 a; }
          location /b { return 200 b; }
        }"#,
    );
    assert_eq!(body(&balancer, "/a"), "b");
    let blocked = ask(&balancer, "GET /b HTTP/1.1\r\nHost: h\r\nX-Block: 1\r\nConnection: close\r\n\r\n");
    assert!(blocked.0.contains("429"), "{blocked:?}");
}

#[test]
fn files_are_found_typed_and_cut() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("index.html"), "<p>home</p>").unwrap();
    std::fs::write(folder.path().join("sub/page.html"), "0123456789").unwrap();
    let balancer = Balancer::start(&format!(
        r#"root {dir};
        server {{ listen 127.0.0.1:PORT;
          location / {{ }}
          location /try/ {{ try_files /missing$uri /sub/page.html =418; }}
          location /none/ {{ try_files $uri @named; }}
          location @named {{ return 200 named; }}
          location /as/ {{ alias {dir}/sub/; }}
        }}"#
    ));
    let (status, home) = get(&balancer, "/");
    assert!(
        status.contains("200") && home.contains("Content-Type: text/html") && home.ends_with("<p>home</p>")
    );
    assert_eq!(body(&balancer, "/sub/page.html"), "0123456789");
    assert_eq!(body(&balancer, "/as/page.html"), "0123456789");
    assert_eq!(body(&balancer, "/try/x"), "0123456789");
    assert_eq!(body(&balancer, "/none/x"), "named");
    assert!(get(&balancer, "/sub").0.contains("301") && location(&balancer, "/sub").ends_with("/sub/"));
    assert!(get(&balancer, "/sub/").0.contains("403"));
    assert!(get(&balancer, "/nothing").0.contains("404"));
    assert!(get(&balancer, "/../etc/passwd").0.contains("400"));
    let post = ask(&balancer, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert!(post.0.contains("405"));
    let ranged = ask(
        &balancer,
        "GET /sub/page.html HTTP/1.1\r\nHost: h\r\nRange: bytes=2-4\r\nConnection: close\r\n\r\n",
    );
    assert!(ranged.0.contains("206") && ranged.1.contains("Content-Range: bytes 2-4/10"), "{ranged:?}");
    assert!(ranged.1.ends_with("\r\n\r\n234"));
    let tag = get(&balancer, "/")
        .1
        .lines()
        .find_map(|line| line.strip_prefix("ETag: ").map(str::to_owned))
        .unwrap();
    let again = ask(
        &balancer,
        &format!("GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n"),
    );
    assert!(again.0.contains("304") && again.1.ends_with("\r\n\r\n"), "{again:?}");
}

#[test]
fn a_large_file_arrives_whole() {
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..300_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
    std::fs::write(folder.path().join("large"), &content).unwrap();
    let balancer =
        Balancer::start(&format!("root {}; server {{ listen 127.0.0.1:PORT; }}", folder.path().display()));
    assert_eq!(body(&balancer, "/large").as_bytes(), content);
}

#[test]
fn an_upstream_that_one_if_named_and_the_next_forgot_is_a_500_as_in_nginx() {
    let balancer = Balancer::start(
        "server { listen 127.0.0.1:PORT; location = /there { return 204; } location / { set $yes 1;\n\
         if ($yes) { proxy_pass http://127.0.0.1:PORT; } if ($arg_forget) { set $x 1; } } }",
    );
    assert!(get(&balancer, "/x?forget=1").0.contains(" 500 "));
    assert!(!get(&balancer, "/there").0.contains(" 500 "));
}

#[test]
fn captures_are_forgotten_and_escaped_as_in_nginx() {
    let http = r#"server { listen 127.0.0.1:PORT;
      location /set/ { if ($uri ~ ^/set/(.*)$) { set $a "<$1>$arg_q"; } return 200 "$a"; }
      location ~ ^/found/(.*)$ { set $a $1$1; return 200 "$a $1"; }
      location /after/ { rewrite ^/after/(.*)$ /after/x; set $a $1; return 200 "$a"; }
      location /before/ { rewrite ^/none/(.*)$ /after/x; if ($uri ~ ^/b\w+/(.*)$) { set $a $1; } return 200 "$a"; }
      location ~ ^/gone/(.*)$ { if ($arg_q ~ ^z(.*)$) { set $b "$1"; } return 200 "[$1] [$b]"; }
      location ~ ^/failed/(.*)$ { rewrite ^/no/(.*)$ /x; return 200 "[$1]"; }
      location ~ ^/not/(.*)$ { if ($arg_q !~ ^z(.*)$) { set $b "no $1"; } return 200 "[$1] [$b]"; }
      location ~ ^/bare/(.*)$ { if ($arg_q ~ z) { set $b "yes $1"; } return 200 "[$1] [$b]"; }
      location ~ ^/named/(?<n>.*)$ { if ($arg_q ~ ^(z)) { set $b 1; } return 200 "[$n] [$1]"; }
      location ~ ^/equal/(.*)$ { if ($arg_q = $1) { return 200 "equal"; } return 200 "not equal"; }
      location ~ ^/file/(.*)$ { if (-f /$1) { return 200 "a file"; } return 200 "no file"; }
      location ~ ^/rest/(.*)$ { if ($arg_q ~ ^z) { set $b 1; } rewrite ^ /answer/$1 last; }
      location /answer/ { return 200 "$uri"; } }"#;
    let (balancer, nginx) = (Balancer::start(http), Nginx::start(http));
    let mut escaped = 0;
    for place in
        ["set", "found", "after", "before", "gone", "failed", "not", "bare", "named", "equal", "file", "rest"]
    {
        for rest in
            ["a", "a%20b", "a+b", "a%2Bb?q=a%2Bb", "a%20b?q=a%20b", "a&b", "%C3%A9;%25", "etc/hostname"]
        {
            for query in ["", "q=a", "q=zed", "q=a%20b"] {
                let query = if rest.contains('?') { query.into() } else { format!("?{query}") };
                let target = format!("/{place}/{rest}{query}");
                let ours = body(&balancer, &target);
                assert_eq!(ours, Client::connect(nginx.port).get(&target).body, "{target}");
                escaped += usize::from(ours.contains("%20") || ours.contains("%2B"));
            }
        }
    }
    assert!(escaped > 0, "nothing had to be escaped");
    assert_eq!(body(&balancer, "/gone/a"), "[] []");
    assert_eq!(body(&balancer, "/set/a%20b"), "<a%20b>");
}
