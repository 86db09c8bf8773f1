//! The client's connection: its ends, its age, its version.

use super::{Told, put, put_number, put_seconds};
use crate::conf::variables::Variable;
use crate::logic::h1::Version;
use crate::tcp;

/// `None`: the variable is not one of these.
pub fn value(told: &Told<'_>, variable: &Variable, out: &mut Vec<u8>) -> Option<bool> {
    let down = told.down;
    Some(match variable {
        Variable::RemoteAddr => put(out, told.client_text()),
        Variable::RealipRemoteAddr => put(out, &down.arrival.peer_text),
        Variable::RemotePort => match told.client() {
            Some(client) if client.port() > 0 => put_number(out, u64::from(client.port())),
            _ => false,
        },
        Variable::RealipRemotePort => match down.arrival.peer {
            Some(peer) => put_number(out, u64::from(peer.port())),
            None => false,
        },
        Variable::BinaryRemoteAddr => match told.client().map(|client| client.ip().to_canonical()) {
            Some(std::net::IpAddr::V4(ip)) => put(out, &ip.octets()),
            Some(std::net::IpAddr::V6(ip)) => put(out, &ip.octets()),
            None => false,
        },
        Variable::Connection => put_number(out, down.arrival.serial),
        Variable::ConnectionRequests => put_number(out, down.requests),
        Variable::ConnectionTime => put_seconds(out, told.since(Some(down.arrival.opened.into_std()))),
        Variable::Https => down.arrival.tls.is_some() && put(out, b"on"),
        Variable::Http2 => {
            let is_http2 = told.story().request.version == Version::Http2;
            is_http2 && put(out, if down.arrival.tls.is_some() { b"h2" } else { b"h2c" })
        }
        Variable::Scheme => put(out, down.scheme()),
        Variable::ServerAddr => match down.wire.local_addr() {
            Some(local) => put(out, local.ip().to_canonical().to_string().as_bytes()),
            None => put(out, b"unix:"),
        },
        Variable::ServerPort => match down.wire.local_addr() {
            Some(local) => put_number(out, u64::from(local.port())),
            None => false,
        },
        Variable::TcpinfoRtt => tell_tcp(told, out, |info| info.tcpi_rtt),
        Variable::TcpinfoRttvar => tell_tcp(told, out, |info| info.tcpi_rttvar),
        Variable::TcpinfoSndCwnd => tell_tcp(told, out, |info| info.tcpi_snd_cwnd),
        Variable::TcpinfoRcvSpace => tell_tcp(told, out, |info| info.tcpi_rcv_space),
        _ => return None,
    })
}

fn tell_tcp(told: &Told<'_>, out: &mut Vec<u8>, tell: fn(tcp::Info) -> u32) -> bool {
    tcp::info(&told.down.wire).is_some_and(|info| put_number(out, tell(info).into()))
}
