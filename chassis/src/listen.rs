//! Listening sockets and the number of open files they live on.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

/// How many files this process may open, after the soft limit was raised as far as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    pub soft: u64,
    pub hard: u64,
}

/// Raises the soft limit of open files up to the hard one, which needs no privilege.
///
/// # Errors
/// The system does not tell or refuses its own hard limit.
pub fn raise_open_files() -> io::Result<OpenFiles> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(OpenFiles { soft: hard, hard })
}

/// Options of a TCP listener.
#[derive(Debug, Clone, Copy)]
pub struct Tcp {
    pub backlog: u32,
    /// `SO_REUSEPORT`: several listeners on one address, among which the kernel spreads connections.
    pub reuse_port: bool,
}

impl Default for Tcp {
    fn default() -> Self {
        Self { backlog: 1024, reuse_port: false }
    }
}

/// A non-blocking TCP listener with `SO_REUSEADDR`; an IPv6 address takes IPv6 only, so that `0.0.0.0` and `[::]` can stand side by side.
///
/// # Errors
/// Names the address and the cause, for example that another process listens there.
pub fn tcp(addr: SocketAddr, options: Tcp) -> io::Result<std::net::TcpListener> {
    open(addr, options)
        .map_err(|cause| io::Error::new(cause.kind(), format!("cannot listen on {addr}: {cause}")))
}

fn open(addr: SocketAddr, options: Tcp) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A non-blocking unix listener at `path` with permissions `mode`.
///
/// A socket file that nobody answers on is left over from a process that died and is removed; one
/// that is answered belongs to a live process and is an error.
///
/// # Errors
/// Names the path and the cause.
pub fn unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let named = |cause: io::Error| {
        io::Error::new(cause.kind(), format!("cannot listen on {}: {cause}", path.display()))
    };
    remove_stale(path).map_err(named)?;
    let listener = UnixListener::bind(path).map_err(named)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(named)?;
    listener.set_nonblocking(true).map_err(named)?;
    Ok(listener)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is in the way"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there")),
        Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn a_taken_address_is_named_in_the_error() {
        let first = tcp(any_port(), Tcp::default()).unwrap();
        let addr = first.local_addr().unwrap();
        let error = tcp(addr, Tcp::default()).unwrap_err().to_string();
        assert!(error.contains(&format!("cannot listen on {addr}")), "{error}");
    }

    #[test]
    fn reuse_port_lets_two_listeners_share_an_address() {
        let options = Tcp { reuse_port: true, ..Tcp::default() };
        let first = tcp(any_port(), options).unwrap();
        tcp(first.local_addr().unwrap(), options).unwrap();
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = std::env::temp_dir().join(format!("chassis-unix-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        let live = unix(&path, 0o777).unwrap();
        assert_eq!(unix(&path, 0o777).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        unix(&path, 0o700).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(dir.join("file"), "").unwrap();
        assert_eq!(unix(&dir.join("file"), 0o777).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
        let files = raise_open_files().unwrap();
        assert_eq!(files.soft, files.hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (files.hard, files.hard));
    }
}
