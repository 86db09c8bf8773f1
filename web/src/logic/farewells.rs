//! When each socket of a replica that goes away is closed, and when its client is asked to come back: clients that came
//! back all at once would drown their new replica. The close itself: see `chat.rs`.

use std::time::Duration;

/// A few sockets need not wait for the whole drain.
const STEP_MAX: Duration = Duration::from_millis(50);
/// The first moment at which a client is asked to come back, and the time over which the others follow.
const RETURN_FIRST_MS: u64 = 50;
const RETURN_SPREAD_MS: u64 = 1000;
/// Prime to 1000: neighbours come back at different times, and no moment is used twice before all are.
const RETURN_STRIDE: u64 = 197;

/// What is said to one of the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Farewell {
    /// So long after the drain began.
    pub after: Duration,
    pub retry_after_ms: u64,
}

/// The farewells to `count` sockets of a drain that takes `over`, in their order. The last quarter of the time is left
/// for clients that are slow to answer.
pub fn schedule(count: usize, over: Duration) -> impl Iterator<Item = Farewell> {
    let divisor = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let step = (over * 3 / 4 / divisor).min(STEP_MAX);
    let farewell = move |index| Farewell {
        after: step.saturating_mul(index),
        retry_after_ms: RETURN_FIRST_MS + u64::from(index) * RETURN_STRIDE % RETURN_SPREAD_MS,
    };
    (0..u32::MAX).map(farewell).take(count)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_few_sockets_go_soon_and_nobody_at_all_is_no_trouble() {
        let farewells: Vec<Farewell> = schedule(3, Duration::from_secs(20)).collect();
        assert_eq!(farewells[2], Farewell { after: STEP_MAX * 2, retry_after_ms: 444 });
        assert_eq!(schedule(0, Duration::from_secs(20)).count(), 0);
        assert!(schedule(3, Duration::ZERO).all(|farewell| farewell.after.is_zero()));
    }

    proptest! {
        #[test]
        fn closes_come_one_after_the_other_at_equal_distances_within_three_quarters_of_the_drain(
            count in 2usize..5000, over_ms in 1u64..120_000,
        ) {
            let over = Duration::from_millis(over_ms);
            let afters: Vec<Duration> = schedule(count, over).map(|farewell| farewell.after).collect();
            prop_assert_eq!(afters.len(), count);
            let step = afters[1] - afters[0];
            prop_assert!(!step.is_zero() && step <= STEP_MAX);
            prop_assert!(afters.windows(2).all(|pair| pair[1] - pair[0] == step));
            prop_assert!(afters[count - 1] <= over * 3 / 4);
            // Nothing of the time is wasted unless the sockets are few.
            prop_assert!(step == STEP_MAX || step * count as u32 + Duration::from_millis(1) > over * 3 / 4);
        }

        #[test]
        fn clients_are_asked_back_at_moments_that_are_used_evenly(count in 1usize..5000) {
            let mut clients: BTreeMap<u64, usize> = BTreeMap::new();
            for farewell in schedule(count, Duration::from_secs(20)) {
                *clients.entry(farewell.retry_after_ms).or_default() += 1;
            }
            prop_assert!(clients.keys().all(|ms| (50..1050).contains(ms)));
            prop_assert_eq!(clients.len(), count.min(1000), "no moment twice before all are used");
            let most = clients.values().max().copied().unwrap_or_default();
            prop_assert_eq!(most, count.div_ceil(1000));
        }

        #[test]
        fn who_is_closed_together_comes_back_apart(count in 2usize..5000) {
            let moments: Vec<u64> =
                schedule(count, Duration::from_secs(20)).map(|farewell| farewell.retry_after_ms).collect();
            prop_assert!(moments.windows(2).all(|pair| pair[0].abs_diff(pair[1]) >= 197));
        }
    }
}
