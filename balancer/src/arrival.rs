//! How a client arrives: the PROXY protocol's header, the handshake, the version that it speaks. What that needs is given
//! back once it is done: a connection may idle for hours.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use tokio::time::Instant;

use crate::conf::listen::Names;
use crate::deadline::Deadline;
use crate::downstream::{Downstream, Presence};
use crate::entrance::Entrance;
use crate::http2::serving::{self, Terms};
use crate::logic::proxy_protocol::{Broken, Header, Reader};
use crate::running::Running;
use crate::tls::accept::{self, Refused};
use crate::tls::session::Session;
use crate::wire::Wire;
use crate::worker::Worker;
use crate::worker::connections::Slot;

/// How a client came here: what all of its requests share.
#[derive(Debug)]
pub struct Arrival {
    /// The address the connection came from; none on a unix socket.
    pub peer: Option<SocketAddr>,
    /// `$remote_addr`, rendered once.
    pub peer_text: Box<[u8]>,
    pub entrance: Rc<Entrance>,
    pub serial: u64,
    pub opened: Instant,
    /// What the handshake established; none in clear text.
    pub tls: Option<Rc<Session>>,
    /// What a proxy in front said in the PROXY protocol.
    pub proxied: Option<Box<Header>>,
    /// The worker has cut the connection.
    pub is_cut: Rc<Cell<bool>>,
}

/// Serves one connection to its end, or until the worker cuts it.
pub fn serve(
    worker: Rc<Worker>,
    wire: Wire,
    from: (Option<SocketAddr>, Rc<Entrance>),
    slot: Slot,
) -> impl Future<Output = ()> {
    let is_cut = Rc::new(Cell::new(false));
    // No `async fn`: what it is given would stay in its state for the connection's life.
    let arriving = Box::pin(arrive(worker, wire, from, slot, is_cut.clone()));
    async move {
        let mut connection = pin!(async move {
            if let Some(down) = arriving.await {
                speak(down).await;
            }
        });
        poll_fn(|cx| if is_cut.get() { Poll::Ready(()) } else { connection.as_mut().poll(cx) }).await;
    }
}

/// `None`: the client did not come so far that it could be served.
async fn arrive(
    worker: Rc<Worker>,
    mut wire: Wire,
    (peer, entrance): (Option<SocketAddr>, Rc<Entrance>),
    slot: Slot,
    is_cut: Rc<Cell<bool>>,
) -> Option<Box<Downstream>> {
    poll_fn(|cx| {
        slot.enter(cx.waker(), is_cut.clone());
        Poll::Ready(())
    })
    .await;
    let metrics = worker.generation().running.metrics.clone();
    metrics.connections_active.fetch_add(1, Relaxed);
    // One count for all workers, as in nginx: a line of the log names one connection.
    let serial = metrics.connection_serial.fetch_add(1, Relaxed) + 1;
    let opened = Instant::now();
    let presence = Rc::new(Presence { slot, metrics });
    let peer_text =
        peer.map_or_else(|| b"unix:".to_vec(), |peer| peer.ip().to_canonical().to_string().into_bytes());
    let peer_text = peer_text.into();
    let mut arrival = Arrival { peer, peer_text, entrance, serial, opened, tls: None, proxied: None, is_cut };
    let mut deadline = Deadline::new(opened);
    if !arrival.hear_proxy(&worker, &mut wire, (&mut deadline, &presence.slot)).await {
        return None;
    }
    (wire, arrival.tls) = arrival.shake_hands(&worker, wire, (&mut deadline, &presence.slot)).await?;
    let arrival = Rc::new(arrival);
    Some(Box::new(Downstream { wire, deadline, arrival, requests: 0, worker, presence }))
}

/// Serves the connection in the version that its client speaks.
async fn speak(mut down: Box<Downstream>) {
    let Some((early, terms)) = Box::pin(down.hear_version()).await else { return };
    match terms {
        Some(terms) => Box::pin(serving::serve(*down, early, *terms)).await,
        None => down.serve_http1(early).await,
    }
}

impl Arrival {
    /// The server blocks of the address that the connection came in on.
    pub fn names<'a>(&self, wire: &Wire, running: &'a Running) -> &'a Names {
        let listen = self.entrance.listen(running);
        let local = listen.needs_local().then(|| wire.local_addr()).flatten();
        listen.names_for(local.map(|local| local.ip().to_canonical()))
    }

    /// Its worker drains, or its listening socket is gone: no further request is waited for.
    pub fn is_leaving(&self, worker: &Worker) -> bool {
        worker.is_draining() || self.entrance.is_retired()
    }

    /// On a port of the PROXY protocol: its header. False when there is none: then nobody can be believed.
    async fn hear_proxy(
        &mut self,
        worker: &Worker,
        wire: &mut Wire,
        (deadline, slot): (&mut Deadline, &Slot),
    ) -> bool {
        let generation = self.entrance.generation(worker);
        let names = self.names(wire, &generation.running);
        if !names.is_proxied {
            return true;
        }
        deadline.set(Instant::now(), names.default.head.header_timeout);
        if !is_heard(wire, deadline, slot).await {
            return false;
        }
        match Box::pin(proxied(wire, deadline)).await {
            Ok(header) => {
                self.proxied = Some(Box::new(header));
                true
            }
            Err(refused) => {
                let client = String::from_utf8_lossy(&self.peer_text);
                tracing::error!(%client, "{refused} while reading PROXY protocol");
                false
            }
        }
    }

    /// On a port of TLS: the handshake. A client that speaks plain HTTP there is let through, to be told so.
    async fn shake_hands(
        &self,
        worker: &Worker,
        mut wire: Wire,
        (deadline, slot): (&mut Deadline, &Slot),
    ) -> Option<(Wire, Option<Rc<Session>>)> {
        let generation = self.entrance.generation(worker);
        let names = self.names(&wire, &generation.running);
        if !names.is_tls {
            return Some((wire, None));
        }
        deadline.set(Instant::now(), names.default.head.header_timeout);
        if !is_heard(&mut wire, deadline, slot).await {
            return None;
        }
        if !accept::begins(&mut wire, deadline).await? {
            return Some((wire, None));
        }
        // Boxed: what a handshake needs is not carried on by each connection for its life.
        match Box::pin(accept::accept(wire, names, deadline)).await {
            Ok((wire, session)) => Some((wire, Some(session))),
            Err(refused) => {
                let client = String::from_utf8_lossy(&self.peer_text);
                match refused {
                    Refused::NoCertificate => tracing::error!(%client, "{refused}"),
                    _ => tracing::info!(%client, "{refused}"),
                }
                None
            }
        }
    }
}

/// Waits for the client's first word. False when none comes in time, or room is wanted for those who have more to say.
async fn is_heard(wire: &mut Wire, deadline: &mut Deadline, slot: &Slot) -> bool {
    let idle = slot.idle();
    // Looks at the byte itself: a socket that is new is often said to be readable and is not.
    poll_fn(|cx| match wire.poll_peek(cx, &mut [0]) {
        Poll::Ready(peeked) => Poll::Ready(peeked.is_ok()),
        Poll::Pending if idle.is_sent_away() => Poll::Ready(false),
        Poll::Pending => deadline.poll(cx).map(|()| false),
    })
    .await
}

/// Reads the header of the PROXY protocol, and not a byte more.
async fn proxied(wire: &mut Wire, deadline: &mut Deadline) -> Result<Header, Broken> {
    let mut reader = Reader::default();
    let mut space = [0; 256];
    while !reader.is_whole() {
        let peeked = poll_fn(|cx| match wire.poll_peek(cx, &mut space) {
            Poll::Ready(peeked) => Poll::Ready(peeked.unwrap_or(0)),
            Poll::Pending => deadline.poll(cx).map(|()| 0),
        });
        let peeked = peeked.await;
        // The end, or nothing in time.
        if peeked == 0 {
            return Err(Broken);
        }
        let wanted = reader.wants(&space[..peeked])?;
        let taken = poll_fn(|cx| wire.poll_read(cx, &mut space[..wanted])).await.map_err(|_| Broken)?;
        if taken == 0 {
            return Err(Broken);
        }
        reader.take(&space[..taken]);
    }
    reader.into_header()
}

impl Downstream {
    /// What of the client's first bytes had to be read, and what holds where it speaks HTTP/2. `None`: it says nothing.
    async fn hear_version(&mut self) -> Option<(Vec<u8>, Option<Box<Terms>>)> {
        let generation = self.generation();
        let server = self.default_server(&generation.running);
        let names = self.names(&generation.running);
        let mut early = Vec::new();
        let is_http2 = match &self.arrival.tls {
            Some(tls) => tls.alpn.as_deref() == Some(b"h2"),
            None if names.is_tls || !(names.is_http2 || server.http2.is_on) => false,
            None => {
                self.deadline.set(Instant::now(), server.head.header_timeout);
                if !is_heard(&mut self.wire, &mut self.deadline, &self.presence.slot).await {
                    return None;
                }
                self.begins_preface(&mut early).await
            }
        };
        let terms = is_http2.then(|| {
            Box::new(Terms {
                http2: server.http2,
                head: server.head.clone(),
                keepalive: server.root.keepalive.clone(),
            })
        });
        // A connection outlives the configuration under which it came: only its requests hold one.
        Some((early, terms))
    }

    /// Reads as much as tells the preface of HTTP/2 from a request of HTTP/1.
    async fn begins_preface(&mut self, early: &mut Vec<u8>) -> bool {
        loop {
            let mut space = [0; serving::PREFACE_START.len()];
            let wanted = space.len() - early.len();
            let read = poll_fn(|cx| match self.wire.poll_read(cx, &mut space[..wanted]) {
                Poll::Ready(read) => Poll::Ready(read.unwrap_or(0)),
                Poll::Pending => self.deadline.poll(cx).map(|()| 0),
            });
            let read = read.await;
            early.extend_from_slice(&space[..read]);
            if read == 0 || !serving::PREFACE_START.starts_with(early) {
                return false;
            }
            if early.len() == serving::PREFACE_START.len() {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the future that such a function gives.
    fn size_of_future<A, B, C, D, F>(_serve: impl Fn(A, B, C, D) -> F) -> usize {
        std::mem::size_of::<F>()
    }

    /// Ten thousand idle clients hold ten thousand of these.
    #[test]
    fn the_task_of_a_connection_is_small() {
        let size = size_of_future(serve);
        assert!(size <= 400, "{size} bytes");
        assert!(std::mem::size_of::<Downstream>() <= 160, "{} bytes", std::mem::size_of::<Downstream>());
        assert!(std::mem::size_of::<Arrival>() <= 128, "{} bytes", std::mem::size_of::<Arrival>());
    }
}
