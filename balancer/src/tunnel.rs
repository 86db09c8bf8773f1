//! After a 101: raw bytes both ways. A client that has said all still hears the answer, as in TCP; once the upstream has
//! ended, nobody is left to hear the client. An idle tunnel holds no buffer.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::buffer::{BUFFER_LEN, Buffer};
use crate::downstream::Downstream;
use crate::error::Error;
use crate::relay::scratch::{Scratch, Spare};
use crate::relay::story::Story;
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
    poll_fn(|cx| {
        loop {
            let down_moved = to_client.poll(cx, &mut up.wire, &mut down.wire, &worker.spare);
            let up_moved = to_upstream.poll(cx, &mut down.wire, &mut up.wire, &worker.spare);
            // At once: a tunnel that is cut tells of what it has carried.
            count(&mut scratch.story, &mut to_client, &mut to_upstream);
            let down_moved = down_moved.map_err(|broken| match broken {
                Broken::Sender(error) => Error::Tunnel(error),
                Broken::Receiver(_) => Error::ClientGone,
            })?;
            if to_client.is_over() {
                return Poll::Ready(Ok(()));
            }
            let up_moved = up_moved.map_err(|broken| match broken {
                Broken::Sender(_) => Error::ClientGone,
                Broken::Receiver(error) => Error::Tunnel(error),
            })?;
            if !down_moved && !up_moved {
                break;
            }
            let patience = if to_client.held.is_some() { patience.send } else { patience.idle };
            down.deadline.set(Instant::now(), patience);
        }
        let late = || if to_client.held.is_some() { Error::ClientTimeout } else { Error::BodyTimeout };
        down.deadline.poll(cx).map(|()| Err(late()))
    })
    .await
}

fn count(story: &mut Story, to_client: &mut Lane, to_upstream: &mut Lane) {
    story.sent_len += std::mem::take(&mut to_client.written_len);
    if let Some(attempt) = story.attempt() {
        attempt.received_len += std::mem::take(&mut to_client.read_len);
        attempt.sent_len += std::mem::take(&mut to_upstream.written_len);
    }
}

/// Which end of a lane failed.
enum Broken {
    Sender(io::Error),
    Receiver(io::Error),
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    /// Only while there is something that the receiver does not take.
    held: Option<Buffer>,
    state: State,
    /// Since it was counted last.
    read_len: u64,
    written_len: u64,
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
    ) -> Result<bool, Broken> {
        let mut moved = false;
        loop {
            if let Some(buffer) = &mut self.held {
                match to.poll_write(cx, buffer.unread()) {
                    Poll::Ready(written) => {
                        let len = written.map_err(Broken::Receiver)?;
                        buffer.consume(len);
                        self.written_len += len as u64;
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
                State::Open => {
                    if from.poll_readable(cx).map_err(Broken::Sender)?.is_pending() {
                        return Ok(moved);
                    }
                }
            }
            let mut buffer = spare.take_buffer();
            match from.poll_read(cx, buffer.space(BUFFER_LEN)) {
                Poll::Ready(Ok(0)) => self.state = State::Ending,
                Poll::Ready(Ok(len)) => {
                    buffer.fill(len);
                    self.read_len += len as u64;
                    self.held = Some(buffer);
                    continue;
                }
                Poll::Ready(Err(error)) => return Err(Broken::Sender(error)),
                Poll::Pending => {
                    spare.give_back_buffer(buffer);
                    return Ok(moved);
                }
            }
            spare.give_back_buffer(buffer);
        }
    }
}
