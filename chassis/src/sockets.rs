//! Reading and writing a TCP socket by the system call itself, where each µs is counted.
//!
//! In a process with threads the C library makes each call a point where its thread can be cancelled, and that alone is
//! 3 % of a small request (docs/measurements.md). The slow twins are tokio's `poll_read` and `poll_write`.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what there is; 0 is the end. A short read tells tokio that the socket is empty, which saves the read that would
/// only say so.
pub fn poll_recv(tcp: &TcpStream, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_read_ready(cx))?;
        let mut moved = 0;
        let read = tcp.try_io(Interest::READABLE, || {
            (moved, _) = rustix::net::recv(tcp, &mut *space, RecvFlags::empty())?;
            is_drained(moved, space.len())
        });
        if let Some(moved) = moved_or(read, moved) {
            return Poll::Ready(moved);
        }
    }
}

/// Writes what the kernel takes. It is asked before tokio is: that a socket that is new to a runtime can be written to,
/// the runtime learns only in its next round.
pub fn poll_send(tcp: &TcpStream, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
    match rustix::net::send(tcp, data, SendFlags::NOSIGNAL) {
        Err(Errno::WOULDBLOCK | Errno::INTR) => {}
        sent => return Poll::Ready(sent.map_err(io::Error::from)),
    }
    loop {
        ready!(tcp.poll_write_ready(cx))?;
        let mut moved = 0;
        let written = tcp.try_io(Interest::WRITABLE, || {
            moved = rustix::net::send(tcp, data, SendFlags::NOSIGNAL)?;
            is_drained(moved, data.len())
        });
        if let Some(moved) = moved_or(written, moved) {
            return Poll::Ready(moved);
        }
    }
}

/// Writes what the kernel takes now, without waiting; several pieces share the call.
///
/// # Errors
/// `WouldBlock`: the socket is full, and tokio knows it; or the connection is broken.
pub fn try_send(tcp: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    tcp.try_io(Interest::WRITABLE, || {
        let sent = match pieces {
            [piece] => rustix::net::send(tcp, piece, SendFlags::NOSIGNAL),
            _ => rustix::net::sendmsg(tcp, pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL),
        };
        Ok(sent?)
    })
}

/// A call that moved less than it could has found the socket empty, or full: tokio is told, which saves the call that
/// would only find the same.
fn is_drained(moved: usize, wanted: usize) -> io::Result<()> {
    if moved > 0 && moved < wanted { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

/// `None` when nothing moved because the socket was not ready after all.
fn moved_or(result: io::Result<()>, moved: usize) -> Option<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && moved == 0 => None,
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Some(Err(error)),
        _ => Some(Ok(moved)),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_is_written_is_read_until_the_end() {
        let (near, far) = pair().await;
        assert_eq!(poll_fn(|cx| poll_send(&near, cx, b"hello")).await.unwrap(), 5);
        let mut space = [0; 64];
        assert_eq!(poll_fn(|cx| poll_recv(&far, cx, &mut space)).await.unwrap(), 5);
        assert_eq!(&space[..5], b"hello");
        drop(near);
        assert_eq!(poll_fn(|cx| poll_recv(&far, cx, &mut space)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_full_socket_waits_until_its_peer_reads_and_nothing_is_lost() {
        const LEN: usize = 16 * 1024 * 1024;
        let (near, far) = pair().await;
        let pattern: Vec<u8> = (0..LEN).map(|i| (i % 251) as u8).collect();
        let mut waited = false;
        let write = async {
            let mut sent = 0;
            while sent < LEN {
                sent += poll_fn(|cx| {
                    let sending = poll_send(&near, cx, &pattern[sent..]);
                    waited |= sending.is_pending();
                    sending
                })
                .await
                .unwrap();
            }
        };
        let read = async {
            let mut got = Vec::with_capacity(LEN);
            let mut space = vec![0; 64 * 1024];
            while got.len() < LEN {
                let len = poll_fn(|cx| poll_recv(&far, cx, &mut space)).await.unwrap();
                got.extend_from_slice(&space[..len]);
            }
            got
        };
        let ((), got) = tokio::join!(write, read);
        assert!(got == pattern && waited);
    }

    #[tokio::test]
    async fn pieces_share_a_call_and_a_full_socket_says_so_until_it_takes_more() {
        let (near, far) = pair().await;
        poll_fn(|cx| near.poll_write_ready(cx)).await.unwrap();
        assert_eq!(try_send(&near, &[IoSlice::new(b"one"), IoSlice::new(b"two")]).unwrap(), 6);
        let mut space = vec![0; 64 * 1024];
        assert_eq!(poll_fn(|cx| poll_recv(&far, cx, &mut space)).await.unwrap(), 6);
        assert_eq!(&space[..6], b"onetwo");
        let block = vec![7; 64 * 1024];
        let mut sent = 0;
        let full = loop {
            match try_send(&near, &[IoSlice::new(&block)]) {
                Ok(len) => sent += len,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let mut read = 0;
        while read < sent {
            read += poll_fn(|cx| poll_recv(&far, cx, &mut space)).await.unwrap();
        }
        poll_fn(|cx| near.poll_write_ready(cx)).await.unwrap();
        assert_eq!(try_send(&near, &[IoSlice::new(b"more")]).unwrap(), 4);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_and_no_signal() {
        let (near, far) = pair().await;
        socket2::SockRef::from(&far).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(far);
        let mut space = [0; 1];
        let read = poll_fn(|cx| poll_recv(&near, cx, &mut space)).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let written = poll_fn(|cx| poll_send(&near, cx, b"x")).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
