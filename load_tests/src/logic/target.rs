//! The address under test, read from a URL as locust's `--host` takes it.

use std::fmt;
use std::str::FromStr;

/// Host and port of a plain HTTP service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
}

impl Target {
    /// What the Host header says.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("`{text}` is no target ({why}): write http://127.0.0.1:8080");
        let uri: http::Uri = text.trim_end_matches('/').parse().map_err(|_| bad("not a URL"))?;
        match uri.scheme_str() {
            Some("http") | None => {}
            Some("https") => return Err(bad("TLS is not spoken here: aim at the plain listener")),
            Some(_) => return Err(bad("not http")),
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("a path is not part of it"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("no host"))?;
        // An explicit port that is no port number parses as none.
        let port_text = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let port = match (uri.port_u16(), port_text.rsplit_once(':')) {
            (Some(port), _) => port,
            (None, Some((_, tail))) if !tail.ends_with(']') => return Err(bad("port")),
            (None, _) => 80,
        };
        Ok(Self { host: host.trim_start_matches('[').trim_end_matches(']').to_owned(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_and_bare_addresses_are_read() {
        let table = [
            ("http://localhost", "localhost", 80),
            ("http://127.0.0.1:8080/", "127.0.0.1", 8080),
            ("127.0.0.1:8001", "127.0.0.1", 8001),
            ("http://[::1]:9000", "::1", 9000),
        ];
        for (text, host, port) in table {
            assert_eq!(text.parse(), Ok(Target { host: host.into(), port }), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_reached_over_http_is_refused() {
        for text in ["https://x", "ftp://x", "http://x/path", "", "http://", "http://x:99999"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(host in "[a-z][a-z0-9.-]{0,20}[a-z]", port in 1u16..) {
            let target = Target { host, port };
            prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
        }

        #[test]
        fn no_text_panics(text in ".{0,30}") { let _ = text.parse::<Target>(); }
    }
}
