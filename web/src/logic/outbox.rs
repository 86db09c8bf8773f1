//! What waits to be written to one member: a queue bounded by bytes, whose turn it is to write, and the reason why it
//! ends. The sockets that empty it: see `chat/hub/member.rs`.

use std::collections::VecDeque;
use std::ops::Deref;

/// The frames of one member, oldest first.
///
/// What does not fit is not dropped in silence: the queue ends as [`End::Slow`], the member is told to come
/// back with `since`, and loses nothing.
#[derive(Debug)]
pub struct Outbox<F> {
    frames: VecDeque<F>,
    /// How much of the first frame the socket has taken: a frame that was begun must be ended.
    begun_bytes: usize,
    queued_bytes: usize,
    bytes_max: usize,
    turn: Turn,
    end: Option<End>,
}

/// Who writes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing waits.
    Nobody,
    /// Somebody has claimed the turn and will write.
    Claimed,
    /// The socket takes no more; its own task writes when it does again.
    Socket,
    /// The socket is broken.
    Never,
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
    /// A frame above the limit of this many bytes.
    TooLong {
        bytes_max: usize,
    },
    NotUtf8,
    NotWebSocket,
}

impl End {
    /// The close code of API.md.
    pub fn code(self) -> u16 {
        match self {
            End::GoingAway { .. } => 1012,
            End::Silent => 1001,
            End::NotWebSocket => 1002,
            End::NotUtf8 => 1007,
            End::TooLong { .. } => 1009,
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
            End::TooLong { bytes_max } => format!("a frame may have {bytes_max} bytes"),
            End::NotUtf8 => "text frames are UTF-8".into(),
            End::NotWebSocket => "not the WebSocket protocol (RFC 6455)".into(),
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

impl<F: Deref<Target = [u8]>> Outbox<F> {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            begun_bytes: 0,
            queued_bytes: 0,
            bytes_max,
            turn: Turn::Nobody,
            end: None,
        }
    }

    /// Queues a frame that must arrive; where it does not fit, the queue ends as [`End::Slow`].
    pub fn push(&mut self, frame: F) -> Pushed {
        if self.end.is_some() || self.turn == Turn::Never {
            return Pushed::Refused;
        }
        // A single frame always fits an empty queue: a limit below one message would close every member.
        if self.queued_bytes > 0 && self.queued_bytes + frame.len() > self.bytes_max {
            self.close(End::Slow);
            return Pushed::Refused;
        }
        self.add(frame);
        Pushed::Queued
    }

    /// Queues a frame that may be lost (presence, typing, tokens): only while the queue is less than half full.
    pub fn push_passing(&mut self, frame: F) -> Pushed {
        let full = self.queued_bytes + frame.len() > self.bytes_max / 2;
        if self.end.is_some() || self.turn == Turn::Never || full {
            return Pushed::Refused;
        }
        self.add(frame);
        Pushed::Queued
    }

    /// Queues the close frame behind all that still goes out; called once, after the end.
    pub fn push_last(&mut self, frame: F) {
        if self.turn != Turn::Never {
            self.add(frame);
        }
    }

    /// Whether the caller must see to it that the queue is written: something waits, and nobody else will do it.
    pub fn claim(&mut self) -> bool {
        let mine = self.turn == Turn::Nobody && !self.frames.is_empty();
        if mine {
            self.turn = Turn::Claimed;
        }
        mine
    }

    /// What the socket has not taken yet, in order.
    pub fn unwritten(&self) -> impl Iterator<Item = &[u8]> {
        let begun = self.begun_bytes;
        let first = self.frames.front().map(|frame| &frame[begun..]);
        first.into_iter().chain(self.frames.iter().skip(1).map(|frame| &frame[..]))
    }

    /// The socket has taken so many bytes more. Gives the number of frames that have gone out as a whole.
    pub fn on_written(&mut self, len: usize) -> usize {
        self.begun_bytes += len;
        let mut finished = 0;
        while let Some(len) =
            self.frames.front().map(|frame| frame.len()).filter(|len| *len <= self.begun_bytes)
        {
            self.begun_bytes -= len;
            self.queued_bytes -= len;
            self.frames.pop_front();
            finished += 1;
        }
        if self.frames.is_empty() {
            debug_assert_eq!(self.begun_bytes, 0, "more was written than waited");
            self.turn = Turn::Nobody;
            // An idle member holds no buffer.
            if self.frames.capacity() > 16 {
                self.frames = VecDeque::new();
            }
        }
        finished
    }

    /// The socket takes no more for now.
    pub fn on_full(&mut self) {
        self.turn = Turn::Socket;
    }

    /// The socket is broken: nothing will be written any more.
    pub fn on_broken(&mut self) {
        self.turn = Turn::Never;
        self.frames = VecDeque::new();
        self.begun_bytes = 0;
        self.queued_bytes = 0;
    }

    /// Whether the queue waits for its socket.
    pub fn is_stalled(&self) -> bool {
        self.turn == Turn::Socket
    }

    /// Ends the queue; the first reason stays. What waits is given up where it could not be written in time anyway.
    pub fn close(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        if end == End::Slow {
            let begun = self.frames.pop_front().filter(|_| self.begun_bytes > 0);
            self.queued_bytes = begun.as_ref().map_or(0, |frame| frame.len());
            self.frames = begun.into_iter().collect();
        }
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

    /// Frames that wait, one that was begun among them.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    fn add(&mut self, frame: F) {
        self.queued_bytes += frame.len();
        self.frames.push_back(frame);
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
            End::TooLong { bytes_max: usize::MAX },
            End::NotUtf8,
            End::NotWebSocket,
        ];
        for end in ends {
            assert!(end.reason().len() <= 123, "{end:?}");
        }
    }

    fn bytes(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    #[test]
    fn a_frame_that_does_not_fit_ends_the_queue_as_slow_and_frees_it() {
        let mut outbox = Outbox::new(10);
        assert_eq!(outbox.push(bytes("123456")), Pushed::Queued);
        assert_eq!(outbox.push(bytes("123456")), Pushed::Refused);
        assert_eq!(outbox.end(), Some(End::Slow));
        assert!(outbox.is_empty());
        outbox.close(End::Removed);
        assert_eq!(outbox.end(), Some(End::Slow), "the first reason stays");
    }

    #[test]
    fn a_frame_that_was_begun_is_ended_before_the_close_frame_of_a_slow_member() {
        let mut outbox = Outbox::new(10);
        outbox.push(bytes("1234"));
        outbox.push(bytes("5678"));
        assert_eq!(outbox.on_written(1), 0);
        outbox.push(bytes("9012"));
        assert_eq!(outbox.end(), Some(End::Slow));
        outbox.push_last(bytes("bye"));
        assert_eq!(outbox.unwritten().collect::<Vec<_>>().concat(), b"234bye");
        assert_eq!(outbox.on_written(6), 2);
        assert_eq!(outbox.queued_bytes(), 0);
    }

    #[test]
    fn a_single_frame_above_the_limit_still_goes_out() {
        let mut outbox = Outbox::new(4);
        assert_eq!(outbox.push(bytes("123456")), Pushed::Queued);
        assert_eq!(outbox.on_written(6), 1);
    }

    #[test]
    fn one_writes_at_a_time_and_whoever_finds_frames_without_a_writer_becomes_it() {
        let mut outbox = Outbox::new(100);
        assert!(!outbox.claim(), "nothing waits");
        outbox.push(bytes("12"));
        assert!(outbox.claim());
        outbox.push(bytes("34"));
        assert!(!outbox.claim(), "who claimed first writes this too");
        outbox.on_written(3);
        outbox.on_full();
        assert!(outbox.is_stalled());
        assert!(!outbox.claim(), "its own task writes when the socket takes more");
        outbox.on_written(1);
        assert!(!outbox.is_stalled());
        outbox.push(bytes("56"));
        assert!(outbox.claim());
    }

    #[test]
    fn a_broken_socket_gets_nothing_more() {
        let mut outbox = Outbox::new(100);
        outbox.push(bytes("12"));
        outbox.on_written(1);
        outbox.on_broken();
        assert_eq!(outbox.push(bytes("34")), Pushed::Refused);
        outbox.push_last(bytes("bye"));
        assert!(outbox.is_empty() && !outbox.claim());
    }

    proptest! {
        /// The socket takes any number of bytes at any time, and says now and then that it is full.
        #[test]
        fn the_queue_never_holds_more_than_its_limit_and_writes_every_byte_in_order(
            steps in prop::collection::vec((1usize..40, any::<bool>(), 0usize..60), 0..200)
        ) {
            let mut outbox = Outbox::new(100);
            let (mut expected, mut written) = (Vec::new(), Vec::new());
            for (index, (size, passing, taken)) in steps.into_iter().enumerate() {
                let frame = format!("{index:0size$}").into_bytes();
                let pushed = if passing { outbox.push_passing(frame.clone()) } else { outbox.push(frame.clone()) };
                if pushed == Pushed::Queued {
                    expected.extend_from_slice(&frame);
                }
                if outbox.end().is_some() {
                    break;
                }
                outbox.claim();
                let waiting = outbox.unwritten().collect::<Vec<_>>().concat();
                prop_assert_eq!(&expected[written.len()..], &waiting[..]);
                prop_assert!(outbox.queued_bytes() <= 100);
                let taken = taken.min(waiting.len());
                written.extend_from_slice(&waiting[..taken]);
                outbox.on_written(taken);
                if taken < waiting.len() {
                    outbox.on_full();
                }
                prop_assert_eq!(outbox.is_stalled(), taken < waiting.len());
                prop_assert_eq!(outbox.is_empty(), outbox.queued_bytes() == 0);
            }
            // After an end as slow only the rest of the frame that was begun follows.
            let rest = outbox.unwritten().collect::<Vec<_>>().concat();
            prop_assert!(expected[written.len()..].starts_with(&rest));
        }
    }
}
