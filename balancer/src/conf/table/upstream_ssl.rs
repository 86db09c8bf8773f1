//! Rows of TLS towards upstreams.

use super::{ANY, Context, Directive, Kind, one, words};

const REQUEST: Context = Context::REQUEST;

pub const ROWS: &[Directive] = &[
    one("proxy_ssl_certificate", REQUEST, Kind::Words, "", "file of the certificate shown to upstreams"),
    one("proxy_ssl_certificate_key", REQUEST, Kind::Words, "", "file of the certificate's key"),
    one("proxy_ssl_ciphers", REQUEST, Kind::Words, "DEFAULT", "as `ssl_ciphers`, towards upstreams"),
    one("proxy_ssl_crl", REQUEST, Kind::Words, "", "file of revocation lists for upstreams"),
    one("proxy_ssl_name", REQUEST, Kind::Words, "$proxy_host", "whom an upstream's certificate must name"),
    words("proxy_ssl_protocols", REQUEST, 1..=ANY, "TLSv1.2 TLSv1.3", "versions towards upstreams"),
    one("proxy_ssl_password_file", REQUEST, Kind::Words, "", "file of passwords of keys, a line each"),
    one("proxy_ssl_server_name", REQUEST, Kind::Flag, "off", "name the upstream in the handshake (SNI)"),
    one("proxy_ssl_session_reuse", REQUEST, Kind::Flag, "on", "resume sessions with upstreams"),
    one(
        "proxy_ssl_trusted_certificate",
        REQUEST,
        Kind::Words,
        "",
        "authorities that upstreams are believed by",
    ),
    one("proxy_ssl_verify", REQUEST, Kind::Flag, "off", "check the certificate of upstreams"),
    one(
        "proxy_ssl_verify_depth",
        REQUEST,
        Kind::Count,
        "1",
        "most authorities between a certificate and its root",
    ),
];
