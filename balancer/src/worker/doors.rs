//! The listening sockets of one worker: opened and closed as the configuration says, and the tasks that accept from them.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::time::timeout;

use super::chores::Chores;
use super::connections::End;
use super::room::lacks_descriptors;
use super::{Generation, Worker};
use crate::arrival;
use crate::entrance::Entrance;
use crate::running::Socket;
use crate::wire::Wire;

/// Pause after an accept that failed for lack of descriptors or memory: trying again at once would only burn time. nginx's
/// `accept_mutex_delay`; a connection that closes ends it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// What a worker listens on.
#[derive(Debug, Default)]
pub(super) struct Doors {
    open: Vec<Door>,
}

/// One `listen`, with those of its sockets that are this worker's.
#[derive(Debug)]
struct Door {
    entrance: Rc<Entrance>,
    ears: Vec<Ear>,
}

/// One listening socket, shared with the task that accepts from it.
#[derive(Debug)]
struct Ear {
    socket: Arc<Socket>,
    acceptor: Rc<Acceptor>,
    task: tokio::task::AbortHandle,
}

impl Doors {
    /// Opens what is new in the current generation, closes what is gone since the one before it; sockets that stay are
    /// not touched.
    pub(super) fn open(
        &mut self,
        worker: &Rc<Worker>,
        generation_before: &Rc<Generation>,
        chores: &mut Chores,
    ) {
        let running = worker.generation().running.clone();
        let mut before = std::mem::take(&mut self.open);
        for (position, listener) in running.listeners.iter().enumerate() {
            let known = before.iter().position(|door| listener.goes_on(door.entrance.listener()));
            let mut door = match known {
                Some(found) => before.swap_remove(found),
                None => {
                    Door { entrance: Rc::new(Entrance::new(listener.clone(), position)), ears: Vec::new() }
                }
            };
            let workers = running.settings.main.worker_processes;
            door.arrange(worker, listener.sockets_of(worker.index, workers).collect(), chores);
            self.open.push(door);
        }
        if before.is_empty() {
            return;
        }
        for door in before {
            door.entrance.retire(generation_before.clone());
            door.close(worker);
        }
        // Those that wait for a next request are to end.
        worker.connections.wake_all();
    }

    pub(super) fn close(&mut self, worker: &Rc<Worker>) {
        self.open.drain(..).for_each(|door| door.close(worker));
    }
}

impl Door {
    /// Listens to these sockets. The others have become another worker's, and who waits there is for it to serve.
    fn arrange(&mut self, worker: &Rc<Worker>, wanted: Vec<&Arc<Socket>>, chores: &mut Chores) {
        let is_wanted = |ear: &mut Ear| wanted.iter().any(|socket| Arc::ptr_eq(socket, &ear.socket));
        let kept = self.ears.extract_if(.., is_wanted).collect();
        let gone = std::mem::replace(&mut self.ears, kept);
        gone.iter().for_each(|ear| ear.task.abort());
        for socket in wanted {
            if !self.ears.iter().any(|ear| Arc::ptr_eq(socket, &ear.socket)) {
                self.ears.extend(Ear::open(worker, socket, &self.entrance, chores));
            }
        }
    }

    /// Clients whose connection the kernel has already accepted are served, not reset.
    fn close(self, worker: &Rc<Worker>) {
        for ear in self.ears {
            ear.task.abort();
            while let Some((wire, peer)) = ear.acceptor.accept_waiting() {
                welcome(worker, wire, peer, &self.entrance);
            }
        }
    }
}

impl Ear {
    fn open(
        worker: &Rc<Worker>,
        socket: &Arc<Socket>,
        entrance: &Rc<Entrance>,
        chores: &mut Chores,
    ) -> Option<Ear> {
        let acceptor = match socket.try_clone().and_then(Acceptor::new) {
            Ok(acceptor) => Rc::new(acceptor),
            Err(cause) => {
                let address = &entrance.listener().listen.address;
                tracing::error!(%address, %cause, "cannot accept on {address}: {cause}");
                return None;
            }
        };
        let task = chores.begin(accept(worker.clone(), acceptor.clone(), entrance.clone()));
        Some(Ear { socket: socket.clone(), acceptor, task })
    }
}

#[derive(Debug)]
enum Acceptor {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Acceptor {
    fn new(socket: Socket) -> io::Result<Acceptor> {
        Ok(match socket {
            Socket::Tcp(listener) => Acceptor::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Socket::Unix(listener) => Acceptor::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Wire, Option<std::net::SocketAddr>)>> {
        match self {
            Acceptor::Tcp(listener) => {
                let (tcp, peer) = ready!(listener.poll_accept(cx))?;
                // Fails only on a client that has left already; reading will say so.
                let _ = tcp.set_nodelay(true);
                Poll::Ready(Ok((Wire::Tcp(tcp), Some(peer))))
            }
            Acceptor::Unix(listener) => listener.poll_accept(cx).map_ok(|(unix, _)| (Wire::Unix(unix), None)),
        }
    }

    /// A connection that waits in the kernel's queue. Asks the kernel itself: tokio knows only what it was last told.
    fn accept_waiting(&self) -> Option<(Wire, Option<std::net::SocketAddr>)> {
        let socket = match self {
            Acceptor::Tcp(listener) => SockRef::from(listener),
            Acceptor::Unix(listener) => SockRef::from(listener),
        };
        let (stream, peer) = loop {
            match socket.accept() {
                // The client left before we came to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                accepted => break accepted.ok()?,
            }
        };
        stream.set_nonblocking(true).ok()?;
        match self {
            Acceptor::Tcp(_) => {
                stream.set_tcp_nodelay(true).ok()?;
                let tcp = tokio::net::TcpStream::from_std(stream.into()).ok()?;
                Some((Wire::Tcp(tcp), peer.as_socket()))
            }
            Acceptor::Unix(_) => {
                Some((Wire::Unix(tokio::net::UnixStream::from_std(stream.into()).ok()?), None))
            }
        }
    }
}

fn welcome(worker: &Rc<Worker>, wire: Wire, peer: Option<std::net::SocketAddr>, entrance: &Rc<Entrance>) {
    let metrics = worker.generation().running.metrics.clone();
    match worker.slot_for(End::Client(wire.socket())) {
        Ok(slot) => {
            metrics.connections_accepted.fetch_add(1, Relaxed);
            let entrance = entrance.clone();
            tokio::task::spawn_local(arrival::serve(worker.clone(), wire, (peer, entrance), slot));
        }
        Err(no_room) => {
            metrics.connections_dropped.fetch_add(1, Relaxed);
            tracing::error!(alert = true, "{no_room}");
        }
    }
}

async fn accept(worker: Rc<Worker>, acceptor: Rc<Acceptor>, entrance: Rc<Entrance>) {
    loop {
        match poll_fn(|cx| acceptor.poll_accept(cx)).await {
            Ok((wire, peer)) => welcome(&worker, wire, peer, &entrance),
            // The client left before we came to it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(cause) => {
                let crit = lacks_descriptors(&cause);
                tracing::error!(crit, alert = !crit, "accept4() failed ({cause})");
                let closed = worker.connections.closed();
                if !worker.makes_room_after(&cause).await {
                    // Whoever closes in time makes room too.
                    let _ = timeout(ACCEPT_PAUSE, worker.connections.one_closes(closed)).await;
                }
            }
        }
    }
}
