//! When to try a unit of work again: soon, then ever later, until its time is over. Waiting is the caller's.

use std::time::Duration;

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The tries of one unit of work.
#[derive(Debug)]
pub struct Retry {
    patience: Duration,
    pause: Duration,
}

impl Retry {
    /// `patience`: no try begins later than this after the first.
    pub fn new(patience: Duration) -> Self {
        Self { patience, pause: PAUSE_MIN }
    }

    /// The pause before the next try, after one that failed when `elapsed` had gone by; `None`: give up.
    pub fn next_pause(&mut self, may_pass: bool, elapsed: Duration) -> Option<Duration> {
        let pause = self.pause;
        if !may_pass || elapsed + pause > self.patience {
            return None;
        }
        self.pause = (pause * 2).min(PAUSE_MAX);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_will_not_pass_is_not_tried_again() {
        assert_eq!(Retry::new(Duration::from_secs(10)).next_pause(false, Duration::ZERO), None);
    }

    #[test]
    fn without_patience_there_is_one_try() {
        assert_eq!(Retry::new(Duration::ZERO).next_pause(true, Duration::ZERO), None);
    }

    proptest! {
        #[test]
        fn tries_come_ever_later_and_end_with_the_patience(
            patience_ms in 0u64..20_000, tries_ms in prop::collection::vec(0u64..700, 200),
        ) {
            let patience = Duration::from_millis(patience_ms);
            let mut retry = Retry::new(patience);
            let (mut elapsed, mut before) = (Duration::ZERO, Duration::ZERO);
            for took in tries_ms {
                elapsed += Duration::from_millis(took);
                let Some(pause) = retry.next_pause(true, elapsed) else { break };
                prop_assert!(pause >= before && pause <= PAUSE_MAX);
                before = pause;
                elapsed += pause;
                prop_assert!(elapsed <= patience);
            }
            prop_assert!(retry.next_pause(true, patience + Duration::from_millis(1)).is_none());
        }
    }
}
