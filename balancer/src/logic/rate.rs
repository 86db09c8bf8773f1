//! `limit_rate`, `proxy_limit_rate`: how much may be moved now, and how long to wait. Counts whole seconds, as nginx does.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes per second; not 0.
    pub per_second: u64,
    /// So many bytes come at full speed first.
    pub after: u64,
}

impl Rate {
    /// How many bytes may be moved, `moved` having been in `seconds` since the start; else how long to wait.
    pub fn allowed(self, seconds: u64, moved: u64) -> Result<usize, Duration> {
        let earned = i128::from(self.per_second) * (i128::from(seconds) + 1) + i128::from(self.after);
        match earned - i128::from(moved) {
            left @ 1.. => Ok(usize::try_from(left).unwrap_or(usize::MAX)),
            owed => Err(Duration::from_millis(
                u64::try_from(-owed * 1000 / i128::from(self.per_second) + 1).unwrap_or(u64::MAX),
            )),
        }
    }

    /// The pause behind bytes that were just moved.
    pub fn pause(self, before: u64, moved: u64) -> Duration {
        let counted = |total: u64| total.saturating_sub(self.after);
        let bytes = counted(before + moved) - counted(before);
        Duration::from_millis(bytes.saturating_mul(1000) / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_second_is_earned_at_once_and_what_is_owed_is_waited_for() {
        let rate = Rate { per_second: 1000, after: 500 };
        assert_eq!(rate.allowed(0, 0), Ok(1500));
        assert_eq!(rate.allowed(0, 1499), Ok(1));
        assert_eq!(rate.allowed(0, 1500), Err(Duration::from_millis(1)));
        assert_eq!(rate.allowed(0, 3500), Err(Duration::from_millis(2001)));
        assert_eq!(rate.pause(0, 1500), Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_over_any_time(
            per_second in 1u64..1 << 40, after in 0u64..1 << 40, seconds in 0u64..1 << 20, moved in 0u64..1 << 50,
        ) {
            let rate = Rate { per_second, after };
            match rate.allowed(seconds, moved) {
                Ok(more) => prop_assert!(u128::from(moved) + more as u128 <= u128::from(per_second) * u128::from(seconds + 1) + u128::from(after)),
                Err(wait) => prop_assert!(!wait.is_zero()),
            }
            let _ = rate.pause(moved, per_second);
        }
    }
}
