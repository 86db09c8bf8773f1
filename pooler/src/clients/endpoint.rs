//! Where a client's connection begins and ends.

use std::net::SocketAddr;

/// An end of a client's connection. Made into text when somebody asks: thousands of idle clients keep none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(SocketAddr),
    /// The peer's process, if it is the peer's end, and the port in the socket's name.
    Unix {
        process_id: Option<i32>,
        port: u16,
    },
}

impl Endpoint {
    /// An address of IPv4 that came in by a socket of IPv6 is one of IPv4.
    pub fn tcp(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// As `host` shows it.
    pub fn from_host(host: &str, port: u16) -> Endpoint {
        match host.parse() {
            Ok(ip) => Endpoint::Tcp(SocketAddr::new(ip, port)),
            Err(_) => {
                let process_id = host.strip_prefix("unix(").and_then(|rest| rest.strip_suffix(')'));
                Endpoint::Unix { process_id: process_id.and_then(|text| text.parse().ok()), port }
            }
        }
    }

    pub fn is_tcp(self) -> bool {
        matches!(self, Endpoint::Tcp(_))
    }

    /// An address, `unix(PID)` or `unix`.
    pub fn host(self) -> String {
        match self {
            Endpoint::Tcp(address) => address.ip().to_string(),
            Endpoint::Unix { process_id: Some(process_id), .. } => format!("unix({process_id})"),
            Endpoint::Unix { process_id: None, .. } => "unix".to_string(),
        }
    }

    pub fn port(self) -> u16 {
        match self {
            Endpoint::Tcp(address) => address.port(),
            Endpoint::Unix { port, .. } => port,
        }
    }
}

/// `host:port`, with brackets around an address of IPv6.
impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Unix { port, .. } => write!(f, "{}:{port}", self.host()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_as_it_is_shown() {
        for (host, port, shown) in [
            ("127.0.0.1", 5, "127.0.0.1:5"),
            ("::1", 5, "[::1]:5"),
            ("unix(77)", 6432, "unix(77):6432"),
            ("unix", 6432, "unix:6432"),
        ] {
            let endpoint = Endpoint::from_host(host, port);
            assert_eq!((endpoint.host().as_str(), endpoint.port()), (host, port));
            assert_eq!(endpoint.to_string(), shown);
        }
        let mapped = Endpoint::tcp("[::ffff:10.0.0.1]:7".parse().unwrap());
        assert_eq!(mapped, Endpoint::from_host("10.0.0.1", 7));
    }
}
