//! Rows of `grpc_*`: as `proxy_*` of the same name.

use super::{ANY, Context, Directive, Kind, one, words};

const REQUEST: Context = Context::REQUEST;

pub const ROWS: &[Directive] = &[
    words(
        "grpc_pass",
        Context::LOCATION.or(Context::IF_LOCATION),
        1..=1,
        "",
        "the upstream, spoken to in HTTP/2: [grpc://]group, grpcs://address:port, unix:",
    ),
    words("grpc_set_header", REQUEST, 2..=2, "", "a header of the request to the upstream; empty: none")
        .many(),
    one("grpc_hide_header", REQUEST, Kind::Words, "", "a header of the answer that is not passed on").many(),
    one("grpc_pass_header", REQUEST, Kind::Words, "", "a header of the answer that is passed on after all")
        .many(),
    one("grpc_connect_timeout", REQUEST, Kind::Millis, "60s", "longest wait for a connection"),
    one("grpc_send_timeout", REQUEST, Kind::Millis, "60s", "longest pause while the request is written"),
    one("grpc_read_timeout", REQUEST, Kind::Millis, "60s", "longest pause while the answer is read"),
    one("grpc_buffer_size", REQUEST, Kind::Size, "8k", "buffer for the head of the answer"),
    one("grpc_intercept_errors", REQUEST, Kind::Flag, "off", "let error_page answer for upstream errors"),
    words("grpc_next_upstream", REQUEST, 1..=ANY, "error timeout", "what sends a request to the next server"),
    one("grpc_next_upstream_tries", REQUEST, Kind::Count, "0", "most servers asked; 0: all"),
    one("grpc_next_upstream_timeout", REQUEST, Kind::Millis, "0", "longest time for trying; 0: any"),
    words("grpc_ignore_headers", REQUEST, 1..=ANY, "", "orders of the upstream that are not obeyed"),
    one("grpc_socket_keepalive", REQUEST, Kind::Flag, "off", "TCP keepalive on connections to upstreams"),
    one("grpc_bind", REQUEST, Kind::Words, "off", "local address for upstream connections"),
    one("grpc_ssl_certificate", REQUEST, Kind::Words, "", "file of the certificate shown to upstreams"),
    one("grpc_ssl_certificate_key", REQUEST, Kind::Words, "", "file of the certificate's key"),
    one("grpc_ssl_ciphers", REQUEST, Kind::Words, "DEFAULT", "as `ssl_ciphers`, towards upstreams"),
    one("grpc_ssl_crl", REQUEST, Kind::Words, "", "file of revocation lists for upstreams"),
    one("grpc_ssl_name", REQUEST, Kind::Words, "$proxy_host", "whom an upstream's certificate must name"),
    words("grpc_ssl_protocols", REQUEST, 1..=ANY, "TLSv1.2 TLSv1.3", "versions towards upstreams"),
    one("grpc_ssl_password_file", REQUEST, Kind::Words, "", "file of passwords of keys, a line each"),
    one("grpc_ssl_server_name", REQUEST, Kind::Flag, "off", "name the upstream in the handshake (SNI)"),
    one("grpc_ssl_session_reuse", REQUEST, Kind::Flag, "on", "resume sessions with upstreams"),
    one(
        "grpc_ssl_trusted_certificate",
        REQUEST,
        Kind::Words,
        "",
        "authorities that upstreams are believed by",
    ),
    one("grpc_ssl_verify", REQUEST, Kind::Flag, "off", "check the certificate of upstreams"),
    one(
        "grpc_ssl_verify_depth",
        REQUEST,
        Kind::Count,
        "1",
        "most authorities between a certificate and its root",
    ),
];
