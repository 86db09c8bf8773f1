//! Choice by load: the fewest requests, the shortest expected time, and the bound on a server's share of the load.

use std::cmp::Ordering;
use std::ops::Range;
use std::time::Duration;

use super::{Attempts, Balance, LeastTime, Method};

impl Balance {
    /// Fewest requests per weight; among equals, round robin from the first of them on.
    pub(super) fn least_conn(
        &mut self,
        range: Range<usize>,
        attempts: &Attempts,
        now: Duration,
    ) -> Option<usize> {
        if let Some(wanted) = self.wanted(&range, attempts, now) {
            return Some(wanted);
        }
        self.least(range, attempts, now, |balance, left, right| balance.compare_load(left, right, now))
    }

    /// The shortest time in which all that a server has to do may be done.
    pub(super) fn least_time(
        &mut self,
        by: LeastTime,
        range: Range<usize>,
        attempts: &Attempts,
        now: Duration,
    ) -> Option<usize> {
        if let Some(wanted) = self.wanted(&range, attempts, now) {
            return Some(wanted);
        }
        if by.inflight {
            for index in range.clone() {
                if self.is_open(index, attempts, now) {
                    self.peers[index].times.look(now);
                }
            }
        }
        self.least(range, attempts, now, |balance, left, right| balance.compare_time(by, (left, right), now))
    }

    fn least(
        &mut self,
        range: Range<usize>,
        attempts: &Attempts,
        now: Duration,
        compare: impl Fn(&Balance, usize, usize) -> Ordering,
    ) -> Option<usize> {
        let end = range.end;
        let mut best: Option<usize> = None;
        let mut many = false;
        for index in range.filter(|index| self.is_open(*index, attempts, now)) {
            match best.map(|best| compare(self, index, best)) {
                None | Some(Ordering::Less) => {
                    best = Some(index);
                    many = false;
                }
                Some(Ordering::Equal) => many = true,
                Some(Ordering::Greater) => {}
            }
        }
        let first = best?;
        if !many {
            return best;
        }
        let (mut best, mut total) = (first, 0);
        for index in first..end {
            if !self.is_open(index, attempts, now) || compare(self, index, first).is_ne() {
                continue;
            }
            total += self.peers[index].gain(now);
            if self.peers[index].current_weight() > self.peers[best].current_weight() {
                best = index;
            }
        }
        self.peers[best].pay(total);
        Some(best)
    }

    /// Requests in flight per weight.
    pub(super) fn compare_load(&self, left: usize, right: usize, now: Duration) -> Ordering {
        self.compare_scaled(
            (u64::from(self.peers[left].conns), left),
            (self.peers[right].conns.into(), right),
            now,
        )
    }

    /// Expected time for all that is in flight and one more, per weight.
    pub(super) fn compare_time(
        &self,
        by: LeastTime,
        (left, right): (usize, usize),
        now: Duration,
    ) -> Ordering {
        let time = |index: usize| {
            let peer = &self.peers[index];
            peer.times.expected_ms(by, peer.halvings(now)) * (1 + u64::from(peer.conns))
        };
        self.compare_scaled((time(left), left), (time(right), right), now)
    }

    fn compare_scaled(&self, left: (u64, usize), right: (u64, usize), now: Duration) -> Ordering {
        let weight = |index: usize| self.peers[index].weight(now).max(1) as u128;
        (u128::from(left.0) * weight(right.1)).cmp(&(u128::from(right.0) * weight(left.1)))
    }

    /// Whether one more request leaves this server within its bound: so many percent of what it would carry if all
    /// requests were spread by weight. At least one open server always is.
    pub(super) fn is_within_bound(&self, index: usize, now: Duration) -> bool {
        let (Method::Hash(percent) | Method::ConsistentHash(percent)) = self.method else { return true };
        if percent == 0 {
            return true;
        }
        let open = self.peers[..self.primaries].iter().filter(|peer| peer.unusable(now).is_none());
        let (requests, weight) = open.fold((1_u128, 0_u128), |(requests, weight), peer| {
            (requests + u128::from(peer.conns), weight + u128::from(peer.terms.weight))
        });
        let peer = &self.peers[index];
        let share = u128::from(percent) * requests * u128::from(peer.terms.weight);
        u128::from(peer.conns + 1) <= share.div_ceil(100 * weight.max(1))
    }
}
