//! A client's HTTP/2 connection: opens a task per stream, bounds what a client may make us do, and ends in order.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::inlet::{Inlet, Seen};
use super::served::Served;
use crate::arrival::Arrival;
use crate::conf::location::ClientKeepalive;
use crate::conf::location::{HeadLimits, Http2};
use crate::deadline::Deadline;
use crate::downstream::{Downstream, Presence, StreamEnd};
use crate::wire::Wire;
use crate::worker::Worker;

/// The start of the client's preface by which it is told from a request of HTTP/1.
pub const PREFACE_START: &[u8] = b"PRI";

/// Streams that a client may give up beyond those it lets come to their end: a browser that leaves a page gives up a
/// few, who goes on like that only wants work done (CVE-2023-44487).
const GIVEN_UP_MAX: u32 = 128;
/// Bytes of answers that wait in the connection for a client which does not read them; then streams wait.
const SEND_BUFFER_LEN: usize = 64 * 1024;
/// Window of the whole connection: nginx's. What a stream may send is bounded by its own window.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// What opens a connection's streams.
#[derive(Debug)]
pub struct Streams {
    /// Of the connection while it has no stream.
    pub deadline: Deadline,
    pub arrival: Rc<Arrival>,
    pub requests: u64,
    pub worker: Rc<Worker>,
    pub presence: Rc<Presence>,
}

impl Streams {
    fn open(&self, wire: Wire) -> Box<Downstream> {
        Box::new(Downstream {
            wire,
            deadline: Deadline::new(Instant::now()),
            arrival: self.arrival.clone(),
            requests: self.requests,
            worker: self.worker.clone(),
            presence: self.presence.clone(),
        })
    }
}

/// A stream that the client has opened.
type Opened = (Request<RecvStream>, SendResponse<Bytes>);

/// What ended the wait for the connection's next event.
enum Event {
    Request(Box<Opened>),
    StreamsEnded(Vec<StreamEnd>),
    Flooded,
    /// A request's head has begun to come and does not end.
    LateHead,
    Drain,
    /// Room is wanted for those who have requests.
    SentAway,
    Idle,
    Over,
}

/// What the configuration says of the connection.
#[derive(Debug)]
pub struct Terms {
    pub http2: Http2,
    pub head: HeadLimits,
    pub keepalive: ClientKeepalive,
}

/// Serves a connection whose client speaks HTTP/2, `early` bytes of which were read already.
pub async fn serve(down: Downstream, early: Vec<u8>, terms: Terms) {
    let local = down.wire.local_addr();
    let (wire, mut down) = down.into_connection();
    down.deadline.set(Instant::now(), terms.head.header_timeout);
    let inlet = Inlet::new(early, wire);
    let seen = inlet.seen();
    let handshake = builder(&terms.http2, &terms.head).handshake(inlet);
    let Some(connection) = within(handshake, &mut down).await else { return };
    let served = Serving {
        connection,
        streams: JoinSet::new(),
        down,
        terms,
        local,
        seen,
        given_up: 0,
        is_ending: false,
        is_idle: false,
    };
    served.run().await;
}

/// Who has been told to go and has nothing under way is waited for no longer than this.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection and the tasks of its streams.
struct Serving {
    connection: Connection<Inlet, Bytes>,
    streams: JoinSet<StreamEnd>,
    down: Streams,
    terms: Terms,
    local: Option<SocketAddr>,
    seen: Rc<Seen>,
    /// Streams given up beyond those that came to their end.
    given_up: u32,
    /// The client has been told to go.
    is_ending: bool,
    is_idle: bool,
}

impl Serving {
    async fn run(mut self) {
        loop {
            self.set_deadline();
            match poll_fn(|cx| self.poll_event(cx)).await {
                Event::Request(opened) => self.on_request(*opened),
                Event::StreamsEnded(ends) => self.on_ends(&ends),
                Event::Flooded => self.end_abruptly("client floods with frames that carry nothing"),
                Event::LateHead if !self.is_ending => {
                    self.end_abruptly("client sent a request's head too slowly");
                }
                Event::Drain | Event::Idle if !self.is_ending => {
                    self.end_gracefully();
                    self.down.deadline.set(Instant::now(), GOODBYE_TIMEOUT);
                }
                Event::SentAway => return self.leave().await,
                Event::LateHead | Event::Drain | Event::Idle | Event::Over => return,
            }
        }
    }

    /// With a word that says of which streams nothing was looked at. It fits into what an idle client has read empty, and is
    /// not waited for.
    async fn leave(mut self) {
        self.connection.abrupt_shutdown(Reason::NO_ERROR);
        let _ = poll_fn(|cx| Poll::Ready(self.connection.poll_accept(cx).is_ready())).await;
    }

    /// When it becomes idle, and when it ends to be.
    fn set_deadline(&mut self) {
        if self.streams.is_empty() == self.is_idle {
            return;
        }
        self.is_idle = self.streams.is_empty();
        let timeout = match self.down.requests {
            _ if self.is_ending => GOODBYE_TIMEOUT,
            0 => self.terms.head.header_timeout,
            _ => self.terms.keepalive.timeout,
        };
        self.down.deadline.set(Instant::now(), timeout);
    }

    fn on_request(&mut self, (request, mut respond): Opened) {
        if self.under_way() >= self.terms.http2.streams_max as usize {
            respond.send_reset(Reason::REFUSED_STREAM);
            return self.on_ends(&[StreamEnd::GivenUp]);
        }
        let wire = Wire::Served(Box::new(Served::new(request, respond, (self.local, self.seen.bodies()))));
        self.streams.spawn_local(self.down.open(wire).serve_stream());
        self.down.requests += 1;
        let terms = &self.terms.keepalive;
        let is_outworn =
            self.down.requests >= terms.requests_max || self.down.arrival.opened.elapsed() >= terms.time;
        if is_outworn && !self.is_ending {
            self.end_gracefully();
        }
    }

    /// Streams whose requests run, also those that the client has reset since: h2 does not count these any more.
    fn under_way(&self) -> usize {
        // Each has a share in the connection's presence, and the connection itself has one.
        Rc::strong_count(&self.down.presence) - 1
    }

    fn on_ends(&mut self, ends: &[StreamEnd]) {
        for end in ends {
            self.given_up = match end {
                StreamEnd::Answered => self.given_up.saturating_sub(1),
                StreamEnd::GivenUp => self.given_up + 1,
            };
        }
        if self.given_up > GIVEN_UP_MAX {
            self.given_up = 0;
            self.end_abruptly("client gave up too many streams");
        }
    }

    fn end_gracefully(&mut self) {
        self.is_ending = true;
        self.connection.graceful_shutdown();
    }

    fn end_abruptly(&mut self, why: &str) {
        let client = String::from_utf8_lossy(&self.down.arrival.peer_text);
        tracing::info!(%client, "{why}");
        self.is_ending = true;
        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut ends = Vec::new();
        while let Poll::Ready(Some(ended)) = self.streams.poll_join_next(cx) {
            // A stream's task that panicked took nothing with it but its stream.
            ends.push(ended.unwrap_or(StreamEnd::GivenUp));
        }
        if !ends.is_empty() {
            return Poll::Ready(Event::StreamsEnded(ends));
        }
        match self.connection.poll_accept(cx) {
            Poll::Ready(Some(Ok(opened))) => return Poll::Ready(Event::Request(Box::new(opened))),
            Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Event::Over),
            Poll::Pending => {}
        }
        // Nothing more is read once it is set: it is told of once.
        if self.seen.is_flooded() && !std::mem::replace(&mut self.is_ending, true) {
            return Poll::Ready(Event::Flooded);
        }
        if self.down.arrival.is_leaving(&self.down.worker) && !self.is_ending {
            return Poll::Ready(Event::Drain);
        }
        // It holds up all streams, and those do not see it.
        if let Some(heading) = self.seen.heading() {
            let late_at = Instant::from_std(heading.since) + self.terms.head.patience(heading.len);
            if self.down.deadline.poll_at(cx, late_at).is_ready() {
                return Poll::Ready(Event::LateHead);
            }
        }
        if self.streams.is_empty() && self.down.deadline.poll(cx).is_ready() {
            return Poll::Ready(Event::Idle);
        }
        if self.is_sent_away() { Poll::Ready(Event::SentAway) } else { Poll::Pending }
    }

    /// Only who has no stream may be, and has taken all that was sent.
    fn is_sent_away(&self) -> bool {
        let slot = &self.down.presence.slot;
        if !self.streams.is_empty() || self.connection.has_streams() || self.seen.holds_back() {
            slot.end_idle();
            return false;
        }
        slot.is_sent_away()
    }
}

/// What the crate bounds by itself stays on: resets that it must send (MadeYouReset), CONTINUATION frames, streams
/// reset before they were accepted, control frames that wait to be written.
fn builder(http2: &Http2, head: &HeadLimits) -> Builder {
    let head_len_max = head.large_buffer_len.saturating_mul(head.large_buffers);
    let mut builder = Builder::new();
    builder
        .initial_window_size(http2.body_preread_len)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(http2.streams_max)
        // Twice, as names and values count 32 bytes more each here: what is too large by nginx's rule is answered so.
        .max_header_list_size(u32::try_from(head_len_max.saturating_mul(2)).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_LEN);
    builder
}

/// The connection's beginning, before its deadline and unless room is wanted.
async fn within<T, E>(step: impl Future<Output = Result<T, E>>, down: &mut Streams) -> Option<T> {
    let mut step = pin!(step);
    let idle = down.presence.slot.idle();
    poll_fn(|cx| match step.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result.ok()),
        Poll::Pending if idle.is_sent_away() => Poll::Ready(None),
        Poll::Pending => down.deadline.poll(cx).map(|()| None),
    })
    .await
}
