//! After a 101: raw bytes both ways. A client that has said all still hears the answer, as in TCP; once the upstream has
//! ended, nobody is left to hear the client. An idle tunnel holds no buffer.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::buffer::{BUFFER_LEN, Buffer};
use crate::downstream::Downstream;
use crate::error::Error;
use crate::relay::scratch::{Scratch, Spare};
use crate::upstream_conns::UpstreamConn;
use crate::wire::Wire;
use crate::worker::Worker;

/// How long a tunnel waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For any byte.
    pub idle: Duration,
    /// For the client to take what is held for it.
    pub send: Duration,
}

/// Carries bytes until the upstream has ended and the client has all of it, one of them broke, or nothing moved for too
/// long. What came behind the heads goes first.
pub async fn run(
    down: &mut Downstream,
    up: &mut UpstreamConn,
    scratch: &mut Scratch,
    (worker, patience): (&Worker, Patience),
) -> Result<(), Error> {
    let mut to_client = Lane::default();
    let mut to_upstream = Lane::default();
    to_client.begin_with(&[
        scratch.to_downstream.unsent(),
        &scratch.from_upstream.unread()[scratch.story.response.len..],
    ]);
    to_upstream.begin_with(&[&scratch.inbound.unread()[scratch.story.request.len..]]);
    scratch.release(&worker.spare);
    down.deadline.set(Instant::now(), patience.idle);
    let ended = poll_fn(|cx| {
        loop {
            let down_moved = to_client.poll(cx, &mut up.wire, &mut down.wire, &worker.spare);
            let up_moved = to_upstream.poll(cx, &mut down.wire, &mut up.wire, &worker.spare);
            let (Ok(down_moved), Ok(up_moved)) = (down_moved, up_moved) else {
                return Poll::Ready(Err(Error::ClientGone));
            };
            if to_client.is_over() {
                return Poll::Ready(Ok(()));
            }
            if !down_moved && !up_moved {
                break;
            }
            let patience = if to_client.held.is_some() { patience.send } else { patience.idle };
            down.deadline.set(Instant::now(), patience);
        }
        down.deadline.poll(cx).map(|()| Err(Error::BodyTimeout))
    })
    .await;
    scratch.story.sent_len += to_client.carried;
    if let Some(attempt) = scratch.story.attempt() {
        attempt.received_len += to_client.carried;
        attempt.sent_len += to_upstream.carried;
    }
    ended
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    /// Only while there is something that the receiver does not take.
    held: Option<Buffer>,
    state: State,
    carried: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The sender has ended; what is held goes out first.
    Ending,
    Over,
}

impl Lane {
    fn begin_with(&mut self, parts: &[&[u8]]) {
        let first = parts.concat();
        self.held = (!first.is_empty()).then(|| Buffer::of(first));
    }

    fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Moves what can be moved. True when something was.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Wire,
        to: &mut Wire,
        spare: &Spare,
    ) -> Result<bool, std::io::Error> {
        let mut moved = false;
        loop {
            if let Some(buffer) = &mut self.held {
                match to.poll_write(cx, buffer.unread()) {
                    Poll::Ready(written) => {
                        let len = written?;
                        buffer.consume(len);
                        self.carried += len as u64;
                        moved = true;
                    }
                    Poll::Pending => return Ok(moved),
                }
                if buffer.is_empty()
                    && let Some(buffer) = self.held.take()
                {
                    spare.give_back_buffer(buffer);
                }
                continue;
            }
            match self.state {
                State::Over => return Ok(moved),
                State::Ending => {
                    to.shutdown_write();
                    self.state = State::Over;
                    return Ok(true);
                }
                State::Open if from.poll_readable(cx)?.is_pending() => return Ok(moved),
                State::Open => {}
            }
            let mut buffer = spare.take_buffer();
            match from.poll_read(cx, buffer.space(BUFFER_LEN)) {
                Poll::Ready(Ok(0)) => self.state = State::Ending,
                Poll::Ready(Ok(len)) => {
                    buffer.fill(len);
                    self.held = Some(buffer);
                    continue;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    spare.give_back_buffer(buffer);
                    return Ok(moved);
                }
            }
            spare.give_back_buffer(buffer);
        }
    }
}
