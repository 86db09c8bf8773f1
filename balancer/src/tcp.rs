//! Options of TCP sockets that nix has no names for, by nix's own macros.

use nix::libc;
use nix::sys::socket::GetSockOpt as _;
use nix::sys::socket::sockopt::{GetStruct, SetStruct};

use crate::wire::Wire;

/// What the kernel knows of a connection.
pub use libc::tcp_info as Info;

#[derive(Debug, Clone, Copy)]
struct TcpInfo;

nix::getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, Info, GetStruct<Info>);

/// For so many seconds a connection is not accepted before there is something to read.
#[derive(Debug, Clone, Copy)]
pub struct DeferAccept;

nix::getsockopt_impl!(DeferAccept, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32, GetStruct<i32>);
nix::setsockopt_impl!(DeferAccept, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32, SetStruct<i32>);

/// So many connections may bring data with their SYN and wait for the handshake's end.
#[derive(Debug, Clone, Copy)]
pub struct FastOpen;

nix::getsockopt_impl!(FastOpen, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, i32, GetStruct<i32>);
nix::setsockopt_impl!(FastOpen, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, i32, SetStruct<i32>);

/// `None` where a wire has no TCP socket of its own: on a unix socket, and for a stream of HTTP/2.
pub fn info(wire: &Wire) -> Option<Info> {
    match wire {
        Wire::Tcp(tcp) => TcpInfo.get(tcp).ok(),
        Wire::Tls(tls) => info(tls.socket()),
        Wire::Unix(_) | Wire::Served(_) | Wire::Asked(_) => None,
    }
}
