//! TLS by rustls, on both sides: the stream over a socket is here, what a configuration makes of certificates and
//! settings is in `server` and `client`, the handshakes are in `accept` and `connect`.

pub mod accept;
pub mod certificates;
pub mod chain;
pub mod ciphers;
pub mod client;
pub mod connect;
pub mod names;
pub mod server;
pub mod session;
pub mod sessions;
pub mod tickets;
mod verifier;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::wire::Wire;

/// A stream whose handshake is done. Dropped, it says goodbye (`close_notify`) unless it was cut.
#[derive(Debug)]
pub struct Tls {
    stream: TlsStream<Wire>,
    /// Bytes that are encrypted, and told to the writer only once the kernel has all of them.
    unreported: usize,
    is_cut: bool,
}

impl Tls {
    pub fn new(stream: TlsStream<Wire>) -> Tls {
        Tls { stream, unreported: 0, is_cut: false }
    }

    pub fn socket(&self) -> &Wire {
        match &self.stream {
            TlsStream::Client(stream) => stream.get_ref().0,
            TlsStream::Server(stream) => stream.get_ref().0,
        }
    }

    fn socket_mut(&mut self) -> &mut Wire {
        match &mut self.stream {
            TlsStream::Client(stream) => stream.get_mut().0,
            TlsStream::Server(stream) => stream.get_mut().0,
        }
    }

    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = match &mut self.stream {
            TlsStream::Client(stream) => stream.get_mut().1.process_new_packets(),
            TlsStream::Server(stream) => stream.get_mut().1.process_new_packets(),
        };
        match state {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {
                self.socket_mut().poll_readable(cx)
            }
            // Reading says what is wrong.
            _ => Poll::Ready(Ok(())),
        }
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(space);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
            Ok(()) => Poll::Ready(Ok(buf.filled().len())),
            // An end without `close_notify`, as from most of the web: where a message ends is for its framing to say.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.unreported == 0 {
            self.unreported = ready!(Pin::new(&mut self.stream).poll_write(cx, data))?;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.unreported)))
    }

    /// New tickets and key updates are no bytes of the peer's.
    pub fn try_read(&mut self, space: &mut [u8]) -> Option<io::Result<usize>> {
        match self.poll_read(&mut Context::from_waker(Waker::noop()), space) {
            Poll::Ready(read) => Some(read),
            Poll::Pending => None,
        }
    }

    pub fn shutdown_write(&mut self) {
        self.say_goodbye();
        self.socket_mut().shutdown_write();
    }

    pub fn reset_on_close(&mut self) {
        self.is_cut = true;
        self.socket_mut().reset_on_close();
    }

    /// Once and without waiting: a peer that does not read has no use for it.
    fn say_goodbye(&mut self) {
        if std::mem::replace(&mut self.is_cut, true) {
            return;
        }
        match &mut self.stream {
            TlsStream::Client(stream) => stream.get_mut().1.send_close_notify(),
            TlsStream::Server(stream) => stream.get_mut().1.send_close_notify(),
        }
        let _ = Pin::new(&mut self.stream).poll_flush(&mut Context::from_waker(Waker::noop()));
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}
