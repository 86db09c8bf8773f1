//! Where the logs of primary and standbys were at which moment: tells whether a standby could have answered a read.

use std::time::Duration;

/// Positions of one server's log, sampled in time.
#[derive(Debug, Clone, Default)]
pub struct Track {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    asked: Duration,
    answered: Duration,
    position: u64,
}

impl Track {
    /// A position that was asked for and told between these moments; samples come in order.
    pub fn on_sample(&mut self, asked: Duration, answered: Duration, position: u64) {
        self.samples.push(Sample { asked, answered, position });
    }

    /// A position that the log surely had passed the write at: asked for after the write was answered.
    pub fn bound_of_write(&self, answered: Duration) -> Option<u64> {
        let at = self.samples.partition_point(|sample| sample.asked < answered);
        self.samples.get(at).map(|sample| sample.position)
    }

    /// The position that the server surely had when a read began.
    fn before(&self, began: Duration) -> Option<Sample> {
        let at = self.samples.partition_point(|sample| sample.answered <= began);
        at.checked_sub(1).map(|at| self.samples[at])
    }

    /// A position that the server surely had reached at a moment.
    pub fn reached(&self, at: Duration) -> Option<u64> {
        self.before(at).map(|sample| sample.position)
    }

    /// The first position that was asked for at a moment or not long after it.
    fn after(&self, at: Duration, fresh: Duration) -> Option<Sample> {
        let next = self.samples.partition_point(|sample| sample.asked < at);
        self.samples.get(next).copied().filter(|sample| sample.asked.saturating_sub(at) <= fresh)
    }

    /// Whether the server surely lacked all from `floor` on at a moment: asked not long after it, it still did.
    pub fn lacked(&self, floor: u64, at: Duration, fresh: Duration) -> bool {
        self.after(at, fresh).is_some_and(|sample| sample.position < floor)
    }

    /// How long the server surely had been behind `primary` when it was asked at a moment or not long after it; `None`
    /// where it was not asked.
    pub fn lag(&self, primary: &Self, at: Duration, fresh: Duration) -> Option<Duration> {
        let here = self.after(at, fresh)?;
        let past = primary.samples.partition_point(|sample| sample.position <= here.position);
        let since = primary.samples.get(past).map(|sample| sample.answered);
        Some(since.map_or(Duration::ZERO, |since| here.asked.saturating_sub(since)))
    }

    /// Whether the server, asked not long before, had what `bound` names when a read began.
    pub fn had(&self, bound: u64, began: Duration, fresh: Duration) -> bool {
        self.before(began)
            .is_some_and(|sample| sample.position >= bound && began.saturating_sub(sample.answered) <= fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRESH: Duration = Duration::from_millis(100);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn track(samples: &[(u64, u64)]) -> Track {
        let mut track = Track::default();
        for (at, position) in samples {
            track.on_sample(ms(*at), ms(at + 2), *position);
        }
        track
    }

    #[test]
    fn a_write_is_bounded_by_the_first_position_asked_for_after_it() {
        let primary = track(&[(0, 10), (10, 20), (20, 30)]);
        assert_eq!(primary.bound_of_write(ms(5)), Some(20));
        assert_eq!(primary.bound_of_write(ms(10)), Some(20));
        assert_eq!(primary.bound_of_write(ms(21)), None);
    }

    #[test]
    fn a_standby_had_what_it_told_before_the_read_began_and_not_long_before() {
        let standby = track(&[(0, 10), (10, 20)]);
        assert!(standby.had(20, ms(12), FRESH));
        assert!(!standby.had(20, ms(11), FRESH), "its answer was still on the way");
        assert!(standby.had(10, ms(11), FRESH) && !standby.had(21, ms(50), FRESH));
        assert!(!standby.had(20, ms(113), FRESH), "it has told nothing for too long");
        assert!(!Track::default().had(0, ms(1), FRESH));
    }

    #[test]
    fn a_standby_lacked_a_write_when_it_still_did_shortly_afterwards() {
        let standby = track(&[(0, 10), (10, 20), (200, 30)]);
        assert!(standby.lacked(21, ms(5), FRESH) && !standby.lacked(20, ms(5), FRESH));
        assert!(!standby.lacked(30, ms(11), FRESH), "it was not asked for too long");
        assert!(!standby.lacked(40, ms(201), FRESH), "it was not asked any more");
        assert_eq!((standby.reached(ms(11)), standby.reached(ms(1))), (Some(10), None));
    }

    #[test]
    fn a_lag_counts_from_the_moment_at_which_the_primary_was_surely_past() {
        let primary = track(&[(0, 10), (10, 20), (20, 30), (1000, 30)]);
        let standby = track(&[(5, 10), (500, 10), (520, 20), (540, 30)]);
        assert_eq!(standby.lag(&primary, ms(500), FRESH), Some(ms(500 - 12)));
        assert_eq!(standby.lag(&primary, ms(501), FRESH), Some(ms(520 - 22)));
        assert_eq!(standby.lag(&primary, ms(540), FRESH), Some(Duration::ZERO), "it has all there is");
        assert_eq!(
            standby.lag(&primary, ms(5), FRESH),
            Some(Duration::ZERO),
            "the primary was past it only later"
        );
        assert_eq!(standby.lag(&primary, ms(300), FRESH), None, "it was not asked then");
    }

    proptest! {
        /// A standby that has each position exactly `lag_ms` after the primary, both asked over and over.
        #[test]
        fn a_lag_is_never_told_longer_than_it_is_nor_much_shorter(lag_ms in 0u64..3000, at in 3000u64..6000) {
            let primary = track(&(0..700).map(|n| (n * 10, n * 10)).collect::<Vec<_>>());
            let standby: Vec<_> = (0u64..700).map(|n| (n * 10 + 5, (n * 10 + 5).saturating_sub(lag_ms))).collect();
            let told = track(&standby).lag(&primary, ms(at), FRESH).expect("it was asked");
            prop_assert!(told <= ms(lag_ms), "{told:?}");
            prop_assert!(told + ms(20) >= ms(lag_ms), "{told:?}");
        }
    }
}
