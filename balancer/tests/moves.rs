//! Where a request ends up after rewrites and moves inside, and what its upstream is asked: through a real nginx and
//! through us, the same.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod nginx;

use common::{Balancer, Client, Origin};
use nginx::Nginx;

/// Tells the request's line.
fn origin() -> Origin {
    Origin::scripted(|served| {
        while let Some((head, _)) = served.read_request_with_body() {
            let line = head.lines().next().unwrap();
            served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len()));
        }
    })
}

/// Asks both programs. What is expected is the status, or the line that the origin got, or the body.
fn both(http: &str, cases: &[(&str, &str)]) {
    let origin = origin();
    let http = http.replace("ORIGIN", &format!("127.0.0.1:{}", origin.port));
    let http = format!("upstream app {{ server 127.0.0.1:{}; }} {http}", origin.port);
    let nginx = Nginx::start(&http);
    let balancer = Balancer::start(&http);
    for (name, port) in [("nginx", nginx.port), ("balancer", balancer.port)] {
        for (request, expected) in cases {
            assert_eq!(ask(port, request), *expected, "{name} for {request}");
        }
    }
}

fn ask(port: u16, request: &str) -> String {
    let (method, target) = request.split_once(' ').unwrap_or(("GET", request));
    let text = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let answer = Client::connect(port).send(&text).response();
    if answer.status != 200 {
        return answer.status.to_string();
    }
    answer.body.trim_end_matches(" HTTP/1.0").trim_end_matches(" HTTP/1.1").to_owned()
}

#[test]
fn a_named_location_keeps_its_limit_except() {
    both(
        "server { listen 127.0.0.1:PORT; location / { try_files /none @app; }
         location @app { limit_except GET { deny all; } proxy_pass http://app; }
         location /old { error_page 404 = @app; return 404; } }",
        &[("/x", "GET /x"), ("POST /x", "403"), ("/old", "GET /old"), ("PUT /old", "403")],
    );
}

#[test]
fn a_rewrite_that_stays_leaves_nothing_of_the_location_s_path_to_replace() {
    both(
        "server { listen 127.0.0.1:PORT;
         rewrite ^/early/(.*)$ /name/$1 break;
         location /name/ { rewrite ^/name/([^/]+)$ /users?name=$1 break; proxy_pass http://app/remote/; }
         location /go/ { rewrite ^/go/(.*)$ /gone/$1 last; }
         location /gone/ { proxy_pass http://app/remote/; }
         location /back/ { rewrite ^ /elsewhere break; try_files /none /gone/x; }
         location /alias/ { rewrite ^ /other/file break; alias /etc/; }
         location /tries/ { rewrite ^ /other/file break; alias /etc/; try_files /none /gone/x; } }",
        &[
            ("/name/joe", "GET /users?name=joe"),
            ("/name/a/b", "GET /remote/a/b"),
            ("/early/a/b", "GET /name/a/b"),
            ("/go/a", "GET /remote/a"),
            ("/back/a", "GET /remote/x"),
            ("/alias/host.conf", "500"),
            ("PUT /alias/host.conf", "405"),
            ("/tries/host.conf", "500"),
        ],
    );
}

#[test]
fn an_origin_sends_no_request_past_the_folder_that_it_names() {
    both(
        "server { listen 127.0.0.1:PORT;
         location / { proxy_pass http://127.0.0.1:PORT; proxy_set_header Host orders; }
         location /files/ { internal; proxy_pass http://app; }
         location /secret/ { internal; proxy_pass http://app; } }
         server { listen 127.0.0.1:PORT; server_name orders;
         location / { add_header X-Accel-Redirect $arg_to; return 200 kept; } }",
        &[
            ("/?to=/files/a", "GET /files/a"),
            ("/?to=/files/a?b=../c", "GET /files/a?b=../c"),
            ("/?to=/files/%41%3f", "GET /files/A%3F"),
            ("/?to=/files/./a//b..c", "GET /files/./a//b..c"),
            ("/?to=/files/../secret/a", "404"),
            ("/?to=/files/%2e%2e/secret/a", "404"),
            ("/?to=/files%2f..%2fsecret/a", "404"),
            ("/?to=/files/..", "404"),
            ("/?to=../secret/a", "404"),
            ("/?to=..", "404"),
            ("/?to=/files/%00", "404"),
            ("/?to=?a", "404"),
        ],
    );
}

#[test]
fn a_path_means_a_file_below_its_root_or_in_its_alias() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap().join("real");
    std::fs::create_dir(&real).unwrap();
    std::fs::write(real.join("there"), "x").unwrap();
    std::os::unix::fs::symlink(&real, folder.path().join("link")).unwrap();
    let (link, real) = (folder.path().join("link").display().to_string(), real.display().to_string());
    let http = "server { listen 127.0.0.1:PORT; root /srv/;
         location / { return 200 '$document_root $request_filename'; }
         location /alias/ { alias /srv/files/; return 200 '$document_root $request_filename'; }
         location ~ ^/part/(.*)x$ { alias /srv/$1; return 200 '$document_root $request_filename'; }
         location /of/ { root /srv/$arg_of/; return 200 '$document_root $request_filename'; }
         location /lost/ { alias /srv/; rewrite ^ /x break; proxy_pass http://app/?f=$request_filename; }
         location /links/ { root LINK; return 200 '$document_root $realpath_root'; }
         location /none/ { root /nowhere; return 200 '$document_root $realpath_root'; }
         location /there { root LINK; if (!-f $request_filename) { rewrite ^ /gone/ last; } return 200 found; }
         location /gone/ { return 404; } }";
    let links = format!("{link} {real}");
    both(
        &http.replace("LINK", &link),
        &[
            ("/a/b?c", "/srv /srv/a/b"),
            ("/a%20b", "/srv /srv/a b"),
            ("/alias/a", "/srv/files/ /srv/files/a"),
            ("/part/ax", "/srv/a /srv/a"),
            ("/of/a?of=b", "/srv/b /srv/b/of/a"),
            ("/lost/a", "GET /?f="),
            ("/links/a", &links[..]),
            ("/none/a", "/nowhere "),
            ("/there", "found"),
            ("/therenot", "404"),
        ],
    );
}

#[test]
fn a_variable_is_what_it_was_given_last_by_a_directive_or_by_a_pattern() {
    both(
        "server { listen 127.0.0.1:PORT; set $v none;
         location / { return 200 $v; }
         location ~ ^/u/(?<v>\\d+) { return 200 $v; }
         location ~ ^/set/(?<v>\\w+) { set $v \"$v!\"; return 200 $v; }
         location ~ ^/part/(?<v>x)? { return 200 \"[$v]\"; }
         location /if/ { if ($uri ~ ^/if/(?<v>.)) { return 200 $v; } }
         location /rewrite/ { rewrite ^/rewrite/(?<v>.) /moved last; }
         location /moved { return 200 \"moved $v\"; } }",
        &[
            ("/x", "none"),
            ("/u/7", "7"),
            ("/set/a", "a!"),
            ("/part/x", "[x]"),
            ("/part/y", "[]"),
            ("/if/a", "a"),
            ("/rewrite/a", "moved a"),
        ],
    );
}

#[test]
fn a_group_is_found_whatever_the_case_of_its_name() {
    both(
        "upstream BackEnd { server ORIGIN; } server { listen 127.0.0.1:PORT;
         location / { proxy_pass http://backEND; } location /var { proxy_pass http://$arg_to$uri; } }",
        &[("/x", "GET /x"), ("/var?to=BACKend", "GET /var")],
    );
}

#[test]
fn a_target_stays_as_it_was_sent_until_something_changes_it() {
    both(
        "server { listen 127.0.0.1:PORT;
         location / { try_files /none @app; }
         location @app { proxy_pass http://app; }
         location /page { error_page 404 =200 /moved; return 404; }
         location /moved { proxy_pass http://app; }
         location /args { set $args b=c; proxy_pass http://app; } }",
        &[
            ("/x/a%2Fb?c", "GET /x/a%2Fb?c"),
            ("/page/a%2Fb?c", "GET /moved"),
            ("/args/a%2Fb?c", "GET /args/a/b?b=c"),
        ],
    );
}

#[test]
fn a_break_after_a_rewrite_stays_in_the_location() {
    both(
        "server { listen 127.0.0.1:PORT; location / { rewrite ^(.*)$ /app$1; break; proxy_pass http://app; }
         location /name/ { rewrite ^/name/(.*)$ /new/$1; if ($uri ~ new) { break; } proxy_pass http://app/remote/; }
         location /new/ { return 402; } }",
        &[("/a%20b?c", "GET /app/a%20b?c"), ("/name/x", "GET /new/x")],
    );
}

#[test]
fn the_url_of_a_proxy_pass_may_bring_any_byte_and_need_not_bring_a_path() {
    both(
        "server { listen 127.0.0.1:PORT; location / { proxy_pass http://app$uri; }
         location /raw { proxy_pass http://app$request_uri; }
         location /args { proxy_pass http://app$is_args$args; }
         location /none { proxy_pass http://app$http_x_none; }
         location /scheme { proxy_pass HTTP://app$uri; } }",
        &[
            ("/caf%E9", "GET /caf\u{fffd}"),
            ("/raw\u{e9}", "GET /raw\u{e9}"),
            ("/args?a=b", "GET /?a=b"),
            ("/args", "GET /args"),
            ("/none?a=b", "GET /none?a=b"),
            ("/scheme/x", "GET /scheme/x"),
        ],
    );
}

#[test]
fn the_server_s_rewrites_run_once() {
    both(
        "server { listen 127.0.0.1:PORT; rewrite ^(.*)$ /site$1;
         location / { return 200 $uri; }
         location /site/try { try_files /none @back; }
         location @back { rewrite ^ /site/index.php last; }
         location /site/go { rewrite ^ /site/left last; } }",
        &[("/try", "/site/index.php"), ("/go", "/site/left"), ("/x", "/site/x")],
    );
}

#[test]
fn what_a_rewrite_puts_into_arguments_is_escaped_where_the_path_had_escapes_or_a_plus() {
    both(
        "server { listen 127.0.0.1:PORT; location / { return 200 $uri?$args; }
         location /s/ { rewrite ^/s/(.*)$ /q?x=$1; }
         location /r/ { rewrite ^/r/(.*)$ http://b/$1; } error_page 302 = /redirected;
         location /redirected { return 200 $sent_http_location; } }",
        &[
            ("/s/a+b", "/q?x=a%2Bb"),
            ("/s/a&b", "/q?x=a&b"),
            ("/s/a&b+", "/q?x=a%26b%2B"),
            ("/s/a%26b", "/q?x=a%26b"),
            ("/s//a&b", "/q?x=a&b"),
            ("/s/a&b?+", "/q?x=a&b&+"),
        ],
    );
}

#[test]
fn requests_that_are_made_inside_are_limited_where_their_client_s_was_not() {
    both(
        "limit_req_zone $server_port zone=asked:1m rate=1r/m; limit_req_zone $host zone=outer:1m rate=1r/m;
         limit_conn_zone $server_port zone=held:1m;
         server { listen 127.0.0.1:PORT;
         location / { auth_request /ask; proxy_pass http://app; }
         location /ask { limit_req zone=asked; proxy_pass http://app; }
         location /limited { limit_req zone=outer burst=9 nodelay; auth_request /ask; proxy_pass http://app; }
         location /held { auth_request /hold; limit_conn held 1; proxy_pass http://app; }
         location /hold { limit_conn held 1; proxy_pass http://app; }
         location /twice { auth_request /hold; proxy_pass http://127.0.0.1:PORT/hold; } }",
        &[
            ("/limited", "GET /limited"),
            ("/x", "GET /x"),
            ("/x", "500"),
            ("/limited", "GET /limited"),
            ("/held", "GET /held"),
            ("/twice", "503"),
        ],
    );
}

#[test]
fn a_dollar_also_matches_before_a_last_line_end() {
    both(
        "map $uri $mapped { ~^/map/([^/]+)/x$ $1; default none; }
         server { listen 127.0.0.1:PORT; location / { return 200 $uri; }
         location ~ \\.php$ { deny all; }
         location ~ ^/one/(.*)$ { return 200 $1; }
         location ~ ^/two/([^/]+)$ { return 200 $1; }
         location ~ ^/(three|(four$)) { return 200 $2; }
         location ~ ^/end\\z { return 402; }
         location /map/ { return 200 $mapped; }
         location /if/ { if ($uri ~ ^/if/(a|b)$) { return 200 $1; } return 200 no; }
         location /rewrite/ { rewrite ^/rewrite/(.*)x$ /=$1 last; } }",
        &[
            ("/x.php", "403"),
            ("/x.php%0A", "403"),
            ("/x.php%0Ay", "/x.php\ny"),
            ("/x.php%0Ay.php%0A", "403"),
            ("/x.php%0A%0A", "/x.php\n\n"),
            ("/one/a%0A", "a"),
            ("/two/a%0A", "a\n"),
            ("/four%0A", "four"),
            ("/end%0A", "/end\n"),
            ("/map/a/x%0A", "a"),
            ("/if/a%0A", "a"),
            ("/if/c%0A", "no"),
            ("/rewrite/ax%0A", "/=a"),
        ],
    );
}
