//! How long a full socket may take for what waited when it became full. The queue and the socket: see `chat/socket.rs`.

use std::time::{Duration, Instant};

/// A socket that does not take within this time what waited at its beginning is gone or too slow.
pub const STALL_MAX: Duration = Duration::from_secs(20);

/// A socket that is full. No frame waits for longer than twice [`STALL_MAX`], however many come behind it.
#[derive(Debug, Clone)]
pub struct Stall {
    until: Instant,
    /// Frames that must have left by then.
    owed: usize,
}

impl Stall {
    /// The socket takes no more, and `waiting` frames wait for it.
    pub fn new(waiting: usize, now: Instant) -> Self {
        Self { until: now + STALL_MAX, owed: waiting }
    }

    /// So many frames have left, and `waiting` wait now.
    pub fn on_written(&mut self, finished: usize, waiting: usize, now: Instant) {
        self.owed = self.owed.saturating_sub(finished);
        if self.owed == 0 {
            *self = Self::new(waiting, now);
        }
    }

    /// Too slow from then on.
    pub fn until(&self) -> Instant {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn frames_that_come_behind_do_not_put_the_end_off() {
        let start = Instant::now();
        let mut stall = Stall::new(3, start);
        stall.on_written(1, 3, start + 10 * S);
        stall.on_written(1, 4, start + 19 * S);
        assert_eq!(stall.until(), start + 20 * S, "the third of those that waited is still here");
    }

    #[test]
    fn a_socket_that_took_what_waited_gets_the_same_time_for_what_waits_now() {
        let start = Instant::now();
        let mut stall = Stall::new(2, start);
        stall.on_written(3, 5, start + 15 * S);
        assert_eq!(stall.until(), start + 35 * S);
        stall.on_written(4, 9, start + 30 * S);
        assert_eq!(stall.until(), start + 35 * S);
    }
}
