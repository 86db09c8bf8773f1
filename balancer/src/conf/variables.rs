//! The variables of nginx.conf by name → [`Variable`], resolved once at load. Who knows their values: [`Facts`].

use std::sync::Arc;

use super::location::Captures;
use super::made::{Made, Memory};
pub use crate::logic::h1::hash as name_hash;

/// A header's name as requests look it up: lower-case with `-`, and its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderName {
    pub lower: Box<[u8]>,
    pub hash: u32,
}

impl HeaderName {
    pub fn new(name: &[u8]) -> HeaderName {
        HeaderName { lower: name.to_ascii_lowercase().into_boxed_slice(), hash: name_hash(name) }
    }
}

/// What a request can tell about itself. Implemented once, by the relay.
pub trait Facts {
    /// Appends the value to `out`; false when it has none (an absent header, no upstream yet). Never called for
    /// [`Variable::Made`], which the template resolves itself.
    fn value(&self, variable: &Variable, out: &mut Vec<u8>) -> bool;

    /// Where values that stay the same for a request are kept.
    fn memory(&self) -> Option<&Memory> {
        None
    }
}

/// The request's facts with the groups of a pattern of the configuration's own before them.
pub(super) struct WithGroups<'a> {
    pub facts: &'a dyn Facts,
    pub captures: Captures,
}

impl Facts for WithGroups<'_> {
    fn value(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        let found = match variable {
            Variable::Capture(group) => self.captures.group(*group),
            Variable::Named(name) | Variable::User(name) => match self.captures.named(*name) {
                Some(value) => Some(value),
                None => return self.facts.value(variable, out),
            },
            other => return self.facts.value(other, out),
        };
        out.extend_from_slice(found.unwrap_or_default());
        found.is_some()
    }

    fn memory(&self) -> Option<&Memory> {
        self.facts.memory()
    }
}

impl Variable {
    /// Appends the value, following what the configuration makes; false when there is none.
    pub fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) -> bool {
        match self {
            Variable::Made(made) => made.write(facts, out),
            Variable::TakenOver(user, usual) => {
                let from = out.len();
                facts.value(&Variable::User(*user), out) && out.len() > from || facts.value(usual, out)
            }
            other => facts.value(other, out),
        }
    }

    /// The variable that `$name` means, without maps and other names that the configuration itself makes.
    pub fn builtin(name: &str) -> Option<Variable> {
        if let Some(plain) = Variable::plain(name) {
            return Some(plain);
        }
        let header = |rest: &str| HeaderName::new(rest.replace('_', "-").as_bytes());
        let key = |rest: &str| rest.as_bytes().to_vec().into_boxed_slice();
        if name.len() == 1 && name.as_bytes()[0].is_ascii_digit() {
            return Some(Variable::Capture(name.as_bytes()[0] - b'0'));
        }
        for (prefix, family) in FAMILIES {
            // `$arg_` is the argument without a name.
            let may_be_bare = matches!(family, Family::Arg);
            let rest = name.strip_prefix(prefix).filter(|rest| !rest.is_empty() || may_be_bare);
            let Some(rest) = rest else { continue };
            return Some(match family {
                Family::Http => Variable::Http(header(rest)),
                Family::SentHttp => Variable::SentHttp(header(rest)),
                Family::SentTrailer => Variable::SentTrailer(header(rest)),
                Family::UpstreamHttp => Variable::UpstreamHttp(header(rest)),
                Family::UpstreamTrailer => Variable::UpstreamTrailer(header(rest)),
                Family::UpstreamCookie => Variable::UpstreamCookie(key(rest)),
                Family::Arg => Variable::Arg(key(rest)),
                Family::Cookie => Variable::Cookie(key(rest)),
                Family::ProxyProtocolTlv => Variable::ProxyProtocolTlv(rest.into()),
            });
        }
        None
    }
}

enum Family {
    Http,
    SentHttp,
    SentTrailer,
    UpstreamHttp,
    UpstreamTrailer,
    UpstreamCookie,
    Arg,
    Cookie,
    ProxyProtocolTlv,
}

const FAMILIES: &[(&str, Family)] = &[
    ("http_", Family::Http),
    ("sent_http_", Family::SentHttp),
    ("sent_trailer_", Family::SentTrailer),
    ("upstream_http_", Family::UpstreamHttp),
    ("upstream_trailer_", Family::UpstreamTrailer),
    ("upstream_cookie_", Family::UpstreamCookie),
    ("arg_", Family::Arg),
    ("cookie_", Family::Cookie),
    ("proxy_protocol_tlv_", Family::ProxyProtocolTlv),
];

/// Declares the variables without parameters once: variant, nginx's name, what it is.
macro_rules! variables {
    ($($variant:ident $name:literal $doc:literal,)*) => {
        /// One variable, ready to be asked for.
        #[derive(Debug, Clone)]
        pub enum Variable {
            $(#[doc = $doc] $variant,)*
            /// `$http_NAME`: a request header; the name is lower-case with `-`.
            Http(HeaderName),
            /// `$sent_http_NAME`: a header of our answer.
            SentHttp(HeaderName),
            /// `$sent_trailer_NAME`: a trailer of our answer.
            SentTrailer(HeaderName),
            /// `$upstream_http_NAME`: a header of the upstream's answer.
            UpstreamHttp(HeaderName),
            /// `$upstream_trailer_NAME`: a trailer of the upstream's answer.
            UpstreamTrailer(HeaderName),
            /// `$upstream_cookie_NAME`: a cookie that the upstream sets; the name as written, compared without case.
            UpstreamCookie(Box<[u8]>),
            /// `$arg_NAME`: an argument of the query string; the name as written, compared without case.
            Arg(Box<[u8]>),
            /// `$cookie_NAME`: a cookie of the request; the name as written, compared without case.
            Cookie(Box<[u8]>),
            /// `$proxy_protocol_tlv_NAME`: a value that the PROXY protocol carried.
            ProxyProtocolTlv(Box<str>),
            /// `$1` … `$9`: groups of the last regular expression that matched.
            Capture(u8),
            /// A named group of a regular expression; without a value until then.
            Named(super::rewrite::UserVariable),
            /// A variable that `set` makes; empty until then.
            User(super::rewrite::UserVariable),
            /// A variable of a family, `$http_NAME` for one, that `set` gives another value somewhere.
            TakenOver(super::rewrite::UserVariable, Box<Variable>),
            /// A variable that a block of the configuration makes.
            Made(Arc<Made>),
        }

        impl Variable {
            fn plain(name: &str) -> Option<Variable> {
                Some(match name { $($name => Variable::$variant,)* _ => return None })
            }

            /// Names of the variables without parameters, for the docs and for tests.
            pub const PLAIN_NAMES: &[&str] = &[$($name,)*];
        }
    };
}

variables! {
    LimitConnStatus "limit_conn_status" "PASSED, REJECTED or REJECTED_DRY_RUN",
    LimitRate "limit_rate" "bytes per second that the answer is limited to; 0: no limit",
    LimitReqStatus "limit_req_status" "PASSED, DELAYED, REJECTED, DELAYED_DRY_RUN or REJECTED_DRY_RUN",
    Args "args" "the query string as sent",
    QueryString "query_string" "same as `$args`",
    IsArgs "is_args" "`?` when there is a query string, else empty",
    BinaryRemoteAddr "binary_remote_addr" "the client's address as 4 or 16 bytes",
    BodyBytesSent "body_bytes_sent" "bytes of the answer's body sent to the client",
    BytesSent "bytes_sent" "all bytes of the answer sent to the client",
    Connection "connection" "serial number of the client's connection",
    ConnectionRequests "connection_requests" "requests so far on this connection, this one included",
    ConnectionTime "connection_time" "age of the connection, seconds with milliseconds",
    ConnectionsActive "connections_active" "clients' connections",
    ConnectionsReading "connections_reading" "connections whose request is being read",
    ConnectionsWaiting "connections_waiting" "connections without a request",
    ConnectionsWriting "connections_writing" "requests that are being answered",
    ContentLength "content_length" "the request's Content-Length",
    ContentType "content_type" "the request's Content-Type",
    DocumentRoot "document_root" "what `root` or `alias` names",
    DocumentUri "document_uri" "same as `$uri`",
    GzipRatio "gzip_ratio" "length of the answer's body before it was packed to that after",
    Uri "uri" "the path, decoded and normalised, without the query string",
    Host "host" "host of the request line, else of the Host header, else the server's name; lower-case, no port",
    Http2 "http2" "`h2` over TLS, `h2c` in clear text, empty for HTTP/1",
    Hostname "hostname" "name of this machine",
    Https "https" "`on` over TLS, else empty",
    Msec "msec" "now, seconds with milliseconds",
    NginxVersion "nginx_version" "the nginx version whose semantics we follow",
    Pid "pid" "process id",
    Pipe "pipe" "`p` when the request was pipelined, else `.`",
    ProxyProtocolAddr "proxy_protocol_addr" "the client's address as the PROXY protocol names it",
    ProxyProtocolPort "proxy_protocol_port" "the client's port as the PROXY protocol names it",
    ProxyProtocolServerAddr "proxy_protocol_server_addr" "the address that the client reached, by the PROXY protocol",
    ProxyProtocolServerPort "proxy_protocol_server_port" "the port that the client reached, by the PROXY protocol",
    RealpathRoot "realpath_root" "what `root` or `alias` names, without symbolic links",
    RealipRemoteAddr "realip_remote_addr" "the address before real_ip changed it",
    RealipRemotePort "realip_remote_port" "the port before real_ip changed it",
    RemoteAddr "remote_addr" "the client's address",
    RemotePort "remote_port" "the client's port",
    RemoteUser "remote_user" "user name of Basic authentication",
    Request "request" "the request line as sent",
    RequestBody "request_body" "the request's body, where it was read whole",
    RequestBodyFile "request_body_file" "the file that holds the request's body, where there is one",
    RequestCompletion "request_completion" "`OK` when the request ended well, else empty",
    RequestFilename "request_filename" "the file that the path means",
    RequestId "request_id" "32 random hexadecimal digits",
    RequestLength "request_length" "bytes of the request: line, headers and body",
    RequestMethod "request_method" "GET, POST, …",
    RequestPort "request_port" "port of the request line or of the Host header",
    IsRequestPort "is_request_port" "`:` when `$request_port` is not empty",
    RequestTime "request_time" "time since the first byte of the request, seconds with milliseconds",
    RequestUri "request_uri" "the target as sent, with the query string",
    Scheme "scheme" "http or https",
    ServerAddr "server_addr" "the address that accepted the connection",
    ServerName "server_name" "name of the server block that took the request",
    ServerPort "server_port" "the port that accepted the connection",
    ServerProtocol "server_protocol" "HTTP/1.0, HTTP/1.1 or HTTP/2.0",
    SslAlpnProtocol "ssl_alpn_protocol" "protocol agreed on in the handshake: h2, http/1.1",
    SslCipher "ssl_cipher" "suite of the connection, by OpenSSL's name",
    SslCiphers "ssl_ciphers" "suites that the client offered; those unknown here as numbers",
    SslClientCert "ssl_client_cert" "the client's certificate, PEM, lines after the first indented by a tab",
    SslClientEscapedCert "ssl_client_escaped_cert" "the client's certificate, PEM, escaped for a URL",
    SslClientFingerprint "ssl_client_fingerprint" "SHA-1 of the client's certificate",
    SslClientIDn "ssl_client_i_dn" "issuer of the client's certificate, RFC 2253",
    SslClientIDnLegacy "ssl_client_i_dn_legacy" "issuer of the client's certificate, `/` form",
    SslClientRawCert "ssl_client_raw_cert" "the client's certificate, PEM",
    SslClientSDn "ssl_client_s_dn" "subject of the client's certificate, RFC 2253",
    SslClientSDnLegacy "ssl_client_s_dn_legacy" "subject of the client's certificate, `/` form",
    SslClientSerial "ssl_client_serial" "serial number of the client's certificate",
    SslClientVEnd "ssl_client_v_end" "when the client's certificate ends",
    SslClientVRemain "ssl_client_v_remain" "days until the client's certificate ends",
    SslClientVStart "ssl_client_v_start" "when the client's certificate begins",
    SslClientVerify "ssl_client_verify" "SUCCESS, FAILED:reason or NONE",
    SslCurve "ssl_curve" "curve of the key exchange",
    SslCurves "ssl_curves" "curves that the client offered; those unknown here as numbers",
    SslEarlyData "ssl_early_data" "empty: early data is not taken",
    SslProtocol "ssl_protocol" "TLSv1.2 or TLSv1.3",
    SslServerName "ssl_server_name" "the name that the client asked for in the handshake",
    SslSessionId "ssl_session_id" "empty: rustls does not tell it",
    SslSessionReused "ssl_session_reused" "`r` when a session was resumed, else `.`",
    Status "status" "status of the answer",
    TcpinfoRcvSpace "tcpinfo_rcv_space" "bytes of the client's connection that the kernel has room for; empty for HTTP/2",
    TcpinfoRtt "tcpinfo_rtt" "round trip time of the client's connection in microseconds; empty for HTTP/2",
    TcpinfoRttvar "tcpinfo_rttvar" "how that time varies, in microseconds; empty for HTTP/2",
    TcpinfoSndCwnd "tcpinfo_snd_cwnd" "congestion window of the client's connection; empty for HTTP/2",
    TimeIso8601 "time_iso8601" "local time, ISO 8601",
    TimeLocal "time_local" "local time, Common Log Format",
    ProxyHost "proxy_host" "host and port as proxy_pass names them",
    ProxyPort "proxy_port" "port as proxy_pass names it",
    ProxyAddXForwardedFor "proxy_add_x_forwarded_for" "X-Forwarded-For with `$remote_addr` added",
    UpstreamAddr "upstream_addr" "addresses tried, in order",
    UpstreamBytesReceived "upstream_bytes_received" "bytes that came from each upstream tried",
    UpstreamBytesSent "upstream_bytes_sent" "bytes that went to each upstream tried",
    UpstreamCacheEtag "upstream_cache_etag" "empty: nothing is cached",
    UpstreamCacheLastModified "upstream_cache_last_modified" "empty: nothing is cached",
    UpstreamCacheStatus "upstream_cache_status" "empty: nothing is cached",
    UpstreamConnectTime "upstream_connect_time" "seconds to connect, per upstream tried",
    UpstreamHeaderTime "upstream_header_time" "seconds to the answer's head, per upstream tried",
    UpstreamResponseLength "upstream_response_length" "bytes of body, per upstream tried",
    UpstreamResponseTime "upstream_response_time" "seconds to the answer's end, per upstream tried",
    UpstreamStatus "upstream_status" "status, per upstream tried",
    BalancerWhy "balancer_why" "ours: by what each upstream server was chosen, and which were passed over for what",
    BalancerEnding "balancer_ending" "ours: by whom and when the request ended, in two letters",
    BalancerTraceparent "balancer_traceparent" "ours: the client's `traceparent` where it is valid, else a new one",
    UpstreamLastServerName "upstream_last_server_name" "name of the upstream server chosen last",
}
