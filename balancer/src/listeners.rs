//! Opens listening sockets, keeps those that a new configuration still wants, closes the others.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};

use crate::conf::listen::{Listen, SocketOptions};
use crate::conf::upstream::Address;
use crate::control::handover::Inherited;
use crate::running::{Listener, Socket};

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
        let listener = match previous.iter().find(|known| fits(known, listen, workers)) {
            Some(known) => keep(known, listen)?,
            None => Arc::new(open_one(listen, workers, (tries, inherited))?),
        };
        opened.push(listener);
    }
    Ok(opened)
}

/// With `reuseport` there is a socket for each worker: one that nobody accepts from would swallow its share.
fn fits(known: &Listener, listen: &Listen, workers: usize) -> bool {
    let (before, after) = (&known.listen.options, &listen.options);
    known.listen.address == listen.address
        && before.reuseport == after.reuseport
        && before.ipv6only == after.ipv6only
        && (!after.reuseport || known.sockets.len() == workers)
}

/// The socket stays; a new backlog is told to it.
fn keep(known: &Arc<Listener>, listen: &Listen) -> Result<Arc<Listener>, String> {
    if known.listen.options.backlog != listen.options.backlog {
        let backlog = i32::try_from(listen.options.backlog).unwrap_or(i32::MAX);
        for socket in &known.sockets {
            let listened = match socket {
                Socket::Tcp(listener) => SockRef::from(listener).listen(backlog),
                Socket::Unix(listener) => SockRef::from(listener).listen(backlog),
            };
            listened.map_err(|error| {
                format!("listen() to {}, backlog {backlog} failed ({error})", listen.address)
            })?;
        }
    }
    Ok(known.clone())
}

fn open_one(
    listen: &Arc<Listen>,
    workers: usize,
    (tries, inherited): (u32, &mut Inherited),
) -> Result<Listener, String> {
    let count = if listen.options.reuseport { workers } else { 1 };
    let mut sockets = inherited.take(&listen.address);
    sockets.truncate(count);
    let missing = (sockets.len()..count).map(|_| bind_patiently(listen, tries));
    let missing = missing.collect::<io::Result<Vec<Socket>>>();
    sockets.extend(missing.map_err(|error| format!("bind() to {} failed ({error})", listen.address))?);
    Ok(Listener { listen: listen.clone(), sockets })
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
        Address::Tcp(address) => tcp(*address, &listen.options).map(Socket::Tcp),
        // As nginx: who may connect is for the folder's permissions to say.
        Address::Unix(path) => chassis::listen::unix(path, 0o666).map(Socket::Unix),
    }
}

fn tcp(address: SocketAddr, options: &SocketOptions) -> io::Result<std::net::TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuseport {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.ipv6only)?;
    }
    options.rcvbuf.map_or(Ok(()), |len| socket.set_recv_buffer_size(len))?;
    options.sndbuf.map_or(Ok(()), |len| socket.set_send_buffer_size(len))?;
    options.so_keepalive.map_or(Ok(()), |on| socket.set_keepalive(on))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// No connection comes in here any more, however many duplicates of the sockets are still around.
pub fn close(listener: &Listener) {
    for socket in &listener.sockets {
        let fd = match socket {
            Socket::Tcp(listener) => listener.as_raw_fd(),
            Socket::Unix(listener) => listener.as_raw_fd(),
        };
        if let Err(error) = shutdown(fd, Shutdown::Both) {
            tracing::warn!("closing the listener on {} failed: {error}", listener.listen.address);
        }
    }
    if let Address::Unix(path) = &listener.listen.address {
        // Somebody else may have removed it already.
        let _ = std::fs::remove_file(path);
    }
}
