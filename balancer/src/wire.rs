//! One byte stream, of a client or of an upstream, driven by polls so that one task can watch several at once: a socket,
//! or TLS over one. An enum and no trait object: the plain case pays a branch and nothing else.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use chassis::sockets::{poll_recv, poll_send};
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::http2::asked::Asked;
use crate::http2::served::Served;
use crate::tls::Tls;

#[derive(Debug)]
pub enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Tls>),
    /// One stream of an HTTP/2 connection, as bytes of HTTP/1.1.
    Served(Box<Served>),
    /// An HTTP/2 connection to an upstream, as bytes of HTTP/1.1.
    Asked(Box<Asked>),
}

impl Wire {
    /// Ready once there is something to read, or the end: without a buffer, so that an idle connection needs none.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tcp(tcp) => tcp.poll_read_ready(cx),
            Wire::Unix(unix) => unix.poll_read_ready(cx),
            Wire::Tls(tls) => tls.poll_readable(cx),
            // Reading finds out: a stream has no buffer to save.
            Wire::Served(_) | Wire::Asked(_) => Poll::Ready(Ok(())),
        }
    }

    /// Reads what there is; 0 is the end. A short read tells tokio that the socket is empty, which saves the read
    /// that would only say so.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Tcp(tcp) => poll_recv(tcp, cx, space),
            Wire::Unix(unix) => {
                let mut buf = ReadBuf::new(space);
                ready!(Pin::new(unix).poll_read(cx, &mut buf))?;
                Poll::Ready(Ok(buf.filled().len()))
            }
            Wire::Tls(tls) => tls.poll_read(cx, space),
            Wire::Served(stream) => stream.poll_read(cx, space),
            Wire::Asked(asked) => asked.poll_read(cx, space),
        }
    }

    /// What is written counts once the kernel has it: nothing lies behind in here. After `Pending` the same bytes
    /// are to be offered again; more may follow them.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Tcp(tcp) => poll_send(tcp, cx, data),
            Wire::Unix(unix) => Pin::new(unix).poll_write(cx, data),
            Wire::Tls(tls) => tls.poll_write(cx, data),
            Wire::Served(stream) => stream.poll_write(cx, data),
            Wire::Asked(asked) => asked.poll_write(cx, data),
        }
    }

    /// The first bytes that wait, left where they are; 0 is the end. Only of a socket.
    pub fn poll_peek(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(cx))?;
            let peeked = match self {
                Wire::Tcp(tcp) => tcp.try_io(Interest::READABLE, || peek(tcp.as_raw_fd(), space)),
                Wire::Unix(unix) => unix.try_io(Interest::READABLE, || peek(unix.as_raw_fd(), space)),
                Wire::Tls(_) | Wire::Served(_) | Wire::Asked(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return Poll::Ready(peeked),
            }
        }
    }

    /// Reads without waiting; `None` when there is nothing. Asks the kernel only if it has told of something new.
    pub fn try_read(&mut self, space: &mut [u8]) -> Option<io::Result<usize>> {
        let result = match self {
            Wire::Tcp(tcp) => tcp.try_read(space),
            Wire::Unix(unix) => unix.try_read(space),
            Wire::Tls(tls) => return tls.try_read(space),
            Wire::Asked(asked) => return asked.try_read(space),
            Wire::Served(stream) => {
                return match stream.poll_read(&mut Context::from_waker(Waker::noop()), space) {
                    Poll::Ready(read) => Some(read),
                    Poll::Pending => None,
                };
            }
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            result => Some(result),
        }
    }

    /// The socket, which is closed with the wire. None below a stream of HTTP/2.
    pub fn socket(&self) -> Option<RawFd> {
        match self {
            Wire::Tcp(tcp) => Some(tcp.as_raw_fd()),
            Wire::Unix(unix) => Some(unix.as_raw_fd()),
            Wire::Tls(tls) => tls.socket().socket(),
            Wire::Served(_) | Wire::Asked(_) => None,
        }
    }

    /// Our side has said all: FIN. The socket call neither waits nor fails in a way that matters here.
    pub fn shutdown_write(&mut self) {
        let socket = match self {
            Wire::Tcp(tcp) => socket2::SockRef::from(&*tcp),
            Wire::Unix(unix) => socket2::SockRef::from(&*unix),
            Wire::Tls(tls) => return tls.shutdown_write(),
            Wire::Served(stream) => return stream.shutdown_write(),
            // Its messages say themselves where they end.
            Wire::Asked(_) => return,
        };
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }

    /// Makes the close that follows a reset, so that the peer cannot take a cut answer for a whole one.
    pub fn reset_on_close(&mut self) {
        match self {
            Wire::Tcp(tcp) => {
                let _ = socket2::SockRef::from(&*tcp).set_linger(Some(Duration::ZERO));
            }
            Wire::Unix(_) => {}
            Wire::Tls(tls) => tls.reset_on_close(),
            Wire::Served(stream) => stream.reset(),
            Wire::Asked(_) => {}
        }
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Wire::Tcp(tcp) => tcp.local_addr().ok(),
            Wire::Unix(_) => None,
            Wire::Tls(tls) => tls.socket().local_addr(),
            Wire::Served(stream) => stream.local_addr(),
            Wire::Asked(asked) => asked.local_addr(),
        }
    }
}

fn peek(fd: RawFd, space: &mut [u8]) -> io::Result<usize> {
    recv(fd, space, MsgFlags::MSG_PEEK).map_err(io::Error::from)
}

/// Whether bytes wait in a socket that were not read. Asks the kernel: tokio may not have been told of them yet.
pub fn has_unread(fd: RawFd) -> bool {
    peek(fd, &mut [0]).is_ok_and(|len| len > 0)
}

/// For what speaks over a wire by tokio's traits: TLS, HTTP/2.
impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let len = ready!(self.get_mut().poll_read(cx, buf.initialize_unfilled()))?;
        buf.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, data),
            Wire::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, data),
            wire => {
                let first = data.iter().find(|slice| !slice.is_empty());
                first.map_or(Poll::Ready(Ok(0)), |first| wire.poll_write(cx, first))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Wire::Tcp(_) | Wire::Unix(_))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().shutdown_write();
        Poll::Ready(Ok(()))
    }
}
