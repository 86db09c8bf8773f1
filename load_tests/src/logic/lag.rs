//! The lag that a standby really had whenever a write was made, as far as the positions of its log prove it. A trial over
//! standbys that lag shows nothing where they do not.

use std::time::Duration;

/// A standby that was to be given up to `wanted` lags when it does by at least this part of it: without being told to, it
/// is behind for a moment only.
const LAGGING_PART: u32 = 10;
/// At so many of a hundred writes it must lag, and once for this part of `wanted`.
const LAGGING_PERCENT: f64 = 50.0;
const LONGEST_PART: u32 = 2;

/// One standby's lag over the writes of a trial.
#[derive(Debug, Clone, Copy)]
pub struct Lag {
    wanted: Duration,
    writes: u32,
    lagging: u32,
    longest: Duration,
    sum: Duration,
}

impl Lag {
    /// Of a standby that is given a lag that changes, up to `wanted`.
    pub fn of_up_to(wanted: Duration) -> Self {
        Self { wanted, writes: 0, lagging: 0, longest: Duration::ZERO, sum: Duration::ZERO }
    }

    /// A write was made while the standby was behind by at least `lag`.
    pub fn on_write(&mut self, lag: Duration) {
        self.writes += 1;
        self.lagging += u32::from(lag >= self.wanted / LAGGING_PART);
        self.longest = self.longest.max(lag);
        self.sum += lag;
    }

    /// Why this was not the lag that was wanted; nothing is wanted of a standby that was left alone.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.wanted.is_zero() {
            return faults;
        }
        if self.writes == 0 {
            faults.push("told no position at any write".to_owned());
        } else if self.lagging_percent() < LAGGING_PERCENT {
            faults.push(format!("{self}: less than {LAGGING_PERCENT} % of them"));
        }
        if self.longest < self.wanted / LONGEST_PART {
            faults.push(format!("{self}: it was to lag up to {} ms", self.wanted.as_millis()));
        }
        faults
    }

    fn lagging_percent(&self) -> f64 {
        100.0 * f64::from(self.lagging) / f64::from(self.writes.max(1))
    }
}

impl std::fmt::Display for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "behind by {} ms and more at {:.1} % of {} writes, by {} ms on average and {} ms at most",
            (self.wanted / LAGGING_PART).as_millis(),
            self.lagging_percent(),
            self.writes,
            (self.sum / self.writes.max(1)).as_millis(),
            self.longest.as_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WANTED: Duration = Duration::from_secs(2);

    fn lag(of_ms: impl IntoIterator<Item = u64>) -> Lag {
        let mut lag = Lag::of_up_to(WANTED);
        for ms in of_ms {
            lag.on_write(Duration::from_millis(ms));
        }
        lag
    }

    #[test]
    fn a_standby_that_lags_now_more_and_now_less_has_no_faults() {
        let lag = lag([2000, 1500, 700, 200, 20]);
        assert_eq!(lag.faults(), Vec::<String>::new());
        assert_eq!(
            lag.to_string(),
            "behind by 200 ms and more at 80.0 % of 5 writes, by 884 ms on average and 2000 ms at most"
        );
    }

    #[test]
    fn a_standby_that_was_given_no_lag_is_told() {
        assert_eq!(lag([0; 100]).faults().len(), 2);
        assert_eq!(lag([15; 100]).faults().len(), 2, "the usual delay of replication is none");
        assert_eq!(lag([300; 100]).faults().len(), 1, "never as much as was wanted");
        assert_eq!(lag([2000, 2000, 0, 0, 0]).faults().len(), 1, "too rarely");
        assert_eq!(lag([]).faults().len(), 2, "nobody knows");
    }

    #[test]
    fn nothing_is_wanted_of_a_standby_that_is_left_alone() {
        let mut lag = Lag::of_up_to(Duration::ZERO);
        assert_eq!(lag.faults(), Vec::<String>::new());
        lag.on_write(Duration::ZERO);
        assert_eq!(lag.faults(), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn who_lags_at_fewer_than_half_of_the_writes_never_passes(
            lagging in proptest::collection::vec(200u64..2000, 0..50), more in 1usize..50,
        ) {
            let not_lagging = std::iter::repeat_n(0, lagging.len() + more);
            prop_assert!(!lag(lagging.into_iter().chain(not_lagging)).faults().is_empty());
        }
    }
}
