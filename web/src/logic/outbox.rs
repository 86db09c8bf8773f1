//! What waits to be written to one member: a queue bounded by bytes, and the reason why it ends. The socket
//! that empties it: see `chat/socket.rs`.

use std::collections::VecDeque;
use std::ops::Deref;

/// The frames of one member, oldest first.
///
/// What does not fit is not dropped in silence: the queue ends as [`End::Slow`], the member is told to come
/// back with `since`, and loses nothing.
#[derive(Debug)]
pub struct Outbox<F> {
    frames: VecDeque<F>,
    queued_bytes: usize,
    bytes_max: usize,
    end: Option<End>,
}

/// Why the server closes a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The replica goes away; the client comes back after this many milliseconds.
    GoingAway {
        retry_after_ms: u64,
    },
    TokenExpired,
    /// No longer a member, or the session is gone.
    Removed,
    Slow,
    RateLimit,
    /// No sign of life after a ping.
    Silent,
}

impl End {
    /// The close code of API.md.
    pub fn code(self) -> u16 {
        match self {
            End::GoingAway { .. } => 1012,
            End::Silent => 1001,
            End::TokenExpired => 4401,
            End::Removed => 4403,
            End::Slow => 4408,
            End::RateLimit => 4429,
        }
    }

    /// The close reason: JSON where a client acts upon it, words elsewhere. At most 123 bytes (RFC 6455, 5.5).
    pub fn reason(self) -> String {
        match self {
            End::GoingAway { retry_after_ms } => format!(r#"{{"retry_after_ms":{retry_after_ms}}}"#),
            End::Silent => "no pong came in time; reconnect with since".into(),
            End::TokenExpired => "the token expired; reconnect with a new one".into(),
            End::Removed => "not a member of this session any more".into(),
            End::Slow => "too slow; reconnect with since".into(),
            End::RateLimit => "too many frames; slow down and reconnect".into(),
        }
    }
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    /// It did not fit, or the queue had ended before.
    Refused,
}

impl<F: Deref<Target = str>> Outbox<F> {
    pub fn new(bytes_max: usize) -> Self {
        Self { frames: VecDeque::new(), queued_bytes: 0, bytes_max, end: None }
    }

    /// Queues a frame that must arrive; where it does not fit, the queue ends as [`End::Slow`].
    pub fn push(&mut self, frame: F) -> Pushed {
        if self.end.is_some() {
            return Pushed::Refused;
        }
        // A single frame always fits an empty queue: a limit below one message would close every member.
        if self.queued_bytes > 0 && self.queued_bytes + frame.len() > self.bytes_max {
            self.close(End::Slow);
            return Pushed::Refused;
        }
        self.queued_bytes += frame.len();
        self.frames.push_back(frame);
        Pushed::Queued
    }

    /// Queues a frame that may be lost (presence, typing, tokens): only while the queue is less than half full.
    pub fn push_passing(&mut self, frame: F) -> Pushed {
        if self.end.is_some() || self.queued_bytes + frame.len() > self.bytes_max / 2 {
            return Pushed::Refused;
        }
        self.queued_bytes += frame.len();
        self.frames.push_back(frame);
        Pushed::Queued
    }

    /// Ends the queue; the first reason stays. What waits is given up where it could not be written in time anyway.
    pub fn close(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        if end == End::Slow {
            self.frames = VecDeque::new();
            self.queued_bytes = 0;
        }
    }

    /// The next frame to write.
    pub fn pop(&mut self) -> Option<F> {
        let frame = self.frames.pop_front()?;
        self.queued_bytes -= frame.len();
        // An idle member holds no buffer.
        if self.frames.is_empty() && self.frames.capacity() > 16 {
            self.frames = VecDeque::new();
        }
        Some(frame)
    }

    /// Why the queue has ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether a bulk of old messages may go on filling it: a catch-up leaves half for live messages.
    pub fn has_room(&self) -> bool {
        self.queued_bytes <= self.bytes_max / 4
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_close_reason_fits_a_close_frame() {
        let ends = [
            End::GoingAway { retry_after_ms: u64::MAX },
            End::TokenExpired,
            End::Removed,
            End::Slow,
            End::RateLimit,
            End::Silent,
        ];
        for end in ends {
            assert!(end.reason().len() <= 123, "{end:?}");
        }
    }

    #[test]
    fn a_frame_that_does_not_fit_ends_the_queue_as_slow_and_frees_it() {
        let mut outbox = Outbox::new(10);
        assert_eq!(outbox.push("123456"), Pushed::Queued);
        assert_eq!(outbox.push("123456"), Pushed::Refused);
        assert_eq!(outbox.end(), Some(End::Slow));
        assert!(outbox.is_empty());
        outbox.close(End::Removed);
        assert_eq!(outbox.end(), Some(End::Slow), "the first reason stays");
    }

    #[test]
    fn a_single_frame_above_the_limit_still_goes_out() {
        let mut outbox = Outbox::new(4);
        assert_eq!(outbox.push("123456"), Pushed::Queued);
        assert_eq!(outbox.pop(), Some("123456"));
    }

    proptest! {
        #[test]
        fn the_queue_never_holds_more_than_its_limit_and_keeps_order(
            sizes in prop::collection::vec((1usize..40, any::<bool>(), any::<bool>()), 0..200)
        ) {
            let mut outbox = Outbox::new(100);
            let mut expected = VecDeque::new();
            for (index, (size, passing, pop)) in sizes.into_iter().enumerate() {
                let frame = format!("{index:0size$}");
                let pushed = if passing { outbox.push_passing(frame.clone()) } else { outbox.push(frame.clone()) };
                if pushed == Pushed::Queued {
                    expected.push_back(frame);
                }
                if outbox.end().is_some() {
                    prop_assert!(outbox.is_empty());
                    prop_assert_eq!(outbox.queued_bytes(), 0);
                    return Ok(());
                }
                prop_assert!(outbox.queued_bytes() <= 100);
                if pop {
                    prop_assert_eq!(outbox.pop(), expected.pop_front());
                }
                prop_assert_eq!(outbox.queued_bytes(), expected.iter().map(String::len).sum::<usize>());
            }
        }
    }
}
