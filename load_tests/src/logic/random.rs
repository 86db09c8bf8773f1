//! A small seeded sequence of numbers, so that a run can be repeated with `--seed`. Not for secrets.

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and three mixes a number, any seed is a good one.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The sequence of one virtual user: equal seeds and numbers give equal sequences.
    pub fn of_user(seed: u64, number: u32) -> Self {
        let mut mixed = Self::new(seed ^ (u64::from(number) << 32 | u64::from(number)));
        Self::new(mixed.next_u64())
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..limit`; 0 for a limit of 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The high half of a 128-bit product: even enough for task choice, and no division.
        ((u128::from(self.next_u64()) * u128::from(limit)) >> 64) as u64
    }

    /// One of the choices, by weight. The weights must not all be zero.
    pub fn pick<T: Copy>(&mut self, choices: &[(T, u32)]) -> T {
        let sum: u64 = choices.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut at = self.below(sum);
        for (choice, weight) in choices {
            if at < u64::from(*weight) {
                return *choice;
            }
            at -= u64::from(*weight);
        }
        choices[0].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_seeds_give_equal_sequences_and_users_differ() {
        let take = |mut random: Random| (0..8).map(|_| random.next_u64()).collect::<Vec<_>>();
        assert_eq!(take(Random::of_user(7, 1)), take(Random::of_user(7, 1)));
        assert_ne!(take(Random::of_user(7, 1)), take(Random::of_user(7, 2)));
    }

    #[test]
    fn choices_come_by_weight() {
        let mut random = Random::new(1);
        let picked = (0..10_000).filter(|_| random.pick(&[('a', 3), ('b', 1), ('c', 0)]) == 'a').count();
        assert!((7200..7800).contains(&picked), "{picked}");
    }

    proptest! {
        #[test]
        fn below_stays_below(seed: u64, limit in 1u64..) {
            prop_assert!(Random::new(seed).below(limit) < limit);
        }
    }
}
