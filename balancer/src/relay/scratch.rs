//! The memory of one request: buffers and heads, lent to a connection while it has a request and taken back when it
//! idles, so that ten thousand idle clients hold none.

use std::cell::RefCell;

use super::sink::Sink;
use super::story::Story;
use super::upload::Upload;
use crate::buffer::Buffer;
use crate::pool::Pool;

/// Buffers that one worker keeps for tunnels: one per tunnel that moves bytes at the same moment would be plenty.
const BUFFERS_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct Scratch {
    /// From the client: the request's head at the front while the request lasts, then body or the next request.
    pub inbound: Buffer,
    /// From the upstream: the answer's head at the front while the request lasts, then body.
    pub from_upstream: Buffer,
    pub to_upstream: Outbox,
    pub to_downstream: Outbox,
    pub upload: Upload,
    /// What becomes of the answer's body on its way out.
    pub sink: Sink,
    pub story: Story,
    /// Pieces of a body on their way into one chunk.
    pub pieces: Vec<u8>,
}

impl Scratch {
    /// Ready for the next request of the same connection; what has come of it stays in `inbound`.
    pub fn clear(&mut self) {
        self.from_upstream.clear();
        self.to_upstream.clear();
        self.to_downstream.clear();
        self.upload.clear();
        self.sink = Sink::default();
        self.story.clear();
    }

    /// Gives the buffers up for the life of a tunnel; the heads stay, for the log.
    pub fn release(&mut self, spare: &Spare) {
        for buffer in [&mut self.inbound, &mut self.from_upstream] {
            let head = buffer.unread().to_vec();
            spare.give_back_buffer(std::mem::replace(buffer, Buffer::of(head)));
        }
        self.to_upstream = Outbox::default();
        self.to_downstream = Outbox::default();
        self.upload.kept = Vec::new();
    }
}

/// Bytes on their way out.
#[derive(Debug, Default)]
pub struct Outbox {
    pub data: Vec<u8>,
    sent: usize,
}

/// Past this an outbox was blown up by one large head or body piece and is freed.
const OUTBOX_KEPT_MAX: usize = 128 * 1024;

/// So much that was sent may lie before what was not. A reader that is slower than the source never lets the outbox run
/// empty: without this bound it would in the end hold the whole answer.
const SENT_KEPT_MAX: usize = 64 * 1024;

impl Outbox {
    pub fn unsent(&self) -> &[u8] {
        &self.data[self.sent..]
    }

    pub fn is_empty(&self) -> bool {
        self.sent == self.data.len()
    }

    pub fn advance(&mut self, len: usize) {
        self.sent = (self.sent + len).min(self.data.len());
        if self.is_empty() {
            self.clear();
        } else if self.sent >= SENT_KEPT_MAX {
            self.data.drain(..self.sent);
            self.sent = 0;
        }
    }

    pub fn clear(&mut self) {
        self.sent = 0;
        self.data.clear();
        if self.data.capacity() > OUTBOX_KEPT_MAX {
            self.data = Vec::new();
        }
    }
}

/// The memory that no connection uses now.
#[derive(Debug, Default)]
pub struct Spare {
    // Boxes, so that lending one moves a pointer and not the heads in it.
    scratches: Pool<Box<Scratch>>,
    buffers: RefCell<Vec<Buffer>>,
}

impl Spare {
    pub fn take(&self) -> Box<Scratch> {
        self.scratches.take_or(Box::default)
    }

    pub fn give_back(&self, mut scratch: Box<Scratch>) {
        scratch.clear();
        scratch.inbound.reset();
        scratch.from_upstream.reset();
        self.scratches.give_back(scratch);
    }

    /// Frees what was not needed since the last call.
    pub fn tidy(&self) {
        self.scratches.tidy();
    }

    /// A buffer for the moment in which a tunnel moves bytes.
    pub fn take_buffer(&self) -> Buffer {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give_back_buffer(&self, mut buffer: Buffer) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < BUFFERS_MAX {
            buffer.reset();
            buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_that_never_runs_empty_does_not_keep_what_was_sent() {
        let mut outbox = Outbox::default();
        let mut next_sent = 0u32;
        for number in 0..100_000u32 {
            outbox.data.extend_from_slice(&number.to_be_bytes());
            if number >= 1000 {
                assert_eq!(outbox.unsent()[..4], next_sent.to_be_bytes());
                outbox.advance(4);
                next_sent += 1;
            }
        }
        assert_eq!(outbox.unsent().len(), 4000);
        assert!(outbox.data.len() < 4000 + SENT_KEPT_MAX, "{} bytes are held", outbox.data.len());
    }
}
