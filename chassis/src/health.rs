//! A service asks its own running self whether it is well: for containers, which have no other program to ask with.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A service that needs longer than this is not well.
const PATIENCE: Duration = Duration::from_secs(2);
/// `HTTP/1.1 200`: all of the answer that is looked at.
const STATUS_LEN: usize = 12;

#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    #[error("nobody answers on {place}: {cause}")]
    Unreachable { place: SocketAddr, cause: io::Error },
    #[error("{place} does not answer in time: {cause}")]
    Silent { place: SocketAddr, cause: io::Error },
    #[error("{place} is not healthy: {status}")]
    Refused { place: SocketAddr, status: String },
}

/// Asks for `path` over HTTP. An address that stands for all is asked on loopback.
///
/// # Errors
/// Any answer but 200, and none within 2 s.
pub fn ask(listens: SocketAddr, path: &str) -> Result<(), Unwell> {
    let place = reachable(listens);
    let mut stream =
        TcpStream::connect_timeout(&place, PATIENCE).map_err(|cause| Unwell::Unreachable { place, cause })?;
    let status = status(&mut stream, path).map_err(|cause| Unwell::Silent { place, cause })?;
    let status = String::from_utf8_lossy(&status).into_owned();
    if status.ends_with(" 200") { Ok(()) } else { Err(Unwell::Refused { place, status }) }
}

fn reachable(listens: SocketAddr) -> SocketAddr {
    let host = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(host, listens.port())
}

fn status(stream: &mut TcpStream, path: &str) -> io::Result<[u8; STATUS_LEN]> {
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; STATUS_LEN];
    stream.read_exact(&mut status)?;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Listens on all addresses and answers one request so.
    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
        let place = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            assert!(head.starts_with(b"GET /ready HTTP/1.1\r\n"), "{head:?}");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        place
    }

    #[test]
    fn only_a_200_is_well() {
        ask(answering("HTTP/1.1 200 OK\r\n\r\n"), "/ready").unwrap();
        let told = ask(answering("HTTP/1.1 503 Service Unavailable\r\n\r\n"), "/ready").unwrap_err();
        assert!(told.to_string().ends_with("is not healthy: HTTP/1.1 503"), "{told}");
    }

    #[test]
    fn an_answer_that_breaks_off_and_a_closed_port_are_told_apart() {
        assert!(matches!(ask(answering("HTTP/"), "/ready"), Err(Unwell::Silent { .. })));
        let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        assert!(matches!(ask(closed, "/ready"), Err(Unwell::Unreachable { .. })));
    }
}
