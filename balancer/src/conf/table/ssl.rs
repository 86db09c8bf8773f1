//! Rows of TLS and HTTP/2 towards clients.

use super::{ANY, Context, Directive, Kind, one, words};

const HEAD: Context = Context::HTTP.or(Context::SERVER);

pub const ROWS: &[Directive] = &[
    one(
        "ssl_certificate",
        HEAD,
        Kind::Words,
        "",
        "file of a certificate and those that lead to its authority",
    )
    .many(),
    one("ssl_certificate_key", HEAD, Kind::Words, "", "file of the certificate's key").many(),
    one("ssl_password_file", HEAD, Kind::Words, "", "file of passwords of keys (PKCS #8), a line each"),
    words("ssl_protocols", HEAD, 1..=ANY, "TLSv1.2 TLSv1.3", "versions; those before TLSv1.2 are not spoken"),
    one(
        "ssl_ciphers",
        HEAD,
        Kind::Words,
        "HIGH:!aNULL:!MD5",
        "suites of TLS 1.2 in OpenSSL's form: narrows and orders the forward-secret AEAD suites",
    ),
    one("ssl_prefer_server_ciphers", HEAD, Kind::Flag, "off", "our order of suites counts, not the client's"),
    one("ssl_ecdh_curve", HEAD, Kind::Words, "auto", "curves in order: X25519, prime256v1, secp384r1"),
    words(
        "ssl_session_cache",
        HEAD,
        1..=2,
        "none",
        "off, none, builtin[:size], shared:name:size: sessions kept for clients without tickets",
    ),
    one("ssl_session_tickets", HEAD, Kind::Flag, "on", "give sessions to clients, sealed"),
    one(
        "ssl_session_ticket_key",
        HEAD,
        Kind::Words,
        "",
        "file of 48 or 80 bytes that seals tickets; the first seals, all open",
    )
    .many(),
    one("ssl_session_timeout", HEAD, Kind::Seconds, "5m", "how long a session can be resumed"),
    one(
        "ssl_verify_client",
        HEAD,
        Kind::Choice(&["off", "on", "optional", "optional_no_ca"]),
        "off",
        "ask clients for a certificate",
    ),
    one("ssl_verify_depth", HEAD, Kind::Count, "1", "most authorities between a certificate and its root"),
    one("ssl_client_certificate", HEAD, Kind::Words, "", "authorities of clients, told to them"),
    one("ssl_trusted_certificate", HEAD, Kind::Words, "", "authorities of clients, not told to them"),
    one("ssl_crl", HEAD, Kind::Words, "", "file of revocation lists"),
    one("ssl_stapling", HEAD, Kind::Flag, "off", "show the authority's word with the certificate"),
    one(
        "ssl_stapling_file",
        HEAD,
        Kind::Words,
        "",
        "file of that word (OCSP response, DER); none is fetched",
    ),
    one("ssl_reject_handshake", HEAD, Kind::Flag, "off", "refuse the handshake of clients that come here"),
    one(
        "ssl_early_data",
        HEAD,
        Kind::Choice(&["off"]),
        "off",
        "only `off`: what comes early can be played again",
    ),
    one("http2", HEAD, Kind::Flag, "off", "HTTP/2 over TLS by ALPN, and in clear text by its preface"),
    one(
        "http2_max_concurrent_streams",
        HEAD,
        Kind::Count,
        "128",
        "requests at once over one HTTP/2 connection",
    ),
    one(
        "http2_body_preread_size",
        HEAD,
        Kind::Size,
        "64k",
        "how much of a body comes before it is asked for",
    ),
];
