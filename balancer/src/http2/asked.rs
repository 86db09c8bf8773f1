//! A connection to an upstream that speaks HTTP/2, as the relay sees it: requests one after the other, as over a kept
//! connection of HTTP/1.1. It is driven by who reads and writes: no task of its own, nothing to wake.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};

use super::incoming::{Framing as InFraming, Incoming};
use super::outgoing::{Outgoing, is_empty};
use super::{gone, unsayable};
use crate::logic::h1::{Limits, RequestHead};
use crate::logic::messages;
use crate::wire::Wire;

/// What an upstream may send before the client has taken it: it bounds what a slow client makes us hold.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Longest head of a request that our own side may write.
const HEAD_LEN_MAX: usize = 1 << 20;
/// Heads of answers are bounded by `proxy_buffer_size` where they are read; this bounds what is gathered before.
const HEADER_LIST_LEN_MAX: u32 = 1 << 17;

#[derive(Debug)]
pub struct Asked {
    connection: Connection<Wire, Bytes>,
    /// It has ended: with an error or in good order.
    is_closed: bool,
    send: SendRequest<Bytes>,
    scheme: &'static str,
    local: Option<SocketAddr>,
    request: Request,
    answer: Answer,
}

#[derive(Debug)]
enum Request {
    /// Of its head, so much was written.
    Head(Vec<u8>),
    Body(Outgoing),
}

#[derive(Debug)]
enum Answer {
    /// Nothing was asked.
    None,
    Awaited {
        head: ResponseFuture,
        is_bodyless: bool,
    },
    Coming(Incoming),
}

impl Asked {
    pub async fn connect(wire: Wire, scheme: &'static str) -> Result<Asked, h2::Error> {
        let local = wire.local_addr();
        let (send, connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW)
            .max_header_list_size(HEADER_LIST_LEN_MAX)
            .handshake(wire)
            .await?;
        let (request, answer) = (Request::Head(Vec::new()), Answer::None);
        Ok(Asked { connection, is_closed: false, send, scheme, local, request, answer })
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) {
        if !self.is_closed && Pin::new(&mut self.connection).poll(cx).is_ready() {
            self.is_closed = true;
        }
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_connection(cx);
        loop {
            match &mut self.answer {
                // Between two requests an upstream has nothing to say but that it goes.
                Answer::None if self.is_closed => return Poll::Ready(Ok(0)),
                Answer::None => return Poll::Pending,
                Answer::Awaited { head, is_bodyless } => {
                    let is_bodyless = *is_bodyless;
                    if let Poll::Ready(Some(interim)) = head.poll_informational(cx) {
                        let mut text = Vec::new();
                        messages::response_head(&interim.map_err(gone)?, messages::Body::Never, &mut text);
                        let len = text.len();
                        let Some(room) = space.get_mut(..len) else {
                            return Poll::Ready(Err(io::Error::other("too big interim answer")));
                        };
                        room.copy_from_slice(&text);
                        return Poll::Ready(Ok(len));
                    }
                    let response = ready!(Pin::new(head).poll(cx)).map_err(gone)?;
                    self.answer = Answer::Coming(coming(response, is_bodyless));
                }
                Answer::Coming(incoming) => return incoming.poll_read(cx, space),
            }
        }
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if matches!(&self.request, Request::Body(body) if body.is_ended()) {
            self.request = Request::Head(Vec::new());
            self.answer = Answer::None;
        }
        let written = match &mut self.request {
            // What was not asked is not answered: who reads is told so at once.
            Request::Head(_) => self.poll_write_head(cx, data).map_err(|error| {
                self.is_closed = true;
                error
            }),
            Request::Body(body) => body.poll_write(cx, data),
        };
        // What was handed to the connection goes out now, and what it waits for wakes us.
        self.poll_connection(cx);
        match (&mut self.request, written) {
            // The window may have opened while the connection was looked at.
            (Request::Body(body), Poll::Pending) => body.poll_write(cx, data),
            (_, written) => written,
        }
    }

    fn poll_write_head(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.send.poll_ready(cx)).map_err(gone)?;
        let Request::Head(text) = &mut self.request else { return Poll::Ready(Ok(0)) };
        let had = text.len();
        text.extend_from_slice(data);
        let mut head = RequestHead::default();
        let limits = Limits {
            line_len_max: HEAD_LEN_MAX,
            head_len_max: HEAD_LEN_MAX,
            fields_max: HEAD_LEN_MAX,
            underscores: true,
            ignore_invalid: false,
            ..Limits::default()
        };
        if !head.parse(text, &limits).map_err(|refusal| unsayable(refusal.to_string()))? {
            return Poll::Ready(Ok(data.len()));
        }
        let request = messages::request(&head, text, self.scheme)
            .ok_or_else(|| unsayable("its method, target or Host"))?;
        let is_bodyless = request.method() == http::Method::HEAD;
        let used = head.len - had;
        let (answer, stream) = self.send.send_request(request, is_empty(head.framing)).map_err(gone)?;
        self.request = Request::Body(Outgoing::new(stream, head.framing));
        self.answer = Answer::Awaited { head: answer, is_bodyless };
        Poll::Ready(Ok(used))
    }

    /// Without waiting; `None` when there is nothing.
    pub fn try_read(&mut self, space: &mut [u8]) -> Option<io::Result<usize>> {
        if matches!(&self.answer, Answer::Coming(_)) {
            self.answer = Answer::None;
        }
        match self.poll_read(&mut Context::from_waker(Waker::noop()), space) {
            Poll::Ready(read) => Some(read),
            Poll::Pending => None,
        }
    }
}

fn coming(response: http::Response<h2::RecvStream>, is_bodyless: bool) -> Incoming {
    let (parts, stream) = response.into_parts();
    let response = http::Response::from_parts(parts, ());
    let is_bodyless = is_bodyless || matches!(response.status().as_u16(), 204 | 304);
    let body = match stream.is_end_stream() {
        _ if is_bodyless => messages::Body::Never,
        true => messages::Body::Empty,
        false => messages::Body::Follows,
    };
    let is_sized = response.headers().contains_key("content-length");
    let framing = match body {
        messages::Body::Follows if !is_sized => InFraming::Chunked,
        _ => InFraming::Plain,
    };
    let mut head = Vec::new();
    messages::response_head(&response, body, &mut head);
    Incoming::new(head, framing, stream)
}
