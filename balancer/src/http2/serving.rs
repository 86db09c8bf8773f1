//! A client's HTTP/2 connection: opens a task per stream, bounds what a client may make us do, and ends in order.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::served::Served;
use crate::conf::location::ClientKeepalive;
use crate::conf::location::{HeadLimits, Http2};
use crate::deadline::Deadline;
use crate::downstream::{Arrival, Downstream, Presence, StreamEnd};
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
    fn open(&self, wire: Wire) -> Downstream {
        Downstream {
            wire,
            deadline: Deadline::new(Instant::now()),
            arrival: self.arrival.clone(),
            requests: self.requests,
            worker: self.worker.clone(),
            presence: self.presence.clone(),
        }
    }
}

/// What ended the wait for the connection's next event.
enum Event {
    Request(Box<(Request<RecvStream>, SendResponse<Bytes>)>),
    StreamsEnded(Vec<StreamEnd>),
    Drain,
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
pub async fn serve(down: Downstream, early: Vec<u8>, Terms { http2, head, keepalive }: Terms) {
    let local = down.wire.local_addr();
    let (wire, mut down) = down.into_connection();
    let started = Instant::now();
    down.deadline.set(started, head.header_timeout);
    let handshake = builder(&http2, &head).handshake(Rewound { early: early.into(), wire });
    let Some(mut connection) = within(handshake, &mut down.deadline).await else { return };
    let mut streams = JoinSet::new();
    let mut given_up = 0u32;
    let mut is_ending = false;
    let mut is_idle = false;
    loop {
        if streams.is_empty() != is_idle {
            is_idle = streams.is_empty();
            let timeout = match down.requests {
                _ if is_ending => GOODBYE_TIMEOUT,
                0 => head.header_timeout,
                _ => keepalive.timeout,
            };
            down.deadline.set(Instant::now(), timeout);
        }
        let event = poll_fn(|cx| poll_event(cx, &mut connection, &mut streams, &mut down, is_ending)).await;
        match event {
            Event::Request(opened) => {
                let (request, respond) = *opened;
                let wire = Wire::Served(Box::new(Served::new(request, respond, local)));
                streams.spawn_local(down.open(wire).serve_stream());
                down.requests += 1;
                if (down.requests >= keepalive.requests_max
                    || down.arrival.opened.elapsed() >= keepalive.time)
                    && !is_ending
                {
                    is_ending = true;
                    connection.graceful_shutdown();
                }
            }
            Event::StreamsEnded(ends) => {
                for end in ends {
                    given_up = match end {
                        StreamEnd::Answered => given_up.saturating_sub(1),
                        StreamEnd::GivenUp => given_up + 1,
                    };
                }
                if given_up > GIVEN_UP_MAX {
                    tracing::info!("client gave up too many streams");
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    is_ending = true;
                    given_up = 0;
                }
            }
            Event::Drain | Event::Idle if !is_ending => {
                is_ending = true;
                connection.graceful_shutdown();
                down.deadline.set(Instant::now(), GOODBYE_TIMEOUT);
            }
            Event::Drain | Event::Idle | Event::Over => return,
        }
    }
}

/// Who has been told to go and has nothing under way is waited for no longer than this.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

fn poll_event(
    cx: &mut Context<'_>,
    connection: &mut Connection<Rewound, Bytes>,
    streams: &mut JoinSet<StreamEnd>,
    down: &mut Streams,
    is_ending: bool,
) -> Poll<Event> {
    let mut ends = Vec::new();
    while let Poll::Ready(Some(ended)) = streams.poll_join_next(cx) {
        // A stream's task that panicked took nothing with it but its stream.
        ends.push(ended.unwrap_or(StreamEnd::GivenUp));
    }
    if !ends.is_empty() {
        return Poll::Ready(Event::StreamsEnded(ends));
    }
    match connection.poll_accept(cx) {
        Poll::Ready(Some(Ok(opened))) => return Poll::Ready(Event::Request(Box::new(opened))),
        Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Event::Over),
        Poll::Pending => {}
    }
    if down.worker.is_draining() && !is_ending {
        return Poll::Ready(Event::Drain);
    }
    if streams.is_empty() && down.deadline.poll(cx).is_ready() {
        return Poll::Ready(Event::Idle);
    }
    Poll::Pending
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

async fn within<T, E>(step: impl Future<Output = Result<T, E>>, deadline: &mut Deadline) -> Option<T> {
    let mut step = pin!(step);
    poll_fn(|cx| match step.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result.ok()),
        Poll::Pending => deadline.poll(cx).map(|()| None),
    })
    .await
}

/// A wire with bytes put back in front.
#[derive(Debug)]
pub struct Rewound {
    early: Bytes,
    wire: Wire,
}

impl AsyncRead for Rewound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return AsyncRead::poll_read(Pin::new(&mut this.wire), cx, buf);
        }
        let len = this.early.len().min(buf.remaining());
        buf.put_slice(&this.early[..len]);
        this.early.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().wire.poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().wire.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
