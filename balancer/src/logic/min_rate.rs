//! `client_header_min_rate`, `client_body_min_rate`: for how long a client is waited for that sends slowly. What counts is
//! the time in which the client was waited for: while we hold it back, no time passes.

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes per second; not 0.
    pub per_second: u64,
    /// So long a client is waited for whatever it sends.
    pub after: Duration,
}

impl MinRate {
    /// How long in all a client may have been waited for that has sent so much: each byte earns its share of a second.
    pub fn patience(self, received_len: u64) -> Duration {
        let earned_ms = u128::from(received_len) * 1000 / u128::from(self.per_second);
        self.after.saturating_add(Duration::from_millis(u64::try_from(earned_ms).unwrap_or(u64::MAX)))
    }
}

/// How long a client has been waited for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waited {
    spent: Duration,
    /// It is waited for now.
    since: Option<Instant>,
}

impl Waited {
    /// It is waited for from now on, unless it is already.
    pub fn begin(&mut self, now: impl FnOnce() -> Instant) {
        self.since.get_or_insert_with(now);
    }

    /// Something came of it.
    pub fn end(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(since) = self.since.take() {
            self.spent += now().saturating_duration_since(since);
        }
    }

    /// Nobody knows until when it was waited for: that does not count.
    pub fn forget(&mut self) {
        self.since = None;
    }

    /// When the client will have been waited for too long, should nothing more come. `None`: it is not waited for.
    pub fn late_at(&self, rate: MinRate, received_len: u64) -> Option<Instant> {
        self.since?.checked_add(rate.patience(received_len).saturating_sub(self.spent))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const APACHES: MinRate = MinRate { per_second: 500, after: Duration::from_secs(20) };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn bytes_earn_time_and_waiting_spends_it() {
        let start = Instant::now();
        let mut waited = Waited::default();
        assert_eq!(waited.late_at(APACHES, 0), None);
        let at = |ms: u64| move || start + Duration::from_millis(ms);
        waited.begin(at(0));
        waited.begin(at(5_000));
        assert_eq!(waited.late_at(APACHES, 0), Some(start + ms(20_000)));
        assert_eq!(waited.late_at(APACHES, 1000), Some(start + ms(22_000)));
        // A byte has come after 16 seconds; the next has what is left.
        waited.end(at(16_000));
        assert_eq!(waited.late_at(APACHES, 1), None);
        waited.begin(at(100_000));
        assert_eq!(waited.late_at(APACHES, 1), Some(start + ms(104_002)));
        waited.forget();
        waited.begin(at(200_000));
        assert_eq!(waited.late_at(APACHES, 1), Some(start + ms(204_002)));
    }

    #[test]
    fn a_byte_in_a_minute_is_not_enough_for_long() {
        let mut now = Instant::now();
        let rate = MinRate { after: Duration::from_secs(60), ..APACHES };
        let mut waited = Waited::default();
        for received_len in 0..10 {
            waited.begin(|| now);
            let next = now + ms(59_000);
            if waited.late_at(rate, received_len).is_some_and(|late_at| late_at < next) {
                assert_eq!(received_len, 1);
                return;
            }
            now = next;
            waited.end(|| now);
        }
        panic!("waited for without end");
    }

    proptest! {
        /// Whatever we do between two waits: only they count, and what came in all.
        #[test]
        fn no_time_passes_while_a_client_is_held_back(
            steps in proptest::collection::vec((0u64..1 << 40, 0u64..100_000, 0u64..100_000), 1..40),
            per_second in 1u64..100_000, after in 0u64..100_000,
        ) {
            let rate = MinRate { per_second, after: ms(after) };
            let (mut now, mut waited) = (Instant::now(), Waited::default());
            let (mut spent, mut received_len) = (0, 0);
            for (held, wait, len) in steps {
                now += ms(held);
                prop_assert_eq!(waited.late_at(rate, received_len), None);
                waited.begin(|| now);
                let left = (after + received_len * 1000 / per_second).saturating_sub(spent);
                prop_assert_eq!(waited.late_at(rate, received_len), Some(now + ms(left)));
                now += ms(wait);
                waited.end(|| now);
                spent += wait;
                received_len += len;
            }
        }

        /// Pauses as long as `after` are no matter to who makes up for them.
        #[test]
        fn who_keeps_to_the_rate_is_never_late(
            steps in proptest::collection::vec((0u64..1000, 0u64..5000), 1..100), per_second in 1u64..100_000,
        ) {
            let rate = MinRate { per_second, after: ms(1000) };
            let (mut now, mut waited, mut received_len) = (Instant::now(), Waited::default(), 0);
            for (wait, more) in steps {
                waited.begin(|| now);
                now += ms(wait);
                prop_assert!(waited.late_at(rate, received_len) > Some(now));
                waited.end(|| now);
                received_len += (wait * per_second).div_ceil(1000) + more;
            }
        }

        /// Who sends less is let go of, and not before it has had `after`.
        #[test]
        fn who_sends_less_than_the_rate_is_late_in_the_end(
            wait in 100u64..10_000, per_second in 2u64..100_000, after in 0u64..100_000,
        ) {
            let rate = MinRate { per_second, after: ms(after) };
            let (mut now, mut waited, mut received_len) = (Instant::now(), Waited::default(), 0);
            let began = now;
            // Half of the rate, so twice `after` is too long for it, but for one wait.
            let len = wait * per_second / 2000;
            while now < began + ms(2 * after + 2 * wait + 2000) {
                waited.begin(|| now);
                now += ms(wait);
                if let Some(late_at) = waited.late_at(rate, received_len).filter(|late_at| *late_at < now) {
                    prop_assert!(late_at >= began + ms(after));
                    return Ok(());
                }
                waited.end(|| now);
                received_len += len;
            }
            prop_assert!(false, "never late");
        }

        #[test]
        fn no_number_is_too_large(per_second in 1u64.., received_len: u64, after: u64) {
            let rate = MinRate { per_second, after: ms(after) };
            let mut waited = Waited::default();
            waited.begin(Instant::now);
            let _ = waited.late_at(rate, received_len);
        }
    }
}
