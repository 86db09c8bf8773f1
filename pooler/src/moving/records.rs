//! Records between two processes: length, kind, bytes; sockets travel with the first byte.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// A client and the server it holds.
const SOCKETS_MAX: usize = 2;

/// No client has so much in hand: it is believed before memory is taken for it.
const RECORD_LEN_MAX: usize = 256 << 20;

/// A process that takes nothing for so long is dead.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

const HEAD_LEN: usize = 5;

/// What a record means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The number of the last statement that was named.
    Start = b'S',
    /// A listening socket.
    Tcp = b'T',
    /// A listening unix socket; the bytes are its path, if it has one.
    Unix = b'U',
    /// The listening socket of the metrics.
    Metrics = b'M',
    /// These were all sockets: say `Ready` when they are served.
    Sockets = b'G',
    /// From the new process: the old one may stop accepting.
    Ready = b'R',
    Client = b'C',
}

const KINDS: [Kind; 7] =
    [Kind::Start, Kind::Tcp, Kind::Unix, Kind::Metrics, Kind::Sockets, Kind::Ready, Kind::Client];

#[derive(Debug)]
pub struct Record {
    pub kind: Kind,
    pub bytes: Vec<u8>,
    pub sockets: Vec<OwnedFd>,
}

/// The connection between the two.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
}

impl Link {
    pub fn new(stream: UnixStream) -> io::Result<Link> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Link { stream })
    }

    pub fn send(&mut self, kind: Kind, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut head = [0; HEAD_LEN];
        head[..4].copy_from_slice(&len.to_be_bytes());
        head[4] = kind as u8;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let sent = sendmsg(&self.stream, &[IoSlice::new(&head)], &mut control, SendFlags::NOSIGNAL)?;
        self.stream.write_all(&head[sent..])?;
        self.stream.write_all(bytes)
    }

    /// None: the other side has closed.
    pub fn receive(&mut self) -> io::Result<Option<Record>> {
        let mut sockets = Vec::new();
        let mut head = [0; HEAD_LEN];
        let mut filled = 0;
        while filled < HEAD_LEN {
            let len = self.receive_with_sockets(&mut head[filled..], &mut sockets)?;
            match (len, filled) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (len, _) => filled += len,
            }
        }
        let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = KINDS.into_iter().find(|kind| *kind as u8 == head[4]);
        let (Some(kind), true) = (kind, len <= RECORD_LEN_MAX) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record of an unknown kind"));
        };
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(Some(Record { kind, bytes, sockets }))
    }

    fn receive_with_sockets(&self, into: &mut [u8], sockets: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(into)], &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                sockets.extend(more);
            }
        }
        Ok(received.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (Link, Link) {
        let (one, other) = UnixStream::pair().unwrap();
        (Link::new(one).unwrap(), Link::new(other).unwrap())
    }

    #[test]
    fn a_socket_arrives_with_its_record_and_works() {
        let (mut old, mut new) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        old.send(Kind::Start, b"12345678", &[]).unwrap();
        old.send(Kind::Tcp, b"", &[listener.as_fd()]).unwrap();
        old.send(Kind::Client, &[7; 100_000], &[listener.as_fd(), listener.as_fd()]).unwrap();
        drop((old, listener));
        let start = new.receive().unwrap().unwrap();
        assert_eq!((start.kind, start.bytes.len(), start.sockets.len()), (Kind::Start, 8, 0));
        let tcp = new.receive().unwrap().unwrap();
        let listener = TcpListener::from(tcp.sockets.into_iter().next().unwrap());
        TcpStream::connect(address).unwrap();
        listener.accept().unwrap();
        let client = new.receive().unwrap().unwrap();
        assert_eq!((client.bytes.len(), client.sockets.len()), (100_000, 2));
        assert!(new.receive().unwrap().is_none(), "the end");
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        let (old, mut new) = pair();
        (&old.stream).write_all(b"\0\0\0\x01?x").unwrap();
        assert_eq!(new.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (old, mut new) = pair();
        (&old.stream).write_all(b"\0\0").unwrap();
        drop(old);
        assert_eq!(new.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
