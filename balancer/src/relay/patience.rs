//! How long the client's body is waited for: each pause has its bound, and all of them together have one by what came
//! (`client_body_min_rate`). Time in which it is not the client's turn is not held against it.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Instant as TimerInstant;

use super::Exchange;
use super::scratch::Scratch;
use crate::buffer::BUFFER_LEN;
use crate::downstream::Downstream;
use crate::error::Error;
use crate::wire::Wire;

impl Exchange<'_> {
    /// Reads the next bytes of the body into `inbound`.
    pub async fn read_more_body(&mut self) -> Result<(), Error> {
        let Exchange { down, scratch, location, .. } = self;
        let now = Instant::now();
        down.deadline.set(TimerInstant::from_std(now), location.body.timeout);
        scratch.upload.waited.begin(|| now);
        let len_max = BUFFER_LEN + scratch.story.request.len;
        let read = poll_fn(|cx| match down.poll_into(cx, &mut scratch.inbound, len_max) {
            Poll::Pending => scratch.poll_too_slow(cx, down).map(Err),
            read => read,
        })
        .await;
        let now = Instant::now();
        scratch.upload.waited.end(|| now);
        self.now = now;
        read
    }
}

impl Scratch {
    /// It is the client's turn, and there is nothing to be read: an error once that has been so for too long.
    pub(super) fn await_client(&mut self, cx: &mut Context<'_>, down: &mut Downstream) -> Result<(), Error> {
        self.upload.waited.begin(Instant::now);
        match self.poll_too_slow(cx, down) {
            Poll::Ready(error) => Err(error),
            Poll::Pending => Ok(()),
        }
    }

    fn poll_too_slow(&self, cx: &mut Context<'_>, down: &mut Downstream) -> Poll<Error> {
        let Some(rate) = self.upload.min_rate else { return Poll::Pending };
        let late_at = self.upload.waited.late_at(rate, self.body_received(&down.wire));
        match late_at {
            Some(at) => down.deadline.poll_at(cx, TimerInstant::from_std(at)).map(|()| Error::BodyTooSlow),
            None => Poll::Pending,
        }
    }

    /// What has come of the body, with its framing; over HTTP/2, of all that share the client's way with it.
    fn body_received(&self, wire: &Wire) -> u64 {
        let held_len = self.inbound.len().saturating_sub(self.story.request.len);
        let own_len = self.story.request_body_len + held_len as u64;
        match wire {
            // What came in one read with the stream's head is in its own count only.
            Wire::Served(stream) => own_len.max(stream.bodies_received()),
            _ => own_len,
        }
    }
}
