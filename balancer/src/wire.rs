//! One stream socket, of a client or of an upstream, driven by polls so that one task can watch several at once.
//! TLS will be another variant here.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

#[derive(Debug)]
pub enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    /// Ready once there is something to read, or the end: without a buffer, so that an idle connection needs none.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tcp(tcp) => tcp.poll_read_ready(cx),
            Wire::Unix(unix) => unix.poll_read_ready(cx),
        }
    }

    /// Reads what there is; 0 is the end. A short read tells tokio that the socket is empty, which saves the read
    /// that would only say so.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(space);
        ready!(match self {
            Wire::Tcp(tcp) => Pin::new(tcp).poll_read(cx, &mut buf),
            Wire::Unix(unix) => Pin::new(unix).poll_read(cx, &mut buf),
        })?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Tcp(tcp) => Pin::new(tcp).poll_write(cx, data),
            Wire::Unix(unix) => Pin::new(unix).poll_write(cx, data),
        }
    }

    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Wire::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, data),
            Wire::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, data),
        }
    }

    /// Reads without waiting; `None` when there is nothing. Asks the kernel only if it has told of something new.
    pub fn try_read(&mut self, space: &mut [u8]) -> Option<io::Result<usize>> {
        let result = match self {
            Wire::Tcp(tcp) => tcp.try_read(space),
            Wire::Unix(unix) => unix.try_read(space),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            result => Some(result),
        }
    }

    /// Our side has said all: FIN. The socket call neither waits nor fails in a way that matters here.
    pub fn shutdown_write(&mut self) {
        let socket = match self {
            Wire::Tcp(tcp) => socket2::SockRef::from(&*tcp),
            Wire::Unix(unix) => socket2::SockRef::from(&*unix),
        };
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }

    /// Makes the close that follows a reset, so that the peer cannot take a cut answer for a whole one.
    pub fn reset_on_close(&mut self) {
        if let Wire::Tcp(tcp) = self {
            let _ = socket2::SockRef::from(&*tcp).set_linger(Some(Duration::ZERO));
        }
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Wire::Tcp(tcp) => tcp.local_addr().ok(),
            Wire::Unix(_) => None,
        }
    }
}
