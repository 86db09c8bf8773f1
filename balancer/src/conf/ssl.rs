//! `ssl_*` of a server block as they stand in the configuration. What rustls makes of them: `tls::server`.

use std::time::Duration;

/// One block's settings; files are named, not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssl {
    /// Certificate chain and key, by path or as `data:` text.
    pub certificates: Vec<(String, String)>,
    /// Passwords of keys, a line each.
    pub password_file: Option<String>,
    pub protocols: Vec<String>,
    pub ciphers: String,
    pub prefer_server_ciphers: bool,
    pub curves: String,
    pub session_tickets: bool,
    pub session_ticket_keys: Vec<String>,
    pub session_timeout: Duration,
    pub verify: Verify,
    pub verify_depth: usize,
    /// Authorities that clients are told of and that are trusted.
    pub client_certificate: Option<String>,
    /// Authorities that are trusted only.
    pub trusted_certificate: Option<String>,
    pub crl: Option<String>,
    /// `ssl_stapling on` with `ssl_stapling_file`.
    pub stapling_file: Option<String>,
    pub reject_handshake: bool,
}

/// `ssl_verify_client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    Off,
    On,
    Optional,
    OptionalNoCa,
}

/// `proxy_ssl_*` or `grpc_ssl_*` of a location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSsl {
    pub certificate: Option<(String, String)>,
    /// Passwords of keys, a line each.
    pub password_file: Option<String>,
    pub protocols: Vec<String>,
    pub ciphers: String,
    /// The handshake names the upstream (SNI).
    pub sends_name: bool,
    pub verifies: bool,
    pub verify_depth: usize,
    pub trusted_certificate: Option<String>,
    pub crl: Option<String>,
    pub reuses_sessions: bool,
}
