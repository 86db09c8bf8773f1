//! Hands the listening sockets to the process that takes over, and receives them there: over a pair of unix sockets, of
//! which the new process finds one end as its standard input. The very same sockets, so that no connection is refused.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use serde::{Deserialize, Serialize};

use crate::conf::upstream::Address;
use crate::logic::memory::GroupMemory;
use crate::metrics;
use crate::running::{Running, Socket};

/// Set for a process that takes over.
const MARK: &str = "BALANCER_TAKES_OVER";
/// One message carries so many sockets; the kernel allows a few more.
const FDS_MAX: usize = 64;

/// What is known besides.
#[derive(Debug, Serialize, Deserialize)]
pub struct Knowledge {
    /// How long the first process of the line has been running: moments are told from its start.
    pub age: Duration,
    pub generation: u64,
    pub groups: Vec<GroupMemory>,
    pub counters: metrics::Memory,
}

impl Knowledge {
    fn of(running: &Running) -> Knowledge {
        Knowledge {
            age: running.started.elapsed(),
            generation: running.era.0,
            groups: running.upstreams.memory(),
            counters: running.metrics.memory(),
        }
    }
}

/// Starts the program anew, as this process was started, and gives it the sockets and what is known.
pub fn start(running: &Running, ops: Option<&TcpListener>) -> io::Result<Child> {
    let mut words = std::env::args_os();
    let program = words.next().ok_or_else(|| io::Error::other("the program's own name is not known"))?;
    let (ours, theirs) = UnixStream::pair()?;
    let sockets: Vec<BorrowedFd<'_>> = running
        .listeners
        .iter()
        .flat_map(|listener| &listener.sockets)
        .map(|socket| socket.as_fd())
        .chain(ops.map(AsFd::as_fd))
        .collect();
    let child = Command::new(program).args(words).env(MARK, "1").stdin(OwnedFd::from(theirs)).spawn()?;
    for some in sockets.chunks(FDS_MAX) {
        send(&ours, some)?;
    }
    let known = serde_json::to_vec(&Knowledge::of(running))?;
    // Beside the master: the new process reads when it comes to it. If it ends before, so does this.
    std::thread::Builder::new().name("handover".into()).spawn(move || (&ours).write_all(&known))?;
    Ok(child)
}

fn send(to: &UnixStream, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many sockets in one message"));
    }
    sendmsg(to, &[IoSlice::new(b"s")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

/// Who started this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Descent {
    #[default]
    Operator,
    /// A balancer that serves until we do.
    Predecessor,
}

impl Descent {
    /// As the environment tells.
    pub fn told_by(environment: &dyn Fn(&str) -> Option<String>) -> Descent {
        environment(MARK).map_or(Descent::Operator, |_| Descent::Predecessor)
    }
}

/// The sockets that a process before us has handed over, by address.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: HashMap<Address, Vec<Socket>>,
    descent: Descent,
    known: Option<Knowledge>,
}

impl Inherited {
    /// Reads them, where this process was started to take over.
    pub fn receive(descent: Descent) -> io::Result<Inherited> {
        let mut inherited = Inherited { descent, ..Inherited::default() };
        if descent == Descent::Operator {
            return Ok(inherited);
        }
        let stdin = io::stdin();
        let first = loop {
            match receive_some(stdin.as_fd())? {
                Received::Sockets(fds) => fds.into_iter().try_for_each(|fd| inherited.keep(fd))?,
                Received::Byte(first) => break first,
                Received::End => return Ok(inherited),
            }
        };
        // What another version wrote may not be understood: sockets are what matters.
        inherited.known = serde_json::from_reader((&[first][..]).chain(stdin.lock())).ok();
        Ok(inherited)
    }

    /// Another process serves until we do: it is not ours to go to the background again.
    pub fn is_successor(&self) -> bool {
        self.descent == Descent::Predecessor
    }

    pub fn take_known(&mut self) -> Option<Knowledge> {
        self.known.take()
    }

    fn keep(&mut self, fd: OwnedFd) -> io::Result<()> {
        let known = rustix::net::getsockname(&fd)?;
        let (address, socket) = match std::net::SocketAddr::try_from(known.clone()) {
            Ok(address) => (Address::Tcp(address), Socket::Tcp(TcpListener::from(fd))),
            Err(_) => {
                let listener = UnixListener::from(fd);
                let path = listener.local_addr()?.as_pathname().map(Into::into).unwrap_or_default();
                (Address::Unix(path), Socket::Unix(listener))
            }
        };
        self.sockets.entry(address).or_default().push(socket);
        Ok(())
    }

    /// The sockets of this address, in the order in which they were opened.
    pub fn take(&mut self, address: &Address) -> Vec<Socket> {
        self.sockets.remove(address).unwrap_or_default()
    }
}

/// What comes over the pair: sockets, each message with a byte, then a document.
enum Received {
    Sockets(Vec<OwnedFd>),
    /// The first of the document.
    Byte(u8),
    End,
}

fn receive_some(from: BorrowedFd<'_>) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = message {
            fds.extend(sockets);
        }
    }
    Ok(match received.bytes {
        _ if !fds.is_empty() => Received::Sockets(fds),
        0 => Received::End,
        _ => Received::Byte(byte[0]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_arrive_as_they_were_sent_however_many() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let listeners: Vec<TcpListener> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let fds: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
        fds.chunks(2).for_each(|some| send(&ours, some).unwrap());
        drop(ours);
        let mut inherited = Inherited::default();
        while let Received::Sockets(fds) = receive_some(theirs.as_fd()).unwrap() {
            fds.into_iter().for_each(|fd| inherited.keep(fd).unwrap());
        }
        for listener in &listeners {
            let address = Address::Tcp(listener.local_addr().unwrap());
            assert_eq!(inherited.take(&address).len(), 1, "{address}");
        }
        assert!(inherited.sockets.is_empty());
    }
}
