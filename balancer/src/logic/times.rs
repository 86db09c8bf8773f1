//! How long a server takes to answer: nginx's moving averages, and the age of what is still under way. Milliseconds,
//! whole ones, as nginx counts them: choices by time are compared with its own.

use std::time::Duration;

use crate::conf::upstream::{LeastTime, Until};

/// The measured times of one server.
#[derive(Debug, Clone, Default)]
pub struct Times {
    pub header_ms: u64,
    pub response_ms: u64,
    inflight: Inflight,
}

/// One answer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerTimes {
    pub header: Duration,
    pub total: Duration,
}

/// Requests under way, where `inflight` counts them.
#[derive(Debug, Clone, Default)]
struct Inflight {
    requests: u64,
    /// The sum of their ages at `changed`.
    ages_ms: u64,
    changed_ms: u64,
    average_ms: u64,
}

/// Above this all servers are equally slow, and load decides.
const SLOW_MS: u64 = 5000;
/// Times that differ by less are equal, and turns decide.
const CLUSTER_MS: u64 = 20;

impl Times {
    pub fn on_picked(&mut self, now: Duration) {
        self.inflight.advance(now);
        self.inflight.requests += 1;
    }

    /// The head of an answer has come: with `least_time header inflight` that is all that is waited for.
    pub fn on_header(&mut self, took: Duration) {
        self.header_ms = average(self.header_ms, took.as_millis() as u64);
    }

    /// A request that was picked at this moment is no longer waited for. Without `now`: at the last change.
    pub fn on_done(&mut self, picked: Duration, now: Option<Duration>) {
        if let Some(now) = now {
            self.inflight.advance(now);
        }
        let age = self.inflight.changed_ms.saturating_sub(picked.as_millis() as u64);
        self.inflight.requests = self.inflight.requests.saturating_sub(1);
        self.inflight.ages_ms = self.inflight.ages_ms.saturating_sub(age);
        if self.inflight.requests == 0 {
            self.inflight.ages_ms = 0;
        }
    }

    pub fn on_answered(&mut self, times: AnswerTimes, has_header_already: bool) {
        self.response_ms = average(self.response_ms, times.total.as_millis() as u64);
        if !has_header_already {
            self.on_header(times.header);
        }
    }

    /// Takes the age of what is under way into its average, as each choice does.
    pub fn look(&mut self, now: Duration) {
        let inflight = &mut self.inflight;
        if let Some(mean_age_ms) = inflight.ages_ms.checked_div(inflight.requests) {
            let since = (now.as_millis() as u64).saturating_sub(inflight.changed_ms);
            inflight.average_ms = average(inflight.average_ms, mean_age_ms + since);
        }
    }

    /// The time in which a new request may be answered, were it alone. `halvings`: a slow server that nobody asks is
    /// believed faster as time goes by, so that it is asked again.
    pub fn expected_ms(&self, by: LeastTime, halvings: u64) -> u64 {
        let mut time = match by.until {
            Until::Header => self.header_ms,
            Until::LastByte => self.response_ms,
        };
        time = time.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0);
        if self.inflight.requests > 0 {
            time = time.max(self.inflight.average_ms);
        }
        match time > SLOW_MS {
            true => SLOW_MS,
            false => time + CLUSTER_MS - time % CLUSTER_MS,
        }
    }
}

impl Inflight {
    fn advance(&mut self, now: Duration) {
        let now_ms = now.as_millis() as u64;
        self.ages_ms += now_ms.saturating_sub(self.changed_ms) * self.requests;
        self.changed_ms = now_ms;
    }
}

/// One twentieth of the new to nineteen of the old; the first counts whole.
fn average(before: u64, new: u64) -> u64 {
    match before {
        0 => new,
        before => (0.5 + new as f64 * 0.05 + before as f64 * 0.95) as u64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const LAST_BYTE: LeastTime = LeastTime { until: Until::LastByte, inflight: true };

    #[test]
    fn times_are_clustered_capped_and_halved() {
        let mut times = Times::default();
        assert_eq!(times.expected_ms(LAST_BYTE, 0), 20);
        times.on_answered(AnswerTimes { header: ms(10), total: ms(119) }, false);
        assert_eq!(times.expected_ms(LAST_BYTE, 0), 120);
        assert_eq!(times.expected_ms(LAST_BYTE, 1), 60);
        assert_eq!(times.expected_ms(LAST_BYTE, 900), 20);
        times.on_answered(AnswerTimes { header: ms(10), total: ms(1119) }, false);
        assert_eq!(times.response_ms, 169, "0.5 + 1119 / 20 + 119 * 19 / 20");
        times.response_ms = 60_000;
        assert_eq!(times.expected_ms(LAST_BYTE, 0), 5000);
    }

    proptest! {
        /// The sum of ages is that of the requests under way, whatever comes and goes.
        #[test]
        fn ages_are_those_of_the_requests_under_way(steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u64..500), 1..60)) {
            let mut times = Times::default();
            let (mut now, mut open) = (0, Vec::new());
            for (comes, knows_now, wait) in steps {
                now += wait;
                if comes || open.is_empty() {
                    times.on_picked(ms(now));
                    open.push(now);
                } else {
                    times.on_done(ms(open.remove(0)), knows_now.then(|| ms(now)));
                }
                let changed = times.inflight.changed_ms;
                let ages: u64 = open.iter().map(|picked| changed.saturating_sub(*picked)).sum();
                prop_assert_eq!(times.inflight.ages_ms, ages);
                prop_assert_eq!(times.inflight.requests as usize, open.len());
            }
        }
    }
}
