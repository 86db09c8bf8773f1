//! Rows about what two servers say to each other, in clear text, over TLS and as gRPC, and about heads and logs.

use super::rows::{PROXY, Row, behind, no_faster, row, since, with};

const OWN: &str = "GET / HTTP/1.1\r\nHost: HOST\r\nX-Own: 1\r\n\r\n";
const KEYED: &str = "GET /one.txt HTTP/1.1\r\nHost: HOST\r\nX-Key: HOST\r\n\r\n";
const LONG: &str = "GET /FILL2000 HTTP/1.1\r\nHost: HOST\r\n\r\n";
const TWO: &str = "GET / HTTP/1.1\r\nHost: HOST\r\n\r\nGET / HTTP/1.1\r\nHost: HOST\r\n\r\n";
const LONG_FORM: &str = "POST /p HTTP/1.1\r\nHost: HOST\r\nContent-Length: 64000\r\n\r\nFILL64000";

/// The server that refuses comes first, the one that answers second.
const DEAD_FIRST: &str = "upstream NAME { server DEAD; server INNER; }";
const MUTE_FIRST: &str = "upstream NAME { server MUTE; server INNER; }";
const ASK: &str = "location / { proxy_pass http://NAME; @ }";
const ASK_INNER: &str = "location / { proxy_pass http://INNER; @ }";
const CALL: &str = "location / { grpc_pass NAME; @ }";
const CALL_INNER: &str = "location / { grpc_pass INNER; @ }";
const HERE: &str = "; location / { return 200 here; }";
const CALLED: &str = "http2; location / { return 200 called; }";

/// TLS between the two. What versions are on by default is not the same in all nginx.
const ASK_TLS: &str = "location / { proxy_pass https://INNER; proxy_ssl_protocols TLSv1.2 TLSv1.3; @ }";
const ASK_TLS12: &str = "location / { proxy_pass https://INNER; proxy_ssl_protocols TLSv1.2; @ }";
const CALL_TLS: &str = "location / { grpc_pass grpcs://INNER; grpc_ssl_protocols TLSv1.2 TLSv1.3; @ }";
const CALL_TLS12: &str = "location / { grpc_pass grpcs://INNER; grpc_ssl_protocols TLSv1.2; @ }";
const WHICH_TLS: &str = "ssl; CERT ssl_protocols TLSv1.2 TLSv1.3; location / { return 200 '$ssl_protocol $ssl_cipher $ssl_server_name'; }";
const WHICH_CALL: &str = "ssl http2; CERT ssl_protocols TLSv1.2 TLSv1.3; location / { return 200 '$ssl_protocol $ssl_cipher $ssl_server_name'; }";
const WHOM_CALLED: &str = "ssl http2; CERT location / { return 200 '<$ssl_server_name>'; }";
const WHO: &str = "ssl; CERT ssl_verify_client optional_no_ca; location / { return 200 '$ssl_client_s_dn'; }";
const WHO_CALLS: &str =
    "ssl http2; CERT ssl_verify_client optional_no_ca; location / { return 200 '$ssl_client_s_dn'; }";
const AGAIN: &str =
    "ssl; CERT ssl_protocols TLSv1.2; keepalive_timeout 0; location / { return 200 $ssl_session_reused; }";
const CALLED_AGAIN: &str = "ssl http2; CERT ssl_protocols TLSv1.2; keepalive_timeout 0; location / { return 200 $ssl_session_reused; }";
const FAR: &str =
    "ssl; ssl_certificate KEYS/far.chain; ssl_certificate_key KEYS/far.key; location / { return 200 far; }";
const FAR_CALL: &str = "ssl http2; ssl_certificate KEYS/far.chain; ssl_certificate_key KEYS/far.key; location / { return 200 far; }";

/// Clients of the inner server show a certificate that `middle` signed.
const SHOW_FAR: &str = "location / { proxy_pass https://INNER; proxy_ssl_certificate KEYS/far.chain; proxy_ssl_certificate_key KEYS/far.key; }";
const SHOW_NEAR: &str = "location / { proxy_pass https://INNER; proxy_ssl_certificate KEYS/client.crt; proxy_ssl_certificate_key KEYS/client.key; }";

pub const ROWS: &[Row] = &[
    row(
        "large_client_header_buffers",
        "@ location / { return 200 x; }",
        ("large_client_header_buffers 1 1k;", ""),
        &[LONG],
    ),
    row(
        "client_header_buffer_size",
        "large_client_header_buffers 1 1k; @ location / { return 200 x; }",
        ("client_header_buffer_size 4k;", ""),
        &[LONG],
    ),
    row(
        "underscores_in_headers",
        "@ location / { return 200 $http_x_own; }",
        ("underscores_in_headers on;", ""),
        &["GET / HTTP/1.1\r\nHost: HOST\r\nX_Own: 1\r\n\r\n"],
    ),
    row(
        "ignore_invalid_headers",
        "@ location / { proxy_pass ORIGIN; proxy_set_header Connection \"\"; }",
        ("ignore_invalid_headers off;", ""),
        &["GET / HTTP/1.1\r\nHost: HOST\r\nX.Own: 1\r\n\r\n"],
    ),
    row(
        "merge_slashes",
        "@ location / { return 200 $uri; } location /a/b { return 200 merged; }",
        ("merge_slashes off;", ""),
        &["/a//b"],
    ),
    row(
        "server_name_in_redirect",
        "location / { @ return 301 /x; }",
        ("server_name_in_redirect on;", ""),
        &["GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"],
    ),
    since(
        (1, 29, 8),
        row(
            "max_headers",
            "@ location / { return 200 x; }",
            ("max_headers 2;", ""),
            &["GET / HTTP/1.1\r\nHost: HOST\r\nA: 1\r\nB: 1\r\n\r\n"],
        ),
    ),
    since((1, 29, 0), row("early_hints", PROXY, ("early_hints 1;", "early_hints $http_none;"), &["/hints"])),
    row(
        "ssi_last_modified",
        "location / { root FILES; ssi on; ssi_types text/plain; @ }",
        ("ssi_last_modified on;", ""),
        &["/one.txt"],
    ),
    row("stub_status", "location / { @ }", ("stub_status;", "return 200 none;"), &["/"]),
    row(
        "client_body_buffer_size",
        "location / { proxy_pass ORIGIN; proxy_set_header Connection \"\"; proxy_set_header X-Body $request_body; @ }",
        ("client_body_buffer_size 1k;", "client_body_buffer_size 128k;"),
        &[LONG_FORM],
    ),
    no_faster(
        250,
        row(
            "auth_delay",
            "location / { root FILES; auth_basic x; auth_basic_user_file FILES/users; @ }",
            ("auth_delay 250ms;", ""),
            &["/one.txt"],
        ),
    ),
    no_faster(800, row("proxy_limit_rate", PROXY, ("proxy_limit_rate 32k;", ""), &[LONG_FORM])),
    row(
        "keepalive_time",
        "location / { proxy_pass http://MUTE; proxy_read_timeout 200ms; @ }",
        ("keepalive_time 100ms;", ""),
        &[TWO],
    ),
    // Logs.
    row(
        "log_not_found",
        "error_log LOG error; location / { root FILES; @ } location = /log { alias LOG; }",
        ("log_not_found off;", ""),
        &["/none", "/log"],
    ),
    with(
        "limit_req_zone $host zone=n1:1m rate=1r/m;",
        row(
            "limit_req_log_level",
            "error_log LOG info; location / { root FILES; limit_req zone=n1; @ } location = /log { alias LOG; }",
            ("limit_req_log_level warn;", ""),
            &["/one.txt", "/one.txt", "/log"],
        ),
    ),
    // A place in the zone is held by the request that asks the inner server.
    with(
        "limit_conn_zone $http_x_key zone=n2:1m;",
        behind(
            "; location / { root FILES; limit_conn n2 1; @ }",
            row(
                "limit_conn_status",
                "location / { limit_conn n2 1; proxy_pass http://INNER; }",
                ("limit_conn_status 429;", ""),
                &[KEYED],
            ),
        ),
    ),
    with(
        "limit_conn_zone $http_x_key zone=n3:1m;",
        behind(
            "; location / { root FILES; limit_conn n3 1; add_header X $limit_conn_status always; @ }",
            row(
                "limit_conn_dry_run",
                "location / { limit_conn n3 1; proxy_pass http://INNER; }",
                ("limit_conn_dry_run on;", ""),
                &[KEYED],
            ),
        ),
    ),
    with(
        "limit_conn_zone $http_x_key zone=n4:1m;",
        behind(
            "; error_log LOG notice; location / { root FILES; limit_conn n4 1; @ }",
            row(
                "limit_conn_log_level",
                "location / { limit_conn n4 1; proxy_pass http://INNER; } location = /log { alias LOG; }",
                ("limit_conn_log_level warn;", ""),
                &[KEYED, "/log"],
            ),
        ),
    ),
    // Clear text.
    behind(
        "; location / { return 200 $remote_addr; }",
        row("proxy_bind", ASK_INNER, ("proxy_bind 127.0.0.7;", ""), &["/"]),
    ),
    with(
        DEAD_FIRST,
        behind(HERE, row("proxy_next_upstream_tries", ASK, ("proxy_next_upstream_tries 1;", ""), &["/"])),
    ),
    with(
        MUTE_FIRST,
        behind(
            HERE,
            row(
                "proxy_next_upstream_timeout",
                "location / { proxy_pass http://NAME; proxy_read_timeout 200ms; @ }",
                ("proxy_next_upstream_timeout 100ms;", ""),
                &["/"],
            ),
        ),
    ),
    // gRPC.
    behind(
        "http2; location / { return 200 $http_x_own; }",
        row("grpc_set_header", CALL_INNER, ("grpc_set_header X-Own 2;", ""), &[OWN]),
    ),
    behind(
        "http2; location / { add_header X-Hidden 1; return 200 x; }",
        row("grpc_hide_header", CALL_INNER, ("grpc_hide_header X-Hidden;", ""), &["/"]),
    ),
    behind(
        "http2; location / { add_header X-Accel-Charset utf-8; return 200 x; }",
        row(
            "grpc_pass_header",
            "location / { grpc_pass INNER; grpc_ignore_headers X-Accel-Charset; @ }",
            ("grpc_pass_header X-Accel-Charset;", ""),
            &["/"],
        ),
    ),
    behind(
        "; location / { default_type text/css; add_header X-Accel-Charset UTF-8; return 200 x; }",
        row(
            "proxy_ignore_headers",
            "location / { proxy_pass http://INNER; @ } location /named { charset utf-8; }",
            ("proxy_ignore_headers X-Accel-Charset;", ""),
            &["/"],
        ),
    ),
    behind(
        "http2; location / { add_header X-Accel-Redirect /aside; return 200 x; }",
        row(
            "grpc_ignore_headers",
            "location / { grpc_pass INNER; @ } location /aside { return 200 aside; }",
            ("grpc_ignore_headers X-Accel-Redirect;", ""),
            &["/"],
        ),
    ),
    behind(
        "http2; location / { return 404; }",
        row(
            "grpc_intercept_errors",
            "error_page 404 /page; location = /page { return 200 page; } location / { grpc_pass INNER; @ }",
            ("grpc_intercept_errors on;", ""),
            &["/"],
        ),
    ),
    behind(
        "http2; location / { return 200 $remote_addr; }",
        row("grpc_bind", CALL_INNER, ("grpc_bind 127.0.0.7;", ""), &["/"]),
    ),
    behind(
        "http2; location / { add_header X-Large \"$http_x_large\"; return 200 x; }",
        row(
            "grpc_buffer_size",
            CALL_INNER,
            ("grpc_buffer_size 1k;", ""),
            &["GET / HTTP/1.1\r\nHost: HOST\r\nX-Large: FILL2000\r\n\r\n"],
        ),
    ),
    with(
        DEAD_FIRST,
        behind(CALLED, row("grpc_next_upstream", CALL, ("grpc_next_upstream off;", ""), &["/"])),
    ),
    with(
        DEAD_FIRST,
        behind(CALLED, row("grpc_next_upstream_tries", CALL, ("grpc_next_upstream_tries 1;", ""), &["/"])),
    ),
    with(
        MUTE_FIRST,
        behind(
            CALLED,
            row(
                "grpc_next_upstream_timeout",
                "location / { grpc_pass NAME; grpc_read_timeout 200ms; @ }",
                ("grpc_next_upstream_timeout 100ms;", ""),
                &["/"],
            ),
        ),
    ),
    with(
        MUTE_FIRST,
        behind(
            CALLED,
            row(
                "grpc_read_timeout",
                "location / { grpc_pass NAME; grpc_next_upstream_timeout 1s; @ }",
                ("grpc_read_timeout 100ms;", "grpc_read_timeout 1500ms;"),
                &["/"],
            ),
        ),
    ),
    // TLS, the server's side.
    behind(
        "ssl; CERT @ location / { return 200 $ssl_protocol; }",
        row("ssl_protocols", ASK_TLS, ("ssl_protocols TLSv1.2;", "ssl_protocols TLSv1.3;"), &["/"]),
    ),
    behind(
        "ssl; CERT @ location / { return 200 $ssl_cipher; }",
        row(
            "ssl_ciphers",
            ASK_TLS12,
            ("ssl_ciphers ECDHE-RSA-AES256-GCM-SHA384;", "ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;"),
            &["/"],
        ),
    ),
    behind(
        "ssl; CERT ssl_ciphers ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256; @ location / { return 200 $ssl_cipher; }",
        row(
            "ssl_prefer_server_ciphers",
            "location / { proxy_pass https://INNER; proxy_ssl_protocols TLSv1.2; proxy_ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384; }",
            ("ssl_prefer_server_ciphers on;", ""),
            &["/"],
        ),
    ),
    behind(
        "ssl; CERT @ location / { return 200 $ssl_curve; }",
        row("ssl_ecdh_curve", ASK_TLS12, ("ssl_ecdh_curve secp384r1;", "ssl_ecdh_curve prime256v1;"), &["/"]),
    ),
    behind(
        "ssl; CERT ssl_verify_client on; ssl_client_certificate KEYS/ca.crt; @ location / { return 200 $ssl_client_verify; }",
        row("ssl_verify_depth", SHOW_FAR, ("ssl_verify_depth 0;", ""), &["/"]),
    ),
    behind(
        "ssl; CERT ssl_verify_client on; ssl_client_certificate KEYS/stranger.crt; @ location / { return 200 $ssl_client_verify; }",
        row("ssl_trusted_certificate", SHOW_NEAR, ("ssl_trusted_certificate KEYS/ca.crt;", ""), &["/"]),
    ),
    // TLS, the client's side.
    behind(
        WHICH_TLS,
        row(
            "proxy_ssl_protocols",
            "location / { proxy_pass https://INNER; @ }",
            ("proxy_ssl_protocols TLSv1.2;", "proxy_ssl_protocols TLSv1.3;"),
            &["/"],
        ),
    ),
    behind(
        WHICH_TLS,
        row(
            "proxy_ssl_ciphers",
            ASK_TLS12,
            (
                "proxy_ssl_ciphers ECDHE-RSA-AES256-GCM-SHA384;",
                "proxy_ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;",
            ),
            &["/"],
        ),
    ),
    behind(
        "ssl; CERT location / { return 200 trusted; }",
        row(
            "proxy_ssl_crl",
            "location / { proxy_pass https://INNER; proxy_ssl_verify on; proxy_ssl_name inner.test; proxy_ssl_trusted_certificate KEYS/ca.crt; @ }",
            ("proxy_ssl_crl KEYS/crl.pem;", ""),
            &["/"],
        ),
    ),
    behind(
        FAR,
        row(
            "proxy_ssl_verify_depth",
            "location / { proxy_pass https://INNER; proxy_ssl_verify on; proxy_ssl_name far; proxy_ssl_trusted_certificate KEYS/ca.crt; @ }",
            ("proxy_ssl_verify_depth 0;", ""),
            &["/"],
        ),
    ),
    behind(
        WHO,
        row(
            "proxy_ssl_password_file",
            ASK_TLS,
            (
                "proxy_ssl_certificate KEYS/client.crt; proxy_ssl_certificate_key KEYS/client.sealed; proxy_ssl_password_file KEYS/passwords;",
                "",
            ),
            &["/"],
        ),
    ),
    behind(
        AGAIN,
        row("proxy_ssl_session_reuse", ASK_TLS12, ("proxy_ssl_session_reuse off;", ""), &["/", "/"]),
    ),
    // Both, as gRPC.
    behind(
        WHO_CALLS,
        row(
            "grpc_ssl_certificate",
            CALL_TLS,
            ("grpc_ssl_certificate KEYS/client.crt; grpc_ssl_certificate_key KEYS/client.key;", ""),
            &["/"],
        ),
    ),
    behind(
        WHO_CALLS,
        row(
            "grpc_ssl_certificate_key",
            "location / { grpc_pass grpcs://INNER; @ }",
            (
                "grpc_ssl_certificate KEYS/client.crt; grpc_ssl_certificate_key KEYS/client.key;",
                "grpc_ssl_certificate KEYS/far.crt; grpc_ssl_certificate_key KEYS/far.key;",
            ),
            &["/"],
        ),
    ),
    behind(
        WHO_CALLS,
        row(
            "grpc_ssl_password_file",
            CALL_TLS,
            (
                "grpc_ssl_certificate KEYS/client.crt; grpc_ssl_certificate_key KEYS/client.sealed; grpc_ssl_password_file KEYS/passwords;",
                "",
            ),
            &["/"],
        ),
    ),
    behind(
        WHICH_CALL,
        row(
            "grpc_ssl_protocols",
            "location / { grpc_pass grpcs://INNER; @ }",
            ("grpc_ssl_protocols TLSv1.2;", "grpc_ssl_protocols TLSv1.3;"),
            &["/"],
        ),
    ),
    behind(
        WHICH_CALL,
        row(
            "grpc_ssl_ciphers",
            CALL_TLS12,
            (
                "grpc_ssl_ciphers ECDHE-RSA-AES256-GCM-SHA384;",
                "grpc_ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;",
            ),
            &["/"],
        ),
    ),
    behind(
        WHOM_CALLED,
        row(
            "grpc_ssl_server_name",
            "location / { grpc_pass grpcs://INNER; grpc_ssl_name inner.test; @ }",
            ("grpc_ssl_server_name on;", ""),
            &["/"],
        ),
    ),
    behind(
        WHOM_CALLED,
        row(
            "grpc_ssl_name",
            "location / { grpc_pass grpcs://INNER; grpc_ssl_server_name on; @ }",
            ("grpc_ssl_name one.test;", "grpc_ssl_name two.test;"),
            &["/"],
        ),
    ),
    behind(
        WHOM_CALLED,
        row(
            "grpc_ssl_verify",
            "location / { grpc_pass grpcs://INNER; grpc_ssl_name inner.test; grpc_ssl_trusted_certificate KEYS/stranger.crt; @ }",
            ("grpc_ssl_verify on;", ""),
            &["/"],
        ),
    ),
    behind(
        WHOM_CALLED,
        row(
            "grpc_ssl_trusted_certificate",
            "location / { grpc_pass grpcs://INNER; grpc_ssl_name inner.test; grpc_ssl_verify on; @ }",
            ("grpc_ssl_trusted_certificate KEYS/ca.crt;", "grpc_ssl_trusted_certificate KEYS/stranger.crt;"),
            &["/"],
        ),
    ),
    behind(
        WHOM_CALLED,
        row(
            "grpc_ssl_crl",
            "location / { grpc_pass grpcs://INNER; grpc_ssl_verify on; grpc_ssl_name inner.test; grpc_ssl_trusted_certificate KEYS/ca.crt; @ }",
            ("grpc_ssl_crl KEYS/crl.pem;", ""),
            &["/"],
        ),
    ),
    behind(
        FAR_CALL,
        row(
            "grpc_ssl_verify_depth",
            "location / { grpc_pass grpcs://INNER; grpc_ssl_verify on; grpc_ssl_name far; grpc_ssl_trusted_certificate KEYS/ca.crt; @ }",
            ("grpc_ssl_verify_depth 0;", ""),
            &["/"],
        ),
    ),
    behind(
        CALLED_AGAIN,
        row("grpc_ssl_session_reuse", CALL_TLS12, ("grpc_ssl_session_reuse off;", ""), &["/", "/"]),
    ),
];
