//! Rows of `proxy_*`.

use super::{ANY, Context, Directive, Kind, one, words};

const REQUEST: Context = Context::REQUEST;

pub const ROWS: &[Directive] = &[
    words(
        "proxy_pass",
        Context::LOCATION.or(Context::IF_LOCATION).or(Context::LIMIT_EXCEPT),
        1..=1,
        "",
        "the upstream: http://group, http://address:port, unix:, with or without URI",
    ),
    one(
        "proxy_http_version",
        REQUEST,
        Kind::Choice(&["1.0", "1.1", "2"]),
        "1.1",
        "version towards upstreams",
    ),
    words("proxy_set_header", REQUEST, 2..=2, "", "a header of the request to the upstream; empty: none")
        .many(),
    one("proxy_hide_header", REQUEST, Kind::Words, "", "a header of the answer that is not passed on").many(),
    one("proxy_pass_header", REQUEST, Kind::Words, "", "a header of the answer that is passed on after all")
        .many(),
    one("proxy_pass_request_headers", REQUEST, Kind::Flag, "on", "pass the client's headers on"),
    one("proxy_pass_request_body", REQUEST, Kind::Flag, "on", "pass the client's body on"),
    one(
        "proxy_pass_trailers",
        REQUEST,
        Kind::Flag,
        "off",
        "pass fields on that come after the answer's body",
    ),
    one("proxy_method", REQUEST, Kind::Words, "", "method in place of the client's"),
    one("proxy_set_body", REQUEST, Kind::Words, "", "body in place of the client's"),
    one("proxy_connect_timeout", REQUEST, Kind::Millis, "60s", "longest wait for a connection"),
    one("proxy_send_timeout", REQUEST, Kind::Millis, "60s", "longest pause while the request is written"),
    one("proxy_read_timeout", REQUEST, Kind::Millis, "60s", "longest pause while the answer is read"),
    one(
        "proxy_buffering",
        REQUEST,
        Kind::Flag,
        "on",
        "hold what a slow client does not take, so that the upstream is done; off: the client's pace is the upstream's",
    ),
    words("proxy_buffers", REQUEST, 2..=2, "8 8k", "number and size: so much of it is held in memory"),
    one("proxy_max_temp_file_size", REQUEST, Kind::Offset, "1024m", "so much more in a file; 0: nothing"),
    words("proxy_temp_path", REQUEST, 1..=4, "proxy_temp", "folder of such files, which have no names there"),
    one(
        "proxy_request_buffering",
        REQUEST,
        Kind::Flag,
        "on",
        "read the body before the upstream is asked: up to `client_body_buffer_size`, or whole where this is written out",
    ),
    one("proxy_buffer_size", REQUEST, Kind::Size, "8k", "buffer for the head of the answer"),
    words(
        "proxy_next_upstream",
        REQUEST,
        1..=ANY,
        "error timeout",
        "what sends a request to the next server",
    ),
    one("proxy_next_upstream_tries", REQUEST, Kind::Count, "0", "most servers asked; 0: all"),
    one("proxy_next_upstream_timeout", REQUEST, Kind::Millis, "0", "longest time for trying; 0: any"),
    one("proxy_intercept_errors", REQUEST, Kind::Flag, "off", "let error_page answer for upstream errors"),
    one(
        "proxy_ignore_client_abort",
        REQUEST,
        Kind::Flag,
        "off",
        "go on with the upstream when the client left",
    ),
    one("proxy_limit_rate", REQUEST, Kind::Words, "", "bytes per second that are read of an answer"),
    words("proxy_cookie_domain", REQUEST, 1..=2, "", "how the domain of a cookie is rewritten; `off`").many(),
    words("proxy_cookie_path", REQUEST, 1..=2, "", "how the path of a cookie is rewritten; `off`").many(),
    words("proxy_cookie_flags", REQUEST, 1..=4, "", "flags that a cookie gets or loses; `off`").many(),
    words("proxy_ignore_headers", REQUEST, 1..=ANY, "", "orders of the upstream that are not obeyed"),
    words("proxy_redirect", REQUEST, 1..=2, "default", "how Location and Refresh are rewritten").many(),
    one("proxy_socket_keepalive", REQUEST, Kind::Flag, "off", "TCP keepalive on connections to upstreams"),
    one(
        "proxy_protocol",
        REQUEST,
        Kind::Choice(&["off", "on", "v1", "v2"]),
        "off",
        "ours (nginx has it for streams): tell upstreams the client's address in the PROXY protocol, version 1 (`on`) or 2; \
         such a connection serves one request",
    ),
    one("proxy_bind", REQUEST, Kind::Words, "off", "local address for upstream connections"),
];
