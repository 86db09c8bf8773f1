//! When a child that died is started again, and when the start of the whole stack is given up.

use std::time::Duration;

/// The first wait after a death; doubled by each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// No longer wait than this: an operator who mends the cause sees the part come back soon.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A child that lived this long is taken as sound: its next death begins at the first wait again.
const SOUND_AFTER: Duration = Duration::from_secs(60);
/// A part that dies this often before it was ever healthy will not become so by trying again.
const START_TRIES: u32 = 3;

/// What to do about a child that ended without being told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    StartAgainAfter(Duration),
    /// It never was healthy and died every time: the start has failed.
    GiveUp,
}

/// The history of one part's deaths.
#[derive(Debug, Clone, Default)]
pub struct Restarts {
    in_a_row: u32,
    total: u32,
    was_healthy: bool,
}

impl Restarts {
    pub fn on_healthy(&mut self) {
        self.was_healthy = true;
    }

    /// The child ended by itself after living for `lived`.
    pub fn on_death(&mut self, lived: Duration) -> Verdict {
        if lived >= SOUND_AFTER {
            self.in_a_row = 0;
        }
        self.in_a_row += 1;
        self.total += 1;
        if !self.was_healthy && self.in_a_row >= START_TRIES {
            return Verdict::GiveUp;
        }
        let doublings = (self.in_a_row - 1).min(16);
        Verdict::StartAgainAfter(FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT))
    }

    /// How often the part was started again after a death.
    pub fn total(&self) -> u32 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn the_wait_doubles_until_its_bound() {
        let mut restarts = Restarts::default();
        restarts.on_healthy();
        let waits: Vec<Verdict> = (0..12).map(|_| restarts.on_death(SHORT)).collect();
        assert_eq!(waits[0], Verdict::StartAgainAfter(Duration::from_millis(200)));
        assert_eq!(waits[1], Verdict::StartAgainAfter(Duration::from_millis(400)));
        assert_eq!(waits[11], Verdict::StartAgainAfter(LONGEST_WAIT));
    }

    #[test]
    fn a_part_that_never_was_healthy_is_given_up() {
        let mut restarts = Restarts::default();
        assert!(matches!(restarts.on_death(SHORT), Verdict::StartAgainAfter(_)));
        assert!(matches!(restarts.on_death(SHORT), Verdict::StartAgainAfter(_)));
        assert_eq!(restarts.on_death(SHORT), Verdict::GiveUp);
    }

    proptest! {
        #[test]
        fn a_part_that_was_healthy_is_never_given_up(lives in proptest::collection::vec(0u64..200, 0..60)) {
            let mut restarts = Restarts::default();
            restarts.on_healthy();
            for seconds in &lives {
                let verdict = restarts.on_death(Duration::from_secs(*seconds));
                let Verdict::StartAgainAfter(wait) = verdict else { panic!("given up") };
                prop_assert!(wait >= FIRST_WAIT && wait <= LONGEST_WAIT);
                if Duration::from_secs(*seconds) >= SOUND_AFTER {
                    prop_assert_eq!(wait, FIRST_WAIT);
                }
            }
            prop_assert_eq!(restarts.total() as usize, lives.len());
        }
    }
}
