//! Opens listening sockets, keeps those that a new configuration still wants, closes the others.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{SetSockOpt as _, Shutdown, shutdown};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket as RawSocket, TcpKeepalive, Type};

use crate::conf::listen::{Listen, SocketKeepalive, SocketOptions};
use crate::conf::upstream::Address;
use crate::control::handover::Inherited;
use crate::running::{Listener, Socket};
use crate::tcp;

/// A process that is just ending may still hold the address: nginx tries as often and as long.
const BIND_TRIES: u32 = 5;
const BIND_PAUSE: Duration = Duration::from_millis(500);

/// Sockets for all addresses; those of `previous` that fit are taken over.
pub fn open(
    listens: &[Arc<Listen>],
    previous: &[Arc<Listener>],
    workers: usize,
) -> Result<Vec<Arc<Listener>>, String> {
    open_with(listens, previous, workers, &mut Inherited::default())
}

/// As [`open`], with what a process before us has handed over.
pub fn open_with(
    listens: &[Arc<Listen>],
    previous: &[Arc<Listener>],
    workers: usize,
    inherited: &mut Inherited,
) -> Result<Vec<Arc<Listener>>, String> {
    // While we run, nobody must wait for us; at the start there is nothing else to do.
    let tries = if previous.is_empty() { BIND_TRIES } else { 1 };
    let mut opened = Vec::new();
    for listen in listens {
        let listener = match previous.iter().find(|known| known.listen.address == listen.address) {
            Some(known) => keep(known, listen, workers)?,
            None => Arc::new(open_one(listen, workers, (tries, inherited))?),
        };
        opened.push(listener);
    }
    Ok(opened)
}

/// The sockets stay; what is new in their options is told to them, and with `reuseport` new workers get theirs.
fn keep(known: &Arc<Listener>, listen: &Arc<Listen>, workers: usize) -> Result<Arc<Listener>, String> {
    if known.listen.options.backlog != listen.options.backlog {
        let backlog = i32::try_from(listen.options.backlog).unwrap_or(i32::MAX);
        for socket in &known.sockets {
            SockRef::from(&**socket).listen(backlog).map_err(|error| {
                format!("listen() to {}, backlog {backlog} failed ({error})", listen.address)
            })?;
        }
    }
    if known.listen.options != listen.options && matches!(listen.address, Address::Tcp(_)) {
        for socket in &known.sockets {
            configure(&SockRef::from(&**socket), &listen.options)
                .map_err(|error| format!("setsockopt() {} failed ({error})", listen.address))?;
        }
    }
    let sockets = top_up(listen, known.sockets.clone(), workers, 1)?;
    let is_as_before = sockets.len() == known.sockets.len() && known.listen.options == listen.options;
    Ok(if is_as_before { known.clone() } else { Arc::new(Listener { listen: listen.clone(), sockets }) })
}

fn open_one(
    listen: &Arc<Listen>,
    workers: usize,
    (tries, inherited): (u32, &mut Inherited),
) -> Result<Listener, String> {
    let sockets = inherited.take(&listen.address).into_iter().map(Arc::new).collect();
    Ok(Listener { listen: listen.clone(), sockets: top_up(listen, sockets, workers, tries)? })
}

/// Binds those that are missing. What is open already may not share its port yet: then it has to, as in nginx.
fn top_up(
    listen: &Listen,
    mut sockets: Vec<Arc<Socket>>,
    workers: usize,
    tries: u32,
) -> Result<Vec<Arc<Socket>>, String> {
    let is_for_each = listen.options.reuseport && matches!(listen.address, Address::Tcp(_));
    let wanted = if is_for_each { workers } else { 1 };
    if sockets.len() >= wanted {
        return Ok(sockets);
    }
    let address = &listen.address;
    for socket in &sockets {
        let shared = SockRef::from(&**socket).set_reuse_port(true);
        shared.map_err(|error| format!("setsockopt(SO_REUSEPORT) {address} failed ({error})"))?;
    }
    let had = sockets.len();
    while sockets.len() < wanted {
        match bind_patiently(listen, tries) {
            Ok(socket) => sockets.push(Arc::new(socket)),
            // What root has opened, another user shares with nobody new; the kernel gives no other reason.
            Err(error) if had > 0 => {
                tracing::warn!(
                    "bind() to {address} failed ({error}): workers share {} sockets there",
                    sockets.len()
                );
                break;
            }
            Err(error) => return Err(format!("bind() to {address} failed ({error})")),
        }
    }
    Ok(sockets)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the master waits for an address before it has anything else to do"
)]
fn bind_patiently(listen: &Listen, tries: u32) -> io::Result<Socket> {
    for _ in 1..tries {
        match bind(listen) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(BIND_PAUSE),
            other => return other,
        }
    }
    bind(listen)
}

fn bind(listen: &Listen) -> io::Result<Socket> {
    match &listen.address {
        Address::Tcp(address) => bind_tcp(*address, &listen.options).map(Socket::Tcp),
        // As nginx: who may connect is for the folder's permissions to say.
        Address::Unix(path) => chassis::listen::unix(path, 0o666).map(Socket::Unix),
    }
}

fn bind_tcp(address: SocketAddr, options: &SocketOptions) -> io::Result<std::net::TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuseport {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.ipv6only)?;
    }
    configure(&socket, options)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// What connections that are accepted take over, and when they are.
fn configure(socket: &RawSocket, options: &SocketOptions) -> io::Result<()> {
    options.rcvbuf.map_or(Ok(()), |len| socket.set_recv_buffer_size(len))?;
    options.sndbuf.map_or(Ok(()), |len| socket.set_send_buffer_size(len))?;
    match options.so_keepalive {
        None => {}
        Some(SocketKeepalive::Off) => socket.set_keepalive(false)?,
        Some(SocketKeepalive::On { idle, interval, count }) => {
            let terms = idle.into_iter().fold(TcpKeepalive::new(), TcpKeepalive::with_time);
            let terms = interval.into_iter().fold(terms, TcpKeepalive::with_interval);
            let terms = count.into_iter().fold(terms, TcpKeepalive::with_retries);
            socket.set_tcp_keepalive(&terms)?;
        }
    }
    // As nginx: nobody knows how long a connection has waited, so it does not wait for more than a second.
    tcp::DeferAccept.set(socket, &i32::from(options.deferred))?;
    options.fastopen.map_or(Ok(()), |len| tcp::FastOpen.set(socket, &len))?;
    Ok(())
}

/// Drops what opens a connection (SYN without ACK in the 14th byte of a TCP header), and nothing else: handshakes that have
/// begun come to their end, and connections that are accepted take the filter along.
const NO_NEWCOMERS: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// From now on nobody new gets in; who is in can still be accepted, and `close` then finds nobody whom it would reset.
pub fn turn_away(listener: &Listener) {
    if let Address::Unix(path) = &listener.listen.address {
        // Somebody else may have removed it already.
        let _ = std::fs::remove_file(path);
        return;
    }
    for socket in &listener.sockets {
        if let Err(error) = SockRef::from(&**socket).attach_filter(&NO_NEWCOMERS) {
            // Who comes within the next moment may be reset, which is no reason to stay open.
            tracing::warn!("setsockopt(SO_ATTACH_FILTER) {} failed: {error}", listener.listen.address);
        }
    }
}

/// No connection comes in here any more, however many duplicates of the sockets are still around.
pub fn close(listener: &Listener) {
    for socket in &listener.sockets {
        if let Err(error) = shutdown(socket.as_fd().as_raw_fd(), Shutdown::Both) {
            tracing::warn!("closing the listener on {} failed: {error}", listener.listen.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::sys::socket::GetSockOpt as _;

    use super::*;

    fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn nobody_new_gets_in_and_who_is_in_is_served() {
        let (listener, address) = listening();
        let early = TcpStream::connect(address).unwrap();
        SockRef::from(&listener).attach_filter(&NO_NEWCOMERS).unwrap();
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(50));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (served, from) = listener.accept().unwrap();
        assert_eq!(from, early.local_addr().unwrap());
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        io::Write::write_all(&mut &early, b"hello").unwrap();
        let mut heard = [0; 5];
        served.set_nonblocking(false).unwrap();
        io::Read::read_exact(&mut &served, &mut heard).unwrap();
        assert_eq!(&heard, b"hello", "the filter it took along lets all of this pass");
    }

    #[test]
    fn options_are_told_to_a_socket_and_to_one_that_a_reload_keeps() {
        let plain = SocketOptions {
            backlog: 5,
            reuseport: false,
            ipv6only: true,
            rcvbuf: None,
            sndbuf: None,
            so_keepalive: None,
            deferred: false,
            fastopen: None,
        };
        let (idle, interval) = (Some(Duration::from_secs(1800)), None);
        let kept = SocketOptions {
            so_keepalive: Some(SocketKeepalive::On { idle, interval, count: Some(10) }),
            deferred: true,
            fastopen: Some(7),
            ..plain.clone()
        };
        let listener = bind_tcp(([127, 0, 0, 1], 0).into(), &kept).unwrap();
        let socket = SockRef::from(&listener);
        let is_told = |is_deferred: bool| {
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(1800));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 10);
            assert_eq!(tcp::FastOpen.get(&listener).unwrap(), 7);
            assert_eq!(tcp::DeferAccept.get(&listener).unwrap() > 0, is_deferred);
        };
        is_told(true);
        configure(&socket, &plain).unwrap();
        is_told(false);
        configure(&socket, &SocketOptions { so_keepalive: Some(SocketKeepalive::Off), ..plain }).unwrap();
        assert!(!socket.keepalive().unwrap());
    }
}
