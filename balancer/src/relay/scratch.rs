//! The memory of one request: buffers and heads, lent to a connection while it has a request and taken back when it
//! idles, so that ten thousand idle clients hold none.

use std::cell::RefCell;

use super::story::Story;
use super::upload::Upload;
use crate::buffer::Buffer;

/// Kept for the next request by one worker. More were in use at a peak; they are freed.
const SPARE_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct Scratch {
    /// From the client: the request's head at the front while the request lasts, then body or the next request.
    pub inbound: Buffer,
    /// From the upstream: the answer's head at the front while the request lasts, then body.
    pub from_upstream: Buffer,
    pub to_upstream: Outbox,
    pub to_downstream: Outbox,
    pub upload: Upload,
    pub story: Story,
    /// Rendered values on their way into a head.
    pub rendered: Vec<u8>,
}

impl Scratch {
    /// Ready for the next request of the same connection; what has come of it stays in `inbound`.
    pub fn clear(&mut self) {
        self.from_upstream.clear();
        self.to_upstream.clear();
        self.to_downstream.clear();
        self.upload.clear();
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
    #[allow(clippy::vec_box)]
    free: RefCell<Vec<Box<Scratch>>>,
    buffers: RefCell<Vec<Buffer>>,
}

impl Spare {
    /// A buffer for the moment in which a tunnel moves bytes.
    pub fn take_buffer(&self) -> Buffer {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give_back_buffer(&self, mut buffer: Buffer) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < SPARE_MAX {
            buffer.reset();
            buffers.push(buffer);
        }
    }

    pub fn take(&self) -> Box<Scratch> {
        self.free.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give_back(&self, mut scratch: Box<Scratch>) {
        let mut free = self.free.borrow_mut();
        if free.len() < SPARE_MAX {
            scratch.clear();
            scratch.inbound.reset();
            scratch.from_upstream.reset();
            free.push(scratch);
        }
    }
}
