//! One client's connection: waits for requests without holding memory, reads their heads, hands each to the relay,
//! and closes in a way that lets the client read the last answer.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::buffer::{BUFFER_LEN, Buffer};
use crate::conf::listen::{Listen, Names};
use crate::conf::location::{HeadLimits, Lingering, LingeringMode, Server};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::http2::serving::{self, Streams, Terms};
use crate::logic::h1::{Limits, Version};
use crate::logic::proxy_protocol::{Broken, Header, Reader};
use crate::metrics::Metrics;
use crate::relay::scratch::Scratch;
use crate::relay::{self, After};
use crate::running::Running;
use crate::tls::accept::{self, Refused};
use crate::tls::session::Session;
use crate::wire::Wire;
use crate::worker::Worker;

#[derive(Debug)]
pub struct Downstream {
    pub wire: Wire,
    pub deadline: Deadline,
    pub arrival: Rc<Arrival>,
    /// Requests so far over the connection, the present one included.
    pub requests: u64,
    pub worker: Rc<Worker>,
    pub presence: Rc<Presence>,
}

/// How a client came here: what all of its requests share.
#[derive(Debug)]
pub struct Arrival {
    /// The address the connection came from; none on a unix socket.
    pub peer: Option<SocketAddr>,
    /// `$remote_addr`, rendered once.
    pub peer_text: Box<[u8]>,
    /// Which of the listening sockets it came in on; a reload may renumber them.
    pub listen: Rc<Cell<usize>>,
    pub serial: u64,
    pub opened: Instant,
    /// What the handshake established; none in clear text.
    pub tls: Option<Rc<Session>>,
    /// What a proxy in front said in the PROXY protocol.
    pub proxied: Option<Header>,
}

/// How a stream of HTTP/2 ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    Answered,
    /// The client lost interest, or we cut the answer.
    GivenUp,
}

/// A connection's place among those of its worker, left when the last that serves it has ended.
#[derive(Debug)]
pub struct Presence {
    place: usize,
    worker: Rc<Worker>,
    metrics: Arc<Metrics>,
}

/// Serves one connection to its end, or until the worker cuts it.
pub async fn serve(worker: Rc<Worker>, wire: Wire, peer: Option<SocketAddr>, listen: Rc<Cell<usize>>) {
    let seat = poll_fn(|cx| Poll::Ready(worker.connections().enter(cx.waker()))).await;
    let is_cut = seat.is_cut.clone();
    let mut connection = pin!(run(worker, wire, (peer, listen), seat.place));
    poll_fn(|cx| if is_cut.get() { Poll::Ready(()) } else { connection.as_mut().poll(cx) }).await;
}

async fn run(
    worker: Rc<Worker>,
    mut wire: Wire,
    (peer, listen): (Option<SocketAddr>, Rc<Cell<usize>>),
    place: usize,
) {
    let metrics = worker.generation().running.metrics.clone();
    metrics.connections_active.fetch_add(1, Relaxed);
    let opened = Instant::now();
    let presence = Rc::new(Presence { place, worker: worker.clone(), metrics });
    let peer_text =
        peer.map_or_else(|| b"unix:".to_vec(), |peer| peer.ip().to_canonical().to_string().into_bytes());
    let serial = worker.next_serial();
    let peer_text = peer_text.into();
    let mut arrival = Arrival { peer, peer_text, listen, serial, opened, tls: None, proxied: None };
    let mut deadline = Deadline::new(opened);
    if !arrival.hear_proxy(&worker, &mut wire, &mut deadline).await {
        return;
    }
    match arrival.shake_hands(&worker, wire, &mut deadline).await {
        Some((spoken, tls)) => (wire, arrival.tls) = (spoken, tls),
        None => return,
    }
    let down = Downstream { wire, deadline, arrival: Rc::new(arrival), requests: 0, worker, presence };
    down.speak().await;
}

impl Arrival {
    pub fn listen<'a>(&self, running: &'a Running) -> &'a Listen {
        let listens = &running.settings.http.listens;
        &listens[self.listen.get().min(listens.len() - 1)]
    }

    /// The server blocks of the address that the connection came in on.
    pub fn names<'a>(&self, wire: &Wire, running: &'a Running) -> &'a Names {
        let listen = self.listen(running);
        let local = listen.needs_local().then(|| wire.local_addr()).flatten();
        listen.names_for(local.map(|local| local.ip().to_canonical()))
    }

    /// On a port of the PROXY protocol: its header. False when there is none: then nobody can be believed.
    async fn hear_proxy(&mut self, worker: &Worker, wire: &mut Wire, deadline: &mut Deadline) -> bool {
        let generation = worker.generation();
        let names = self.names(wire, &generation.running);
        if !names.is_proxied {
            return true;
        }
        deadline.set(Instant::now(), names.default.head.header_timeout);
        match Box::pin(proxied(wire, deadline)).await {
            Ok(header) => {
                self.proxied = Some(header);
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
        deadline: &mut Deadline,
    ) -> Option<(Wire, Option<Rc<Session>>)> {
        let generation = worker.generation();
        let names = self.names(&wire, &generation.running);
        if !names.is_tls {
            return Some((wire, None));
        }
        deadline.set(Instant::now(), names.default.head.header_timeout);
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
        let wanted = reader.wants(&space[..peeked])?;
        let taken = poll_fn(|cx| wire.poll_read(cx, &mut space[..wanted])).await.map_err(|_| Broken)?;
        if taken == 0 {
            return Err(Broken);
        }
        reader.take(&space[..taken]);
    }
    reader.into_header()
}

/// A connection without a request; dropped, it has one or is gone.
struct Waiting(Arc<Metrics>);

impl Waiting {
    fn begin(metrics: Arc<Metrics>) -> Waiting {
        metrics.connections_waiting.fetch_add(1, Relaxed);
        Waiting(metrics)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.connections_waiting.fetch_sub(1, Relaxed);
    }
}

/// How reading a head ended without fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Whole,
    /// The client left between two requests.
    Gone,
    /// Not a byte of it has come.
    NotYet,
}

impl Downstream {
    /// Serves the connection in the version that its client speaks.
    async fn speak(mut self) {
        let generation = self.worker.generation();
        let server = self.default_server(&generation.running);
        let names = self.names(&generation.running);
        let mut early = Vec::new();
        let is_http2 = match &self.arrival.tls {
            Some(tls) => tls.alpn.as_deref() == Some(b"h2"),
            None if names.is_tls || !(names.is_http2 || server.http2.is_on) => false,
            None => {
                self.deadline.set(Instant::now(), server.head.header_timeout);
                self.begins_preface(&mut early).await
            }
        };
        let terms = is_http2.then(|| Terms {
            http2: server.http2,
            head: server.head.clone(),
            keepalive: server.root.keepalive.clone(),
        });
        // A connection outlives the configuration under which it came: only its requests hold one.
        drop(generation);
        match terms {
            Some(terms) => Box::pin(serving::serve(self, early, terms)).await,
            None => self.serve_http1(early).await,
        }
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

    /// `early`: what was read already.
    async fn serve_http1(mut self, early: Vec<u8>) {
        let worker = self.worker.clone();
        let mut early = Some(early).filter(|early| !early.is_empty());
        let header_timeout = self.default_server(&worker.generation().running).head.header_timeout;
        self.deadline.set(Instant::now(), header_timeout);
        while early.is_some() || self.wait_for_request().await {
            let mut scratch = worker.spare.take();
            if let Some(early) = early.take() {
                scratch.inbound = Buffer::of(early);
            }
            let after = self.serve_burst(&mut scratch).await;
            if !matches!(after, None | Some(After::KeepAlive { .. })) {
                worker.journal().flush_live();
            }
            worker.spare.give_back(scratch);
            match after {
                // The deadline stays: pieces of a TLS record gain nothing.
                None => {}
                Some(After::KeepAlive { timeout }) => self.deadline.set(Instant::now(), timeout),
                Some(After::Linger(lingering)) => return self.linger(&lingering).await,
                Some(After::Close) => return,
                Some(After::Abort) => return self.wire.reset_on_close(),
            }
        }
    }

    /// The connection itself, for who speaks HTTP/2 over it; what is left opens its streams.
    pub fn into_connection(self) -> (Wire, Streams) {
        let Downstream { wire, deadline, arrival, requests, worker, presence } = self;
        (wire, Streams { deadline, arrival, requests, worker, presence })
    }

    /// Serves one stream: a wire with one request.
    pub async fn serve_stream(mut self) -> StreamEnd {
        let worker = self.worker.clone();
        let mut scratch = worker.spare.take();
        let after = self.serve_burst(&mut scratch).await;
        worker.spare.give_back(scratch);
        if matches!(after, Some(After::Abort)) {
            self.wire.reset_on_close();
        }
        match &self.wire {
            Wire::Served(stream) if stream.is_answered() => StreamEnd::Answered,
            _ => StreamEnd::GivenUp,
        }
    }

    /// Holds no buffer while it waits, to the deadline. False when the connection is over.
    async fn wait_for_request(&mut self) -> bool {
        let is_first = self.requests == 0;
        let _waiting = Waiting::begin(self.presence.metrics.clone());
        poll_fn(|cx| {
            if let Poll::Ready(readable) = self.wire.poll_readable(cx) {
                return Poll::Ready(readable.is_ok());
            }
            if !is_first && self.worker.is_draining() || self.deadline.poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            Poll::Pending
        })
        .await
    }

    /// Serves requests as long as the next one is already here. `None`: not even the first byte of one has come.
    async fn serve_burst(&mut self, scratch: &mut Scratch) -> Option<After> {
        let worker = self.worker.clone();
        loop {
            let generation = worker.generation();
            let limits = &self.default_server(&generation.running).head;
            scratch.story.is_pipelined = !scratch.inbound.is_empty();
            match self.read_head(scratch, limits).await {
                Ok(Head::Whole) => {}
                Ok(Head::Gone) => return Some(After::Close),
                Ok(Head::NotYet) => return None,
                Err(error) => {
                    self.requests += 1;
                    return Some(relay::refuse(&worker, &generation, self, scratch, error).await);
                }
            }
            self.requests += 1;
            let after = relay::relay(&worker, &generation, self, scratch).await;
            let After::KeepAlive { .. } = after else { return Some(after) };
            let head_len = scratch.story.request.len;
            scratch.inbound.consume(head_len);
            scratch.clear();
            if scratch.inbound.is_empty() {
                return Some(after);
            }
        }
    }

    /// Reads one head.
    async fn read_head(&mut self, scratch: &mut Scratch, head: &HeadLimits) -> Result<Head, Error> {
        let (version_max, fields_added) = match &self.wire {
            Wire::Served(stream) => (Version::Http2, stream.fields_added()),
            _ => (Version::Http11, 0),
        };
        let limits = Limits {
            line_len_max: head.large_buffer_len.max(head.header_buffer_len),
            head_len_max: (head.large_buffer_len * head.large_buffers).max(head.header_buffer_len),
            fields_max: head.headers_max.saturating_add(fields_added),
            underscores: head.underscores_in_headers,
            ignore_invalid: head.ignore_invalid_headers,
            version_max,
        };
        let mut deadline = None;
        loop {
            if !scratch.inbound.is_empty() {
                let now = *scratch.story.started.get_or_insert_with(std::time::Instant::now);
                if scratch.story.request.parse(scratch.inbound.unread(), &limits)? {
                    return Ok(Head::Whole);
                }
                // One deadline for the whole head, from its first byte: dripping bytes gains nothing.
                deadline.get_or_insert(Instant::from_std(now) + head.header_timeout);
            }
            if let Some(deadline) = deadline {
                self.deadline.set_at(deadline);
            }
            let len_max = limits.head_len_max.max(BUFFER_LEN) + 1;
            if scratch.inbound.is_empty() {
                // The socket was said to be readable; if it is not, the wait goes on without this memory.
                let inbound = &mut scratch.inbound;
                match poll_fn(|cx| Poll::Ready(self.wire.poll_read(cx, inbound.space(len_max)))).await {
                    Poll::Ready(Ok(0) | Err(_)) => return Ok(Head::Gone),
                    Poll::Ready(Ok(len)) => inbound.fill(len),
                    Poll::Pending => return Ok(Head::NotYet),
                }
                continue;
            }
            self.read_into(&mut scratch.inbound, len_max).await?;
        }
    }

    /// `$scheme`.
    pub fn scheme(&self) -> &'static [u8] {
        if self.arrival.tls.is_some() { b"https" } else { b"http" }
    }

    pub fn names<'a>(&self, running: &'a Running) -> &'a Names {
        self.arrival.names(&self.wire, running)
    }

    /// The server block whose limits hold before a request names its own: that of the handshake's name.
    fn default_server<'a>(&self, running: &'a Running) -> &'a Server {
        let name = self.arrival.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        match name {
            None => &self.arrival.listen(running).names.default,
            Some(name) => self.names(running).find(name.as_bytes()),
        }
    }

    /// Reads once, under the deadline.
    pub async fn read_into(&mut self, buffer: &mut Buffer, len_max: usize) -> Result<(), Error> {
        poll_fn(|cx| match self.wire.poll_read(cx, buffer.space(len_max)) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(Error::ClientGone)),
            Poll::Ready(Ok(len)) => {
                buffer.fill(len);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => self.deadline.poll(cx).map(|()| Err(Error::ClientTimeout)),
        })
        .await
    }

    /// Writes all of it. The deadline moves on with each write that gets through.
    pub async fn write_all(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            let written = poll_fn(|cx| match self.wire.poll_write(cx, data) {
                Poll::Ready(result) => Poll::Ready(result.map_err(|_| Error::ClientGone)),
                Poll::Pending => self.deadline.poll(cx).map(|()| Err(Error::ClientTimeout)),
            })
            .await?;
            data = &data[written..];
        }
        Ok(())
    }

    /// While an answer is awaited: has the client left? Bytes of a next request are taken in, as far as there is room.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>, inbound: &mut Buffer, len_max: usize) -> bool {
        loop {
            let space = inbound.space(len_max);
            if space.is_empty() {
                return false;
            }
            match self.wire.poll_read(cx, space) {
                Poll::Ready(Ok(0) | Err(_)) => return true,
                Poll::Ready(Ok(len)) => inbound.fill(len),
                Poll::Pending => return false,
            }
        }
    }

    /// Closes our side and reads on for a while: closed at once, with bytes of the client unread, the kernel would
    /// send a reset that can destroy the answer on its way.
    async fn linger(mut self, lingering: &Lingering) {
        if lingering.mode == LingeringMode::Off {
            return;
        }
        self.wire.shutdown_write();
        let end = Instant::now() + lingering.time;
        let mut bin = self.worker.spare.take();
        loop {
            self.deadline.set_at(end.min(Instant::now() + lingering.timeout));
            bin.inbound.clear();
            if self.read_into(&mut bin.inbound, BUFFER_LEN).await.is_err() || Instant::now() >= end {
                return self.worker.spare.give_back(bin);
            }
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.worker.connections().leave(self.place);
        self.metrics.connections_active.fetch_sub(1, Relaxed);
    }
}
