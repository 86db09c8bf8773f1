//! The memory of one request: buffers and heads, lent to a connection while it has a request and taken back when it
//! idles, so that ten thousand idle clients hold none.

use std::cell::{Cell, RefCell};

use super::sink::Sink;
use super::story::Story;
use super::upload::Upload;
use crate::buffer::Buffer;

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

/// The memory that no connection uses now: as much as was in use at once lately, so that a steady load allocates
/// nothing. What a peak left behind goes with `tidy`.
#[derive(Debug, Default)]
pub struct Spare {
    // Boxes, so that lending one moves a pointer and not the heads in it.
    #[allow(clippy::vec_box)]
    free: RefCell<Vec<Box<Scratch>>>,
    buffers: RefCell<Vec<Buffer>>,
    /// Those of connections that were cut do not come back: both counts then stay one too high, their difference right.
    lent: Cell<usize>,
    /// Most lent at once since the last `tidy`.
    lent_max: Cell<usize>,
}

impl Spare {
    pub fn take(&self) -> Box<Scratch> {
        self.lent.set(self.lent.get() + 1);
        self.lent_max.set(self.lent_max.get().max(self.lent.get()));
        self.free.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give_back(&self, mut scratch: Box<Scratch>) {
        self.lent.set(self.lent.get().saturating_sub(1));
        scratch.clear();
        scratch.inbound.reset();
        scratch.from_upstream.reset();
        self.free.borrow_mut().push(scratch);
    }

    /// Frees what was not needed since the last call.
    pub fn tidy(&self) {
        let kept = self.lent_max.get() - self.lent.get().min(self.lent_max.get());
        self.free.borrow_mut().truncate(kept);
        self.lent_max.set(self.lent.get());
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
    fn memory_of_a_peak_is_freed_and_that_of_a_steady_load_is_kept() {
        let spare = Spare::default();
        let lent: Vec<_> = (0..10).map(|_| spare.take()).collect();
        lent.into_iter().for_each(|scratch| spare.give_back(scratch));
        spare.tidy();
        assert_eq!(spare.free.borrow().len(), 10);
        let lent: Vec<_> = (0..3).map(|_| spare.take()).collect();
        lent.into_iter().for_each(|scratch| spare.give_back(scratch));
        spare.tidy();
        assert_eq!(spare.free.borrow().len(), 3);
        spare.tidy();
        assert_eq!(spare.free.borrow().len(), 0);
    }
}
