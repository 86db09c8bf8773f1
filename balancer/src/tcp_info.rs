//! What the kernel knows of a TCP connection (`TCP_INFO`): an option that nix has no name for, by nix's own macro.

use nix::libc;
use nix::sys::socket::GetSockOpt as _;
use nix::sys::socket::sockopt::GetStruct;

use crate::wire::Wire;

pub use libc::tcp_info as Info;

#[derive(Debug, Clone, Copy)]
struct TcpInfo;

nix::getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, Info, GetStruct<Info>);

/// `None` where a wire has no TCP socket of its own: on a unix socket, and for a stream of HTTP/2.
pub fn of(wire: &Wire) -> Option<Info> {
    match wire {
        Wire::Tcp(tcp) => TcpInfo.get(tcp).ok(),
        Wire::Tls(tls) => of(tls.socket()),
        Wire::Unix(_) | Wire::Served(_) | Wire::Asked(_) => None,
    }
}
