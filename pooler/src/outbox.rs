//! Bytes that a socket has not taken yet. Empty, and without memory, almost always.

use std::io;
use std::task::{Context, Poll, ready};

use crate::wire::Wire;

/// Memory above this is given back as soon as it is empty: one large result must not stay for ever.
const KEPT_CAPACITY_MAX: usize = 16 * 1024;

#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Sends at once what the socket takes; the rest waits, behind what waits already.
    #[inline]
    pub fn send(&mut self, wire: &mut Wire, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while self.bytes.is_empty() && !bytes.is_empty() {
            match wire.poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => bytes = &bytes[len..],
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        if !bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Ready when everything is with the kernel.
    pub fn poll_flush(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let len = ready!(wire.poll_write(cx, &self.bytes[self.sent..]))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += len;
            if self.sent == self.bytes.len() {
                self.clear();
            }
        }
        wire.poll_flush(cx)
    }

    fn clear(&mut self) {
        self.sent = 0;
        if self.bytes.capacity() > KEPT_CAPACITY_MAX {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// Gives the memory back.
    pub fn release_memory(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}
