//! The rows: a directive, a server block with `@` in its place, and the requests whose answers it changes.

use super::between;

pub struct Row {
    pub directive: &'static str,
    /// Of the http block; for each of the two servers anew where it has their `NAME`.
    pub http: &'static str,
    pub inner: &'static str,
    pub server: &'static str,
    pub on: &'static str,
    pub off: &'static str,
    /// A path, or a whole request in which `HOST` is the server's name.
    pub requests: &'static [&'static str],
    pub no_faster: u64,
    pub since: (u16, u16, u16),
}

pub const fn row(
    directive: &'static str,
    server: &'static str,
    (on, off): (&'static str, &'static str),
    requests: &'static [&'static str],
) -> Row {
    Row { directive, http: "", inner: "", server, on, off, requests, no_faster: 0, since: (0, 0, 0) }
}

pub const fn with(http: &'static str, row: Row) -> Row {
    Row { http, ..row }
}

/// A second server, at `INNER`: what follows its address there. With an `@` it is this one that has the directive.
pub const fn behind(inner: &'static str, row: Row) -> Row {
    Row { inner, ..row }
}

/// The directive is of that version of nginx; older ones are not asked.
pub const fn since(since: (u16, u16, u16), row: Row) -> Row {
    Row { since, ..row }
}

/// What changes is the time: no less than so many milliseconds.
pub const fn no_faster(no_faster: u64, row: Row) -> Row {
    Row { no_faster, ..row }
}

/// The rows of both files.
pub fn all() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(between::ROWS)
}

pub const PROXY: &str = "location / { proxy_pass ORIGIN; proxy_set_header Connection \"\"; @ }";
pub const STATIC: &str = "location / { root FILES; @ }";
const SAY: &str = "location / { @ return 200 said; }";
const POST: &str = "POST /p?q HTTP/1.1\r\nHost: HOST\r\nX-Own: 1\r\nContent-Length: 4\r\n\r\nbody";
const PACKED: &str = "GET /one.txt HTTP/1.1\r\nHost: HOST\r\nAccept-Encoding: gzip\r\n\r\n";

pub const ROWS: &[Row] = &[
    row("absolute_redirect", "location / { @ return 301 /x; }", ("absolute_redirect off;", ""), &["/"]),
    row("add_header", SAY, ("add_header X-A $host;", ""), &["/"]),
    row(
        "add_trailer",
        "location / { proxy_pass ORIGIN; proxy_set_header Connection \"\"; add_header Trailer X; @ }",
        ("add_trailer X y;", ""),
        &["/"],
    ),
    row("alias", "location /a/ { @ }", ("alias FILES/;", "root FILES;"), &["/a/one.txt"]),
    row("allow", STATIC, ("allow 127.0.0.1; deny all;", "deny all;"), &["/one.txt"]),
    row(
        "auth_basic",
        "location / { root FILES; auth_basic_user_file FILES/users; @ }",
        ("auth_basic x;", ""),
        &["/one.txt"],
    ),
    row(
        "auth_basic_user_file",
        "location / { root FILES; auth_basic x; @ }",
        ("auth_basic_user_file FILES/users;", "auth_basic_user_file FILES/one.txt;"),
        &[
            "GET /one.txt HTTP/1.1\r\nHost: HOST\r\nAuthorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n",
            "GET /one.txt HTTP/1.1\r\nHost: HOST\r\nAuthorization: basic  dXNlcjpzZWNyZXQ\r\n\r\n",
            "GET /one.txt HTTP/1.1\r\nHost: HOST\r\nAuthorization: Basic dXNlcjpzZWNyZXR=x\r\n\r\n",
            "GET /one.txt HTTP/1.1\r\nHost: HOST\r\nAuthorization: Basic dXNlcjpzZWNyZ\r\n\r\n",
        ],
    ),
    row(
        "auth_request",
        "location / { root FILES; @ } location /no { return 403; }",
        ("auth_request /no;", ""),
        &["/one.txt"],
    ),
    row(
        "auth_request_set",
        "set $seen none; location / { root FILES; auth_request /ask; @ add_header X-Seen $seen; } location /ask { proxy_pass ORIGIN; }",
        ("auth_request_set $seen $upstream_http_x_seen;", ""),
        &["/one.txt"],
    ),
    row("break", "location / { root FILES; @ return 200 x; }", ("break;", ""), &["/one.txt"]),
    row(
        "chunked_transfer_encoding",
        "location / { root FILES; gzip on; gzip_types text/plain; types { } @ }",
        ("chunked_transfer_encoding off;", ""),
        &[PACKED],
    ),
    since(
        (1, 31, 5),
        row(
            "client_body_early_read",
            "@ location / { return 200 [$request_body]; }",
            ("client_body_early_read $arg_early;", ""),
            &["POST /?early=1 HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\n\r\nbody"],
        ),
    ),
    row("client_max_body_size", PROXY, ("client_max_body_size 3;", ""), &[POST]),
    row(
        "default_type",
        "location / { root FILES; types { } @ }",
        ("default_type image/png;", ""),
        &["/one.txt"],
    ),
    row("deny", STATIC, ("deny 127.0.0.0/8;", ""), &["/one.txt"]),
    row(
        "error_page",
        "root FILES; location = /x { @ return 404; }",
        ("error_page 404 =203 /one.txt;", ""),
        &["/x"],
    ),
    row("etag", STATIC, ("etag off;", ""), &["/one.txt"]),
    row("expires", STATIC, ("expires epoch;", ""), &["/one.txt"]),
    with(
        "geo $arg_net $net { default far; 10.0.0.0/8 near; }",
        row("geo", "location / { @ }", ("return 200 $net;", "return 200 far;"), &["/?net=10.1.2.3"]),
    ),
    row("gunzip", "location / { root FILES; gzip_static always; @ }", ("gunzip on;", ""), &["/one.txt"]),
    row("gzip", "location / { root FILES; types { } gzip_types *; @ }", ("gzip on;", ""), &[PACKED]),
    row(
        "gzip_disable",
        "location / { root FILES; types { } gzip on; gzip_types *; @ }",
        ("gzip_disable .;", ""),
        &["GET /one.txt HTTP/1.1\r\nHost: HOST\r\nUser-Agent: x\r\nAccept-Encoding: gzip\r\n\r\n"],
    ),
    row(
        "gzip_http_version",
        "location / { root FILES; types { } gzip on; gzip_types *; @ }",
        ("gzip_http_version 1.0;", ""),
        &["GET /one.txt HTTP/1.0\r\nHost: HOST\r\nAccept-Encoding: gzip\r\n\r\n"],
    ),
    row(
        "gzip_min_length",
        "location / { root FILES; types { } gzip on; gzip_types *; @ }",
        ("gzip_min_length 1000;", ""),
        &[PACKED],
    ),
    row(
        "gzip_proxied",
        "location / { root FILES; types { } gzip on; gzip_types *; @ }",
        ("gzip_proxied any;", ""),
        &["GET /one.txt HTTP/1.1\r\nHost: HOST\r\nVia: 1.1 x\r\nAccept-Encoding: gzip\r\n\r\n"],
    ),
    row("gzip_static", STATIC, ("gzip_static on;", ""), &[PACKED]),
    row(
        "gzip_types",
        "location / { root FILES; types { } gzip on; @ }",
        ("gzip_types text/plain;", ""),
        &[PACKED],
    ),
    row(
        "gzip_vary",
        "location / { root FILES; types { } gzip on; gzip_types *; @ }",
        ("gzip_vary on;", ""),
        &[PACKED],
    ),
    row("if", "location / { @ return 200 no; }", ("if ($arg_a = b) { return 200 yes; }", ""), &["/?a=b"]),
    row(
        "if_modified_since",
        STATIC,
        ("if_modified_since before;", ""),
        &["GET /one.txt HTTP/1.1\r\nHost: HOST\r\nIf-Modified-Since: Fri, 01 Jan 2038 00:00:00 GMT\r\n\r\n"],
    ),
    row(
        "max_ranges",
        STATIC,
        ("max_ranges 0;", ""),
        &["GET /one.txt HTTP/1.1\r\nHost: HOST\r\nRange: bytes=0-3\r\n\r\n"],
    ),
    row("index", "root FILES; @", ("index other.html;", ""), &["/"]),
    row("internal", SAY, ("internal;", ""), &["/"]),
    row(
        "keepalive_disable",
        SAY,
        ("keepalive_disable safari;", ""),
        &[
            "GET / HTTP/1.1\r\nHost: HOST\r\nUser-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X) AppleWebKit/5 Safari/5\r\n\r\n",
        ],
    ),
    row("keepalive_requests", SAY, ("keepalive_requests 1;", ""), &["/"]),
    row("keepalive_timeout", SAY, ("keepalive_timeout 5s 7s;", ""), &["/"]),
    row(
        "limit_except",
        "location / { proxy_pass ORIGIN; proxy_set_header Connection \"\"; @ }",
        ("limit_except GET { deny all; }", ""),
        &[POST],
    ),
    with(
        "limit_req_zone $host zone=r1:1m rate=1r/m;",
        row("limit_req", STATIC, ("limit_req zone=r1;", ""), &["/one.txt", "/one.txt"]),
    ),
    with(
        "limit_req_zone $host zone=r2:1m rate=1r/m;",
        row(
            "limit_req_dry_run",
            "location / { root FILES; limit_req zone=r2; @ add_header X $limit_req_status always; }",
            ("limit_req_dry_run on;", ""),
            &["/one.txt", "/one.txt"],
        ),
    ),
    with(
        "limit_req_zone $host zone=r3:1m rate=1r/m;",
        row(
            "limit_req_status",
            "location / { root FILES; limit_req zone=r3; @ }",
            ("limit_req_status 429;", ""),
            &["/one.txt", "/one.txt"],
        ),
    ),
    with(
        "limit_req_zone $http_x_key zone=r4:1m rate=1r/m; limit_req_zone $host zone=r5:1m rate=1r/m;",
        row(
            "limit_req_zone",
            "location / { root FILES; @ }",
            ("limit_req zone=r4;", "limit_req zone=r5;"),
            &["/one.txt", "/one.txt"],
        ),
    ),
    row(
        "location",
        "@ location / { return 200 all; }",
        ("location ~* \\.TXT$ { return 200 some; }", ""),
        &["/a.txt"],
    ),
    with(
        "map $arg_a $mapped { default d; ~^x(?<rest>.) $rest; b c; }",
        row("map", "location / { @ }", ("return 200 $mapped;", "return 200 d;"), &["/?a=xy", "/?a=b"]),
    ),
    row("port_in_redirect", "location / { @ return 301 /x; }", ("port_in_redirect off;", ""), &["/"]),
    row(
        "proxy_buffer_size",
        PROXY,
        ("proxy_buffer_size 1k;", "proxy_buffer_size 16k; proxy_busy_buffers_size 16k;"),
        &["/large"],
    ),
    row("proxy_cookie_domain", PROXY, ("proxy_cookie_domain origin.test $host;", ""), &["/cookie"]),
    row("proxy_cookie_flags", PROXY, ("proxy_cookie_flags a secure samesite=lax;", ""), &["/cookie"]),
    row("proxy_cookie_path", PROXY, ("proxy_cookie_path /in/ /;", ""), &["/cookie"]),
    row("proxy_hide_header", PROXY, ("proxy_hide_header X-Seen;", ""), &["/"]),
    row("proxy_http_version", PROXY, ("proxy_http_version 1.0;", ""), &["/"]),
    row(
        "proxy_ignore_headers",
        "location / { proxy_pass ORIGIN; proxy_set_header Connection \"\"; @ } location /aside { return 200 aside; }",
        ("proxy_ignore_headers X-Accel-Redirect;", ""),
        &["/accel"],
    ),
    row(
        "proxy_intercept_errors",
        "error_page 404 /page; location = /page { return 200 page; } location / { proxy_pass ORIGIN; proxy_set_header Connection \"\"; @ }",
        ("proxy_intercept_errors on;", ""),
        &["/missing"],
    ),
    row("proxy_method", PROXY, ("proxy_method PUT;", ""), &["/"]),
    row(
        "proxy_pass",
        "location /a/ { @ proxy_set_header Connection \"\"; }",
        ("proxy_pass ORIGIN/b/;", "proxy_pass ORIGIN;"),
        &["/a/c?d"],
    ),
    row(
        "proxy_pass_header",
        PROXY,
        (
            "proxy_pass_header X-Accel-Redirect; proxy_ignore_headers X-Accel-Redirect;",
            "proxy_ignore_headers X-Accel-Redirect;",
        ),
        &["/accel"],
    ),
    row(
        "proxy_pass_request_body",
        PROXY,
        ("proxy_pass_request_body off; proxy_set_header Content-Length \"\";", ""),
        &[POST],
    ),
    row(
        "proxy_pass_request_headers",
        PROXY,
        ("proxy_pass_request_headers off;", ""),
        &["GET / HTTP/1.1\r\nHost: HOST\r\nX-Own: 1\r\n\r\n"],
    ),
    row("proxy_redirect", PROXY, ("proxy_redirect http://origin.test/in/ /out/;", ""), &["/moved"]),
    row("proxy_set_body", PROXY, ("proxy_set_body ours;", ""), &[POST]),
    row(
        "proxy_set_header",
        PROXY,
        ("proxy_set_header X-Own $http_x_own-$host; proxy_set_header Host other;", ""),
        &[POST],
    ),
    row(
        "real_ip_header",
        "set_real_ip_from 127.0.0.1; @ location / { return 200 $remote_addr; }",
        ("real_ip_header X-Forwarded-For;", ""),
        &[
            "GET / HTTP/1.1\r\nHost: HOST\r\nX-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: HOST\r\nX-Real-IP: 10.0.0.1, 10.0.0.2\r\nX-Real-IP: 10.0.0.3\r\n\r\n",
        ],
    ),
    row(
        "real_ip_recursive",
        "set_real_ip_from 127.0.0.1; set_real_ip_from 10.0.0.2; real_ip_header X-Forwarded-For; @ location / { return 200 $remote_addr; }",
        ("real_ip_recursive on;", ""),
        &["GET / HTTP/1.1\r\nHost: HOST\r\nX-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n\r\n"],
    ),
    row(
        "recursive_error_pages",
        "error_page 404 /a; error_page 403 =200 /one.txt; location / { root FILES; @ } location /a { return 403; @ }",
        ("recursive_error_pages on;", ""),
        &["/missing"],
    ),
    row("return", "location / { @ }", ("return 307 http://x.test/$arg_a;", "return 204;"), &["/?a=b"]),
    row(
        "rewrite",
        "@ location / { return 200 $uri?$args; }",
        ("rewrite ^/a/(.*)$ /b/$1?c last;", ""),
        &["/a/x?y"],
    ),
    row("root", "location / { @ }", ("root FILES;", "root FILES/none;"), &["/one.txt"]),
    row(
        "satisfy",
        "location / { root FILES; allow 127.0.0.1; deny all; auth_basic x; auth_basic_user_file FILES/users; @ }",
        ("satisfy any;", ""),
        &["/one.txt"],
    ),
    row("server_tokens", "location / { @ return 404; }", ("server_tokens off;", ""), &["/"]),
    row("set", "location / { @ return 200 $x; }", ("set $x a$arg_a;", "set $x b;"), &["/?a=c"]),
    row(
        "set_real_ip_from",
        "real_ip_header X-Forwarded-For; @ location / { return 200 $remote_addr; }",
        ("set_real_ip_from 127.0.0.0/8;", ""),
        &["GET / HTTP/1.1\r\nHost: HOST\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"],
    ),
    with(
        "split_clients $arg_a $half { 50% one; * two; }",
        row(
            "split_clients",
            "location / { @ }",
            ("return 200 $half;", "return 200 one;"),
            &["/?a=1", "/?a=2", "/?a=3", "/?a=4", "/?a=5"],
        ),
    ),
    row(
        "ssi",
        "location / { root FILES; types { text/html txt; } @ default_type text/html; } location /ssi { @ default_type text/html; return 200 '<!--#echo var=\"arg_a\" -->'; }",
        ("ssi on;", ""),
        &["/ssi?a=b"],
    ),
    row(
        "ssi_silent_errors",
        "location / { ssi on; @ default_type text/html; return 200 'x<!--#include -->'; }",
        ("ssi_silent_errors on;", ""),
        &["GET / HTTP/1.0\r\nHost: HOST\r\n\r\n"],
    ),
    row(
        "ssi_types",
        "location / { ssi on; @ default_type text/css; return 200 '<!--#echo var=\"arg_a\" -->'; }",
        ("ssi_types text/css;", ""),
        &["/?a=b"],
    ),
    row("charset", "location / { @ return 200 x; }", ("charset utf-8;", ""), &["/"]),
    row(
        "charset_types",
        "location / { charset utf-8; default_type text/css; @ return 200 x; }",
        ("charset_types text/css;", ""),
        &["/"],
    ),
    row(
        "try_files",
        "root FILES; location / { @ }",
        ("try_files $uri $uri/ /one.txt =404;", "index none.html;"),
        &["/none", "/"],
    ),
    row("types", "location / { root FILES; @ }", ("types { image/gif zzz; }", ""), &["/page.zzz"]),
];
