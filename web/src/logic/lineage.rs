//! The timelines that a database has lived through, and what of an earlier one it still has after a failover.

use std::collections::BTreeMap;

use crate::logic::watermark::{Lsn, Watermark};

/// Each timeline with the position at which it left the one before; `None` where that is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    began: BTreeMap<u32, Option<Lsn>>,
}

impl Lineage {
    pub fn new(rows: impl IntoIterator<Item = (u32, Option<Lsn>)>) -> Self {
        Self { began: rows.into_iter().collect() }
    }

    pub fn knows(&self, timeline: u32) -> bool {
        self.began.contains_key(&timeline)
    }

    /// Whether a database that stands at `here` is known to have everything up to `mark`.
    ///
    /// On another timeline it has what was written before the first fork after the mark's timeline, as far as it has come.
    /// A fork that nobody saw leaves a hole in the numbers, and what is not known is not claimed.
    pub fn holds(&self, here: Watermark, mark: Watermark) -> bool {
        if mark.timeline == here.timeline {
            return mark.lsn <= here.lsn;
        }
        if mark.timeline > here.timeline {
            return false;
        }
        let next = mark.timeline + 1;
        let known = (next..=here.timeline).all(|timeline| self.knows(timeline));
        let fork = self.began.get(&next).copied().flatten();
        known && mark.lsn <= here.lsn && fork.is_some_and(|fork| mark.lsn <= fork)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(timeline: u32, lsn: u64) -> Watermark {
        Watermark { timeline, lsn: Lsn(lsn) }
    }

    #[test]
    fn a_write_from_before_the_fork_is_held_and_one_from_behind_it_is_lost() {
        let lineage = Lineage::new([(1, None), (2, Some(Lsn(100)))]);
        assert!(lineage.holds(mark(2, 500), mark(1, 100)));
        assert!(!lineage.holds(mark(2, 500), mark(1, 101)), "the old primary wrote it after the fork");
    }

    #[test]
    fn on_the_same_timeline_the_position_decides() {
        assert!(Lineage::default().holds(mark(3, 7), mark(3, 7)));
        assert!(!Lineage::default().holds(mark(3, 7), mark(3, 8)));
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let unseen = Lineage::new([(1, None), (3, Some(Lsn(100)))]);
        assert!(!unseen.holds(mark(3, 500), mark(1, 1)), "nobody saw timeline 2");
        let restarted = Lineage::new([(1, None), (2, None)]);
        assert!(!restarted.holds(mark(2, 500), mark(1, 1)));
        assert!(!Lineage::default().holds(mark(1, 500), mark(2, 1)), "a database that was set back");
        assert!(!Lineage::default().holds(mark(1, 500), mark(u32::MAX, 1)));
    }

    proptest! {
        /// The model keeps every write of every primary and what each fork took along.
        #[test]
        fn a_lineage_never_claims_a_write_that_a_failover_lost(
            lives in prop::collection::vec((1u64..20, 0u64..20), 1..5), asked in 0u64..100, of in 0usize..5,
            come in 0u64..50,
        ) {
            let mut began = vec![(1, None)];
            let mut start = 0;
            let mut ends = Vec::new();
            for (index, (len, kept)) in lives.iter().enumerate() {
                let end = start + len;
                ends.push((start, end));
                let fork = (start + kept).min(end);
                began.push((u32::try_from(index).unwrap() + 2, Some(Lsn(fork))));
                start = fork;
            }
            let lineage = Lineage::new(began);
            let here = mark(u32::try_from(lives.len()).unwrap() + 1, come);
            let of = of % lives.len();
            let (from, to) = ends[of];
            let write = from + asked % (to - from + 1);
            // It was lost if any later fork took less of the log than up to it.
            let forks = lives.iter().zip(&ends).skip(of).map(|((_, kept), (start, end))| (start + kept).min(*end));
            let survived = forks.into_iter().next().is_none_or(|first| write <= first);
            prop_assert_eq!(
                lineage.holds(here, mark(u32::try_from(of).unwrap() + 1, write)),
                survived && write <= come
            );
        }
    }
}
