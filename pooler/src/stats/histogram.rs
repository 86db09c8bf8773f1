//! How long things took: counts per power of two, cheap enough to be kept for each query.

use std::time::Duration;

use super::Counter;
use crate::admin::facts::Durations;

/// The first bucket ends at 2^6 = 64 µs, each one after it at twice that, the last but one at 67 s.
const FIRST_BITS: u32 = 6;

pub const BUCKETS: usize = 22;

/// Written by one thread, read by any, as a `Counter` is.
#[derive(Default)]
pub struct Histogram {
    counts: [Counter; BUCKETS],
    micros: Counter,
}

impl Histogram {
    #[inline]
    pub fn add(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        self.counts[bucket(micros)].add(1);
        self.micros.add(micros);
    }

    pub fn micros(&self) -> u64 {
        self.micros.get()
    }

    /// Adds what was counted here to `sum`.
    pub fn add_to(&self, sum: &mut Durations) {
        for (total, count) in sum.counts.iter_mut().zip(&self.counts) {
            *total += count.get();
        }
        sum.micros += self.micros.get();
    }
}

/// The first bucket whose end is not below: one instruction finds it.
#[inline]
fn bucket(micros: u64) -> usize {
    let bits = u64::BITS - micros.saturating_sub(1).leading_zeros();
    (bits.saturating_sub(FIRST_BITS) as usize).min(BUCKETS - 1)
}

/// Where a bucket ends, in seconds; the last one has no end.
pub fn end_seconds(bucket: usize) -> Option<f64> {
    (bucket + 1 < BUCKETS).then(|| (1_u64 << (FIRST_BITS as usize + bucket)) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_is_counted_in_the_first_bucket_that_holds_it() {
        for (micros, wanted) in
            [(0, 0), (64, 0), (65, 1), (128, 1), (129, 2), (1_000_000, 14), (u64::MAX, 21)]
        {
            assert_eq!(bucket(micros), wanted, "{micros}");
        }
    }

    proptest! {
        #[test]
        fn a_bucket_ends_above_its_times_and_the_one_before_it_does_not(micros in any::<u32>()) {
            let micros = u64::from(micros);
            let (seconds, bucket) = (micros as f64 / 1e6, bucket(micros));
            prop_assert!(end_seconds(bucket).is_none_or(|end| seconds <= end));
            prop_assert!(bucket == 0 || end_seconds(bucket - 1).is_some_and(|end| seconds > end));
        }

        #[test]
        fn nothing_is_lost(times in prop::collection::vec(any::<u32>(), 0..50)) {
            let histogram = Histogram::default();
            for micros in &times {
                histogram.add(Duration::from_micros(u64::from(*micros)));
            }
            let mut sum = Durations::default();
            histogram.add_to(&mut sum);
            prop_assert_eq!(sum.counts.iter().sum::<u64>(), times.len() as u64);
            prop_assert_eq!(sum.micros, times.iter().map(|m| u64::from(*m)).sum::<u64>());
        }
    }
}
