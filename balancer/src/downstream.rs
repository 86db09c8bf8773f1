//! One client's connection: waits for requests without holding memory, reads their heads, hands each to the relay,
//! and closes in a way that lets the client read the last answer.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use crate::arrival::Arrival;
use crate::buffer::{BUFFER_LEN, Buffer};
use crate::burst::Burst;
use crate::conf::listen::Names;
use crate::conf::location::{HeadLimits, Lingering, LingeringMode, Server};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::http2::serving::Streams;
use crate::logic::h1::{Limits, Version};
use crate::metrics::Metrics;
use crate::relay::scratch::Scratch;
use crate::relay::{self, After};
use crate::running::Running;
use crate::wire::Wire;
use crate::worker::connections::{Idle, Slot};
use crate::worker::{Generation, Worker};

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
    pub slot: Slot,
    pub metrics: Arc<Metrics>,
}

/// A connection without a request; dropped, it has one or is gone.
struct Waiting<'a> {
    idle: Idle<'a>,
    metrics: &'a Metrics,
}

impl Waiting<'_> {
    fn begin(presence: &Presence) -> Waiting<'_> {
        presence.metrics.connections_waiting.fetch_add(1, Relaxed);
        Waiting { idle: presence.slot.idle(), metrics: &presence.metrics }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.metrics.connections_waiting.fetch_sub(1, Relaxed);
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
    /// `early`: what was read already.
    pub async fn serve_http1(mut self: Box<Self>, early: Vec<u8>) {
        let worker = self.worker.clone();
        let mut early = Some(early).filter(|early| !early.is_empty());
        let header_timeout = self.default_server(&self.generation().running).head.header_timeout;
        let mut kept_until = None;
        self.deadline.set(Instant::now(), header_timeout);
        while early.is_some() || self.wait_for_request(kept_until).await {
            let mut scratch = worker.spare.take();
            if let Some(early) = early.take() {
                scratch.inbound = Buffer::of(early);
            }
            let after;
            (self, after) = self.serve_requests(scratch).await;
            match after {
                // The deadline stays: pieces of a TLS record gain nothing.
                None => {}
                Some(After::KeepAlive(idle_time)) => {
                    let now = Instant::now();
                    self.deadline.set(now, idle_time.max);
                    kept_until = (!idle_time.min.is_zero()).then(|| now + idle_time.min);
                }
                Some(After::Linger(lingering)) => return Box::pin(self.linger(lingering)).await,
                Some(After::Close) => return,
                Some(After::Abort) => return self.wire.reset_on_close(),
            }
        }
    }

    /// Serves what is here, in a place that is lent for it.
    async fn serve_requests(self: Box<Self>, scratch: Box<Scratch>) -> (Box<Downstream>, Option<After>) {
        let worker = self.worker.clone();
        let mut burst = worker.bursts.take_or(Burst::new);
        let (down, scratch, after) = burst.serve(self, scratch).await;
        worker.bursts.give_back(burst);
        if !matches!(after, None | Some(After::KeepAlive(_))) {
            worker.journal().flush_live();
        }
        worker.spare.give_back(scratch);
        (down, after)
    }

    /// The connection itself, for who speaks HTTP/2 over it; what is left opens its streams.
    pub fn into_connection(self) -> (Wire, Streams) {
        let Downstream { wire, deadline, arrival, requests, worker, presence } = self;
        (wire, Streams { deadline, arrival, requests, worker, presence })
    }

    /// Serves one stream: a wire with one request.
    pub async fn serve_stream(self: Box<Self>) -> StreamEnd {
        let scratch = self.worker.spare.take();
        let (mut down, after) = self.serve_requests(scratch).await;
        if matches!(after, Some(After::Abort)) {
            down.wire.reset_on_close();
        }
        match &down.wire {
            Wire::Served(stream) if stream.is_answered() => StreamEnd::Answered,
            _ => StreamEnd::GivenUp,
        }
    }

    /// Holds no buffer while it waits, to the deadline or, from `kept_until` on, until it is to end: with its listener or its
    /// worker, or for want of room. False when the connection is over.
    async fn wait_for_request(&mut self, mut kept_until: Option<Instant>) -> bool {
        let is_first = self.requests == 0;
        let Downstream { wire, deadline, arrival, worker, presence, .. } = self;
        let waiting = Waiting::begin(presence);
        let idle_until = deadline.at();
        if let Some(kept_until) = kept_until {
            deadline.set_at(kept_until.min(idle_until));
        }
        let goes_on = poll_fn(|cx| {
            loop {
                // Before what tokio says, which is not always true of a socket that is new.
                if kept_until.is_none() && waiting.idle.is_sent_away() {
                    return Poll::Ready(false);
                }
                if let Poll::Ready(readable) = wire.poll_readable(cx) {
                    return Poll::Ready(readable.is_ok());
                }
                if kept_until.is_none() && !is_first && arrival.is_leaving(worker) {
                    return Poll::Ready(false);
                }
                ready!(deadline.poll(cx));
                if kept_until.take().is_none_or(|until| until >= idle_until) {
                    return Poll::Ready(false);
                }
                deadline.set_at(idle_until);
            }
        })
        .await;
        deadline.set_at(idle_until);
        goes_on
    }

    /// Serves requests as long as the next one is already here. `None`: not even the first byte of one has come.
    pub async fn serve_burst(&mut self, scratch: &mut Scratch) -> Option<After> {
        let worker = self.worker.clone();
        loop {
            let generation = self.generation();
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
            let After::KeepAlive(_) = after else { return Some(after) };
            let head_len = scratch.story.request.len;
            scratch.inbound.consume(head_len);
            if scratch.inbound.is_empty() {
                return Some(after);
            }
            scratch.clear();
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
        loop {
            let received_len = scratch.inbound.len() as u64;
            if received_len > 0 {
                let began = *scratch.story.started.get_or_insert_with(std::time::Instant::now);
                if scratch.story.request.parse(scratch.inbound.unread(), &limits)? {
                    return Ok(Head::Whole);
                }
                // From its first byte, whatever comes when: dripping bytes gains nothing.
                self.deadline.set_at(Instant::from_std(began) + head.patience(received_len));
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
            self.read_into(&mut scratch.inbound, len_max).await.map_err(|error| match error {
                Error::ClientTimeout if head.is_late_by_rate(received_len) => Error::HeadTooSlow,
                error => error,
            })?;
        }
    }

    /// The generation that counts for a request that begins now.
    pub fn generation(&self) -> Rc<Generation> {
        self.arrival.entrance.generation(&self.worker)
    }

    /// No further request is waited for.
    pub fn is_leaving(&self) -> bool {
        self.arrival.is_leaving(&self.worker)
    }

    /// `$scheme`.
    pub fn scheme(&self) -> &'static [u8] {
        if self.arrival.tls.is_some() { b"https" } else { b"http" }
    }

    pub fn names<'a>(&self, running: &'a Running) -> &'a Names {
        self.arrival.names(&self.wire, running)
    }

    /// The server block whose limits hold before a request names its own: that of the handshake's name.
    pub fn default_server<'a>(&self, running: &'a Running) -> &'a Server {
        let name = self.arrival.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        match name {
            None => &self.arrival.entrance.listen(running).names.default,
            Some(name) => self.names(running).find(name.as_bytes()),
        }
    }

    /// Reads once, under the deadline.
    pub async fn read_into(&mut self, buffer: &mut Buffer, len_max: usize) -> Result<(), Error> {
        poll_fn(|cx| self.poll_into(cx, buffer, len_max)).await
    }

    pub fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        len_max: usize,
    ) -> Poll<Result<(), Error>> {
        match self.wire.poll_read(cx, buffer.space(len_max)) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(Error::ClientGone)),
            Poll::Ready(Ok(len)) => {
                buffer.fill(len);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => self.deadline.poll(cx).map(|()| Err(Error::ClientTimeout)),
        }
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
    async fn linger(mut self: Box<Self>, lingering: Lingering) {
        if lingering.mode == LingeringMode::Off {
            return;
        }
        self.wire.shutdown_write();
        let presence = self.presence.clone();
        let idle = presence.slot.idle();
        let end = Instant::now() + lingering.time;
        let mut bin = self.worker.spare.take();
        loop {
            self.deadline.set_at(end.min(Instant::now() + lingering.timeout));
            bin.inbound.clear();
            let read = poll_fn(|cx| match self.wire.poll_read(cx, bin.inbound.space(BUFFER_LEN)) {
                Poll::Ready(read) => Poll::Ready(read.unwrap_or(0)),
                Poll::Pending if idle.is_sent_away() => Poll::Ready(0),
                Poll::Pending => self.deadline.poll(cx).map(|()| 0),
            });
            if read.await == 0 || Instant::now() >= end {
                return self.worker.spare.give_back(bin);
            }
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.metrics.connections_active.fetch_sub(1, Relaxed);
    }
}
