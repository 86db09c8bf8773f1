//! A stream that a client opened, as the relay sees it: its request to read, room for one answer.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;

use super::gone;
use super::incoming::{Framing as InFraming, Incoming};
use super::inlet::Bodies;
use super::outgoing::{Outgoing, is_empty};
use crate::logic::h1::{Method, ResponseHead};
use crate::logic::messages;

/// Longest head of an answer that our own side may write.
const HEAD_LEN_MAX: usize = 1 << 20;

#[derive(Debug)]
pub struct Served {
    incoming: Incoming,
    respond: SendResponse<Bytes>,
    answer: Answer,
    is_head: bool,
    /// Fields of the head's text that the client did not send as such.
    fields_added: usize,
    local: Option<SocketAddr>,
    bodies: Bodies,
    /// Of them, so much had come before.
    bodies_before: u64,
}

#[derive(Debug)]
enum Answer {
    /// Of its head, so much was written.
    Head(Vec<u8>),
    Body(Outgoing),
}

impl Served {
    pub fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        (local, bodies): (Option<SocketAddr>, Bodies),
    ) -> Served {
        let (parts, stream) = request.into_parts();
        let request = Request::from_parts(parts, ());
        let has_body = !stream.is_end_stream();
        let is_sized = request.headers().contains_key("content-length");
        let mut head = Vec::new();
        messages::request_head(&request, has_body, &mut head);
        let framing = if has_body && !is_sized { InFraming::Chunked } else { InFraming::Plain };
        Served {
            incoming: Incoming::new(head, framing, stream),
            respond,
            answer: Answer::Head(Vec::new()),
            fields_added: usize::from(request.uri().authority().is_some())
                + usize::from(framing == InFraming::Chunked),
            is_head: request.method() == http::Method::HEAD,
            local,
            bodies_before: bodies.received_len(),
            bodies,
        }
    }

    /// After the request's end this waits for the client to give up.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.incoming.is_over() {
            match self.incoming.poll_read(cx, space) {
                Poll::Ready(Ok(0)) => {}
                read => return read,
            }
        }
        match &mut self.answer {
            Answer::Head(_) => self.respond.poll_reset(cx).map(|reset| match reset {
                Ok(reason) => Err(gone(reason.into())),
                Err(error) => Err(gone(error)),
            }),
            Answer::Body(body) => body.poll_reset(cx).map(Err),
        }
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.answer {
            Answer::Head(_) => Poll::Ready(self.write_head(data)),
            Answer::Body(body) => body.poll_write(cx, data),
        }
    }

    /// Takes as much of `data` as is head; sends it once it is whole.
    fn write_head(&mut self, data: &[u8]) -> io::Result<usize> {
        let Answer::Head(text) = &mut self.answer else { return Ok(0) };
        let had = text.len();
        text.extend_from_slice(data);
        let mut head = ResponseHead::default();
        let ours = |why: &str| io::Error::other(why.to_owned());
        if !head.parse(text, HEAD_LEN_MAX).map_err(|error| ours(&error.to_string()))? {
            return Ok(data.len());
        }
        let response = messages::response(&head, text).ok_or_else(|| ours("no status"))?;
        let used = head.len - had;
        if response.status().is_informational() {
            self.respond.send_informational(response).map_err(gone)?;
            self.answer = Answer::Head(Vec::new());
            return Ok(used);
        }
        let framing = head.framing(if self.is_head { Method::Head } else { Method::Get });
        let stream = self.respond.send_response(response, is_empty(framing)).map_err(gone)?;
        self.answer = Answer::Body(Outgoing::new(stream, framing));
        Ok(used)
    }

    pub fn shutdown_write(&mut self) {
        if let Answer::Body(body) = &mut self.answer {
            body.on_shutdown();
        }
    }

    /// A cut answer must not look whole.
    pub fn reset(&mut self) {
        match &mut self.answer {
            Answer::Head(_) => self.respond.send_reset(Reason::INTERNAL_ERROR),
            Answer::Body(body) if !body.is_ended() => body.reset(Reason::INTERNAL_ERROR),
            Answer::Body(_) => {}
        }
    }

    pub fn is_answered(&self) -> bool {
        matches!(&self.answer, Answer::Body(body) if body.is_ended())
    }

    /// What the connection has brought of bodies since the stream was opened: its streams share the client's way, and
    /// which of them comes first is the client's choice.
    pub fn bodies_received(&self) -> u64 {
        self.bodies.received_len() - self.bodies_before
    }

    pub fn fields_added(&self) -> usize {
        self.fields_added
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }
}
