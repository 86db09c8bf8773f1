//! When a WebSocket must be pinged, when its silence means that it is gone, and when its token runs out.

use std::time::{Duration, Instant};

use crate::logic::outbox::End;

/// The clockwork of one connection. It is looked at when [`Keepalive::wake_at`] says so; hearing something costs
/// one store, not a timer.
#[derive(Debug, Clone)]
pub struct Keepalive {
    ping_period: Duration,
    pong_wait: Duration,
    token_expires: Instant,
    next_ping: Instant,
    /// Set while a ping is unanswered.
    pong_due: Option<Instant>,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Nothing,
    Ping,
    Close(End),
}

impl Keepalive {
    pub fn new(ping_period: Duration, pong_wait: Duration, token_expires: Instant, now: Instant) -> Self {
        Self { ping_period, pong_wait, token_expires, next_ping: now + ping_period, pong_due: None }
    }

    /// Anything that the client sends shows that it lives.
    pub fn on_heard(&mut self) {
        self.pong_due = None;
    }

    /// Nothing was read up to now, so that silence says nothing: what has not come yet may lie unread.
    pub fn on_deaf(&mut self, now: Instant) {
        if let Some(due) = &mut self.pong_due {
            *due = now + self.pong_wait;
        }
    }

    pub fn on_token(&mut self, expires: Instant) {
        self.token_expires = expires;
    }

    pub fn token_expires(&self) -> Instant {
        self.token_expires
    }

    /// The next time at which something may be due.
    pub fn wake_at(&self) -> Instant {
        self.pong_due.unwrap_or(self.next_ping).min(self.next_ping).min(self.token_expires)
    }

    pub fn on_wake(&mut self, now: Instant) -> Due {
        if now >= self.token_expires {
            return Due::Close(End::TokenExpired);
        }
        if self.pong_due.is_some_and(|due| now >= due) {
            return Due::Close(End::Silent);
        }
        if now >= self.next_ping {
            self.next_ping = now + self.ping_period;
            // The oldest unanswered ping counts: later ones must not put its end off.
            self.pong_due.get_or_insert(now + self.pong_wait);
            return Due::Ping;
        }
        Due::Nothing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn fresh(now: Instant) -> Keepalive {
        Keepalive::new(25 * S, 8 * S, now + 900 * S, now)
    }

    #[test]
    fn silence_after_a_ping_closes_and_any_word_keeps_open() {
        let start = Instant::now();
        let mut keepalive = fresh(start);
        assert_eq!(keepalive.on_wake(start + 24 * S), Due::Nothing);
        assert_eq!(keepalive.on_wake(start + 25 * S), Due::Ping);
        assert_eq!(keepalive.wake_at(), start + 33 * S);
        keepalive.on_heard();
        assert_eq!(keepalive.on_wake(start + 33 * S), Due::Nothing);
        assert_eq!(keepalive.on_wake(start + 50 * S), Due::Ping);
        assert_eq!(keepalive.on_wake(start + 58 * S), Due::Close(End::Silent));
    }

    #[test]
    fn pings_that_come_faster_than_the_wait_do_not_put_the_end_off() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(S, 3 * S, start + 900 * S, start);
        for second in 1..=3 {
            assert_eq!(keepalive.on_wake(start + second * S), Due::Ping);
        }
        assert_eq!(keepalive.on_wake(start + 4 * S), Due::Close(End::Silent));
    }

    #[test]
    fn silence_counts_from_when_frames_are_read_again() {
        let start = Instant::now();
        let mut keepalive = fresh(start);
        assert_eq!(keepalive.on_wake(start + 25 * S), Due::Ping);
        keepalive.on_deaf(start + 33 * S);
        assert_eq!(keepalive.on_wake(start + 33 * S), Due::Nothing);
        keepalive.on_deaf(start + 36 * S);
        assert_eq!(keepalive.wake_at(), start + 44 * S);
        assert_eq!(keepalive.on_wake(start + 44 * S), Due::Close(End::Silent));
        let mut unasked = fresh(start);
        unasked.on_deaf(start + 10 * S);
        assert_eq!(unasked.wake_at(), start + 25 * S, "no ping is unanswered");
    }

    #[test]
    fn an_expired_token_closes_unless_it_was_refreshed() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(25 * S, 8 * S, start + 10 * S, start);
        assert_eq!(keepalive.wake_at(), start + 10 * S);
        keepalive.on_token(start + 20 * S);
        assert_eq!(keepalive.on_wake(start + 10 * S), Due::Nothing);
        assert_eq!(keepalive.on_wake(start + 20 * S), Due::Close(End::TokenExpired));
    }

    proptest! {
        /// Steps through the wake-ups of a long connection; `answers` says after how long each ping is answered.
        #[test]
        fn who_answers_in_time_stays_and_who_does_not_is_closed_in_time(
            answers in prop::collection::vec(prop::option::weighted(0.9, 0u64..8_000), 1..40)
        ) {
            let start = Instant::now();
            let mut keepalive = Keepalive::new(25 * S, 8 * S, start + 100_000 * S, start);
            for answer in answers {
                let pinged = keepalive.wake_at();
                prop_assert_eq!(keepalive.on_wake(pinged), Due::Ping);
                let due = keepalive.wake_at();
                prop_assert_eq!(due, pinged + 8 * S);
                if let Some(after_ms) = answer {
                    prop_assert_eq!(keepalive.on_wake(pinged + Duration::from_millis(after_ms)), Due::Nothing);
                    keepalive.on_heard();
                    prop_assert_eq!(keepalive.on_wake(due), Due::Nothing);
                } else {
                    prop_assert_eq!(keepalive.on_wake(due), Due::Close(End::Silent));
                    return Ok(());
                }
            }
        }
    }
}
