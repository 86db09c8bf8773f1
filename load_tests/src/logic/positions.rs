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

    /// Whether the server, asked not long before, had what `bound` names when a read began.
    pub fn had(&self, bound: u64, began: Duration, fresh: Duration) -> bool {
        self.before(began)
            .is_some_and(|sample| sample.position >= bound && began.saturating_sub(sample.answered) <= fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
