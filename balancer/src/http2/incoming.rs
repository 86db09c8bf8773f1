//! One message's bytes on their way in: its head as text, its DATA as body, chunked where no length was given.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::RecvStream;

use super::gone;
use crate::logic::messages;

#[derive(Debug)]
pub struct Incoming {
    /// Made here: head, chunk lines, trailers.
    text: Vec<u8>,
    text_read: usize,
    /// Came as it is.
    data: Bytes,
    framing: Framing,
    stage: Stage,
    stream: RecvStream,
}

/// How the reader is told where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By a length in the head, or there is none.
    Plain,
    Chunked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Body,
    Trailers,
    Over,
}

impl Incoming {
    pub fn new(head: Vec<u8>, framing: Framing, stream: RecvStream) -> Incoming {
        Incoming { text: head, text_read: 0, data: Bytes::new(), framing, stage: Stage::Body, stream }
    }

    /// All of the message has come and was read.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over && self.text_read == self.text.len()
    }

    /// 0 is the end of the message.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.text_read < self.text.len() {
                return Poll::Ready(Ok(self.take_text(space)));
            }
            if !self.data.is_empty() {
                return Poll::Ready(self.take_data(space));
            }
            match self.stage {
                Stage::Body => match ready!(self.stream.poll_data(cx)) {
                    Some(Ok(data)) => self.on_data(data),
                    Some(Err(error)) => return Poll::Ready(Err(gone(error))),
                    None => self.stage = Stage::Trailers,
                },
                Stage::Trailers => {
                    let trailers = ready!(self.stream.poll_trailers(cx)).map_err(gone)?;
                    self.stage = Stage::Over;
                    if self.framing == Framing::Chunked {
                        self.begin_text(b"0\r\n");
                        messages::lines(&trailers.unwrap_or_default(), &mut self.text);
                        self.text.extend_from_slice(b"\r\n");
                    }
                }
                Stage::Over => return Poll::Ready(Ok(0)),
            }
        }
    }

    fn on_data(&mut self, data: Bytes) {
        if self.framing == Framing::Chunked && !data.is_empty() {
            let line = format!("{:x}\r\n", data.len());
            self.begin_text(line.as_bytes());
        }
        self.data = data;
    }

    fn begin_text(&mut self, text: &[u8]) {
        self.text.clear();
        self.text_read = 0;
        self.text.extend_from_slice(text);
    }

    fn take_text(&mut self, space: &mut [u8]) -> usize {
        let rest = &self.text[self.text_read..];
        let len = rest.len().min(space.len());
        space[..len].copy_from_slice(&rest[..len]);
        self.text_read += len;
        len
    }

    /// The peer may send as much again as was taken: a slow reader slows it down.
    fn take_data(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let len = self.data.len().min(space.len());
        self.data.copy_to_slice(&mut space[..len]);
        self.stream.flow_control().release_capacity(len).map_err(gone)?;
        if self.data.is_empty() && self.framing == Framing::Chunked {
            self.begin_text(b"\r\n");
        }
        Ok(len)
    }
}
