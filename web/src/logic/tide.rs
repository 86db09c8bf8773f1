//! Where the primary's log stood when, so that a standby's lag can be told in time and without comparing clocks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::logic::watermark::Lsn;

/// Closer positions are one: lag is told to this grain.
const GRAIN: Duration = Duration::from_millis(20);
/// Positions that are remembered: at the usual grain of a watch some minutes, at the finest 20 s.
const MARKS_MAX: usize = 1024;

/// The primary's positions over time, oldest first.
#[derive(Debug, Default)]
pub struct Tide {
    marks: VecDeque<(Instant, Lsn)>,
}

impl Tide {
    /// Takes in where the primary stood at `at`.
    pub fn on_mark(&mut self, at: Instant, lsn: Lsn) {
        if let Some(&(last_at, last)) = self.marks.back() {
            if lsn < last {
                // Another timeline: the old positions say nothing any more.
                self.marks.clear();
            } else if lsn == last || at.saturating_duration_since(last_at) < GRAIN {
                return;
            }
        }
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back((at, lsn));
    }

    /// How long a standby that has replayed up to `replayed` lags, at least: the primary was further this long ago.
    pub fn lag(&self, replayed: Lsn, now: Instant) -> Duration {
        let beyond = self.marks.partition_point(|(_, lsn)| *lsn <= replayed);
        self.marks.get(beyond).map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lag_is_the_age_of_the_first_position_that_the_standby_lacks() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut tide = Tide::default();
        assert_eq!(tide.lag(Lsn(0), at(5)), Duration::ZERO, "nothing is known");
        tide.on_mark(at(0), Lsn(10));
        tide.on_mark(at(100), Lsn(20));
        tide.on_mark(at(900), Lsn(20));
        assert_eq!(tide.lag(Lsn(20), at(1000)), Duration::ZERO);
        assert_eq!(tide.lag(Lsn(19), at(1000)), Duration::from_millis(900));
        assert_eq!(tide.lag(Lsn(9), at(1000)), Duration::from_millis(1000));
        tide.on_mark(at(1100), Lsn(5));
        assert_eq!(tide.lag(Lsn(5), at(1200)), Duration::ZERO, "another timeline begins");
    }

    proptest! {
        #[test]
        fn lag_is_never_told_longer_than_it_is(
            steps in prop::collection::vec((1u64..200, 0u64..10), 1..2000), back in 0usize..2000,
        ) {
            let start = Instant::now();
            let (mut tide, mut now, mut lsn) = (Tide::default(), start, 0);
            let mut history = Vec::new();
            for (ms, bytes) in steps {
                now += Duration::from_millis(ms);
                lsn += bytes;
                tide.on_mark(now, Lsn(lsn));
                history.push((now, lsn));
            }
            let replayed = history[history.len().saturating_sub(back + 1)].1;
            let real = history.iter().find(|(_, lsn)| *lsn > replayed).map_or(Duration::ZERO, |(at, _)| now - *at);
            let told = tide.lag(Lsn(replayed), now);
            prop_assert!(told <= real, "told {:?}, real {:?}", told, real);
            prop_assert!(tide.marks.len() <= MARKS_MAX);
        }
    }
}
