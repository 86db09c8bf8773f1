//! How often somebody may do something, as GCRA: one time per somebody, no timer. Where it is kept: see limits.rs.

use std::time::{Duration, Instant};

/// A rate with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time that one takes to grow again.
    pub step: Duration,
    /// The time that the whole burst takes.
    pub span: Duration,
}

/// How much a client has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub remaining: u64,
    /// Until the whole burst is there again.
    pub whole_in: Duration,
}

impl Rate {
    /// `per_s` in the long run, `burst` at once.
    pub fn new(per_s: u32, burst: u32) -> Self {
        let step = Duration::from_secs(1) / per_s.max(1);
        Self { step, span: step * burst.max(1) }
    }

    /// What is left of the burst when it will be whole `whole_in` from now.
    pub fn standing(self, whole_in: Duration) -> Standing {
        let left = self.span.saturating_sub(whole_in).as_nanos() / self.step.as_nanos().max(1);
        Standing { remaining: u64::try_from(left).unwrap_or(u64::MAX), whole_in }
    }

    /// How many may come at once.
    pub fn burst(self) -> u64 {
        self.standing(Duration::ZERO).remaining
    }

    /// One more at `now`, after a time at which the burst would have been whole again. Gives that time anew, or how long
    /// to wait.
    pub fn admit(self, full_at: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        let next = full_at.map_or(now, |full_at| full_at.max(now)) + self.step;
        match next.duration_since(now).checked_sub(self.span) {
            None | Some(Duration::ZERO) => Ok(next),
            Some(excess) => Err(excess),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_per_step() {
        let (rate, now) = (Rate::new(10, 3), Instant::now());
        let mut full_at = None;
        for _ in 0..3 {
            full_at = Some(rate.admit(full_at, now).unwrap());
        }
        assert_eq!(rate.admit(full_at, now), Err(Duration::from_millis(100)));
        assert!(rate.admit(full_at, now + Duration::from_millis(100)).is_ok());
    }

    #[test]
    fn a_standing_counts_what_may_still_come_at_once() {
        let (rate, now) = (Rate::new(10, 3), Instant::now());
        let mut full_at = None;
        for left in [2, 1, 0] {
            full_at = Some(rate.admit(full_at, now).unwrap());
            assert_eq!(rate.standing(full_at.unwrap() - now).remaining, left);
        }
        assert_eq!(rate.burst(), 3);
        assert_eq!(rate.standing(Duration::from_secs(9)).remaining, 0, "a debt is nothing left");
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_and_a_wait_that_is_kept_is_enough(
            per_s in 1u32..200, burst in 1u32..50, pauses_ms in prop::collection::vec(0u64..300, 1..200),
        ) {
            let (rate, start) = (Rate::new(per_s, burst), Instant::now());
            let (mut full_at, mut now, mut admitted) = (None, start, 0u32);
            for pause in pauses_ms {
                now += Duration::from_millis(pause);
                match rate.admit(full_at, now) {
                    Ok(next) => {
                        full_at = Some(next);
                        admitted += 1;
                    }
                    Err(wait) => prop_assert!(rate.admit(full_at, now + wait).is_ok()),
                }
                let earned = (now - start).as_secs_f64() * f64::from(per_s);
                prop_assert!(f64::from(admitted) <= earned + f64::from(burst) + 0.001);
            }
        }
    }
}
