//! When virtual users come. One model so far, the closed loop; an open one adds a variant here.

use std::time::Duration;

/// How work arrives at the stack under test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrival {
    /// A fixed crowd that grows at `spawn_per_s`; each user waits for its answer before it asks again.
    Closed { users: u32, spawn_per_s: f64 },
}

impl Arrival {
    /// How many users should be running `elapsed` after the start.
    pub fn users_at(&self, elapsed: Duration) -> u32 {
        let Self::Closed { users, spawn_per_s } = *self;
        // The first user comes at once: a rate of 0.1 must not start with ten silent seconds.
        let due = (elapsed.as_secs_f64() * spawn_per_s).floor() + 1.0;
        if due >= f64::from(users) { users } else { due as u32 }
    }

    /// When user `number` (from 0) is due.
    pub fn due(&self, number: u32) -> Duration {
        let Self::Closed { spawn_per_s, .. } = *self;
        Duration::try_from_secs_f64(f64::from(number) / spawn_per_s).unwrap_or(Duration::MAX)
    }

    pub fn users(&self) -> u32 {
        let Self::Closed { users, .. } = *self;
        users
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn users_come_at_the_spawn_rate_and_no_more_than_asked() {
        let arrival = Arrival::Closed { users: 100, spawn_per_s: 10.0 };
        assert_eq!(arrival.users_at(Duration::ZERO), 1);
        assert_eq!(arrival.users_at(Duration::from_secs(5)), 51);
        assert_eq!(arrival.users_at(Duration::from_secs(60)), 100);
    }

    proptest! {
        #[test]
        fn a_user_is_running_once_due(users in 1u32..5000, number in 0u32..5000, rate in 0.1f64..1000.0) {
            let arrival = Arrival::Closed { users, spawn_per_s: rate };
            // A nanosecond for the rounding of the division.
            let after = arrival.due(number) + Duration::from_micros(1);
            prop_assert!(arrival.users_at(after) >= (number + 1).min(users));
        }
    }
}
