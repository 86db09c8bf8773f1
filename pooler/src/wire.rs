//! One socket, with or without TLS, as both clients and servers use it. Polled by hand: no task, no channel and no
//! buffer of its own stands between a socket and the relay.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use chassis::sockets::{poll_recv, poll_send};
use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// What a peer is connected through. `Send`, and free of timers, so that a server connection can change its worker.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    tls: Option<Box<Connection>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    pub fn tcp(stream: TcpStream) -> Wire {
        Wire { socket: Socket::Tcp(stream), tls: None }
    }

    pub fn unix(stream: UnixStream) -> Wire {
        Wire { socket: Socket::Unix(stream), tls: None }
    }

    pub fn is_unix(&self) -> bool {
        matches!(self.socket, Socket::Unix(_))
    }

    pub fn unix_stream(&self) -> Option<&UnixStream> {
        match &self.socket {
            Socket::Unix(stream) => Some(stream),
            Socket::Tcp(_) => None,
        }
    }

    pub fn tcp_stream(&self) -> Option<&TcpStream> {
        match &self.socket {
            Socket::Tcp(stream) => Some(stream),
            Socket::Unix(_) => None,
        }
    }

    /// The number of the socket, which stays the same when it changes its worker.
    pub fn fd(&self) -> RawFd {
        match &self.socket {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// Such as `TLSv1.3/TLS_AES_256_GCM_SHA384`; None without TLS.
    pub fn tls_text(&self) -> Option<String> {
        let tls = self.tls.as_ref()?;
        let version = match tls.protocol_version()? {
            rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
            rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
            _ => "TLS",
        };
        let suite = tls.negotiated_cipher_suite()?.suite();
        let name = suite.as_str().unwrap_or("unknown").replacen("TLS13_", "TLS_", 1);
        Some(format!("{version}/{name}"))
    }

    pub fn tls(&self) -> Option<&Connection> {
        self.tls.as_deref()
    }

    /// Speaks TLS from here on. What the peer sent in clear before must have been read and refused by the caller.
    pub async fn start_tls(&mut self, tls: Connection) -> io::Result<()> {
        self.tls = Some(Box::new(tls));
        std::future::poll_fn(|cx| self.poll_handshake(cx)).await
    }

    /// Moves the socket to the runtime of this thread.
    pub fn into_this_runtime(self) -> io::Result<Wire> {
        let socket = match self.socket {
            Socket::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Socket::Unix(stream) => Socket::Unix(UnixStream::from_std(stream.into_std()?)?),
        };
        Ok(Wire { socket, tls: self.tls })
    }

    /// The bare socket, for another process. Only for a wire without TLS.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        debug_assert!(self.tls.is_none(), "what TLS knows cannot be handed over");
        match self.socket {
            Socket::Tcp(stream) => stream.into_std().map(OwnedFd::from),
            Socket::Unix(stream) => stream.into_std().map(OwnedFd::from),
        }
    }

    /// A socket from another process.
    pub fn from_fd(socket: OwnedFd) -> io::Result<Wire> {
        let is_unix = socket2::SockRef::from(&socket).domain()? == socket2::Domain::UNIX;
        if is_unix {
            let stream = std::os::unix::net::UnixStream::from(socket);
            stream.set_nonblocking(true)?;
            return Ok(Wire::unix(UnixStream::from_std(stream)?));
        }
        let stream = std::net::TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Wire::tcp(TcpStream::from_std(stream)?))
    }

    /// Reads what is there. Ready(0) is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(tls) = self.tls.as_mut() else {
            return self.socket.poll_read(cx, into);
        };
        loop {
            match tls.reader().read(into) {
                Ok(len) => return Poll::Ready(Ok(len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer went away without close_notify, as libpq does.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                Err(error) => return Poll::Ready(Err(error)),
            }
            let read = tls.read_tls(&mut Polled { socket: &mut self.socket, cx });
            if ready!(pending_if_blocked(read))? == 0 {
                return Poll::Ready(Ok(0));
            }
            if let Err(error) = tls.process_new_packets() {
                let _ = tls.write_tls(&mut Polled { socket: &mut self.socket, cx });
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }

    /// Writes as much as goes. With TLS the bytes may wait inside it: see `poll_flush`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(tls) = self.tls.as_mut() else {
            return self.socket.poll_write(cx, bytes);
        };
        // rustls takes up to 64 KiB, then it has to be emptied first.
        let taken = tls.writer().write(bytes)?;
        match self.poll_flush_inner(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if taken == 0 => Poll::Pending,
            _ => Poll::Ready(Ok(taken)),
        }
    }

    /// Sends what TLS holds back. Ready at once without TLS.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tls.is_none() { Poll::Ready(Ok(())) } else { self.poll_flush_inner(cx) }
    }

    /// TLS holds bytes that were written but not sent.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// True when the peer has sent something, or has gone, while nobody expected anything. Costs no system call
    /// unless the socket was reported readable.
    pub fn has_news(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match &mut self.socket {
            Socket::Tcp(stream) => stream.poll_read_ready(&mut cx).is_ready(),
            Socket::Unix(stream) => stream.poll_read_ready(&mut cx).is_ready(),
        }
    }

    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read(cx, into)).await
    }

    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let len = std::future::poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            if len == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[len..];
        }
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// A last word to a peer that is about to be closed; lost when the socket does not take it at once.
    pub fn try_farewell(&mut self, bytes: &[u8]) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = self.poll_write(&mut cx, bytes);
        if let Some(tls) = self.tls.as_mut() {
            tls.send_close_notify();
        }
        let _ = self.poll_flush(&mut cx);
    }

    fn poll_flush_inner(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tls) = self.tls.as_mut() else { return Poll::Ready(Ok(())) };
        while tls.wants_write() {
            let wrote = tls.write_tls(&mut Polled { socket: &mut self.socket, cx });
            if ready!(pending_if_blocked(wrote))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush_inner(cx))?;
            let Some(tls) = self.tls.as_mut().filter(|tls| tls.is_handshaking()) else {
                return Poll::Ready(Ok(()));
            };
            let read = tls.read_tls(&mut Polled { socket: &mut self.socket, cx });
            if ready!(pending_if_blocked(read))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Err(error) = tls.process_new_packets() {
                let _ = tls.write_tls(&mut Polled { socket: &mut self.socket, cx });
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }
}

impl Socket {
    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => poll_recv(stream, cx, into),
            // Not try_read: only this way a read that leaves room tells tokio that the socket is empty, which saves
            // the next read from finding that out with a system call.
            Socket::Unix(stream) => {
                let mut buffer = ReadBuf::new(into);
                ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }

    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => poll_send(stream, cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

/// Lends a polled socket to rustls, which speaks blocking I/O.
struct Polled<'a, 'b> {
    socket: &'a mut Socket,
    cx: &'a mut Context<'b>,
}

impl Read for Polled<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        blocked_if_pending(self.socket.poll_read(self.cx, into))
    }
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        blocked_if_pending(self.socket.poll_write(self.cx, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocked_if_pending(result: Poll<io::Result<usize>>) -> io::Result<usize> {
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn pending_if_blocked(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}
