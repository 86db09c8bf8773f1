//! Plain atomics that workers add to: of an upstream server, of a zone of requests, of times.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds in seconds: from an answer out of memory to one that a person gave up on.
pub const LATENCY_BOUNDS_S: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// How many times fell between the bounds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; LATENCY_BOUNDS_S.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BOUNDS_S.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub fn buckets(&self) -> [u64; LATENCY_BOUNDS_S.len() + 1] {
        self.buckets.each_ref().map(|count| count.load(Relaxed))
    }

    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Relaxed))
    }

    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        self.buckets.iter().chain([&self.sum_us])
    }
}

/// The first and the last status that are counted one by one.
const CODES: std::ops::RangeInclusive<u16> = 100..=599;

/// Answers by status.
#[derive(Debug)]
pub struct Answers {
    codes: Box<[AtomicU64; 500]>,
    /// No answer at all, or a status that is none.
    none: AtomicU64,
}

impl Default for Answers {
    fn default() -> Answers {
        Answers { codes: Box::new([const { AtomicU64::new(0) }; 500]), none: AtomicU64::new(0) }
    }
}

impl Answers {
    pub fn record(&self, status: Option<u16>) {
        match status.filter(|status| CODES.contains(status)) {
            Some(status) => &self.codes[usize::from(status - CODES.start())],
            None => &self.none,
        }
        .fetch_add(1, Relaxed);
    }

    /// Each status that came, and how often.
    pub fn codes(&self) -> BTreeMap<u16, u64> {
        let counts = CODES.zip(self.codes.iter().map(|count| count.load(Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// By first digit; the first is no answer at all.
    pub fn classes(&self) -> [u64; 6] {
        let mut classes = [self.none.load(Relaxed), 0, 0, 0, 0, 0];
        for (status, count) in self.codes() {
            classes[usize::from(status / 100)] += count;
        }
        classes
    }

    /// Answers of any status.
    pub fn total(&self) -> u64 {
        self.classes()[1..].iter().sum()
    }

    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        self.codes.iter().chain([&self.none])
    }
}

/// The counters of one upstream server.
#[derive(Debug, Default)]
pub struct PeerMetrics {
    /// Requests that were sent there.
    pub requests: AtomicU64,
    pub answers: Answers,
    /// Time to the answer's head by first digit of its status; the first is unused.
    pub header_times: [Histogram; 6],
    /// Time to the answer's end; the first is of attempts without an answer.
    pub response_times: [Histogram; 6],
    pub sent_len: AtomicU64,
    pub received_len: AtomicU64,
    /// Failures that took the server out of the rotation.
    pub ejections: AtomicU64,
}

/// One attempt at a server, told when it is over.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub status: Option<u16>,
    pub header: Option<Duration>,
    pub total: Duration,
    pub sent_len: u64,
    pub received_len: u64,
}

impl PeerMetrics {
    pub fn record(&self, told: &Told) {
        self.requests.fetch_add(1, Relaxed);
        self.answers.record(told.status);
        let class = told.status.map_or(0, |status| usize::from(status / 100)).min(5);
        self.response_times[class].record(told.total);
        if let Some(header) = told.header {
            self.header_times[class].record(header);
        }
        self.sent_len.fetch_add(told.sent_len, Relaxed);
        self.received_len.fetch_add(told.received_len, Relaxed);
    }

    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        let times = self.header_times.iter().chain(&self.response_times).flat_map(Histogram::all);
        let single = [&self.requests, &self.sent_len, &self.received_len, &self.ejections];
        single.into_iter().chain(self.answers.all()).chain(times)
    }

    pub fn reset(&self) {
        self.all().for_each(|count| count.store(0, Relaxed));
    }

    pub fn memory(&self) -> Vec<(usize, u64)> {
        remember(self.all())
    }

    pub fn recall(&self, memory: &[(usize, u64)]) {
        recall(self.all(), memory);
    }
}

/// The counters of one `status_zone`.
#[derive(Debug, Default)]
pub struct ZoneMetrics {
    pub processing: AtomicU64,
    pub requests: AtomicU64,
    pub answers: Answers,
    /// Requests that ended without an answer.
    pub discarded: AtomicU64,
    pub received_len: AtomicU64,
    pub sent_len: AtomicU64,
}

impl ZoneMetrics {
    pub fn record(&self, status: u16, received_len: u64, sent_len: u64) {
        self.requests.fetch_add(1, Relaxed);
        match sent_len {
            0 => self.discarded.fetch_add(1, Relaxed),
            _ => {
                self.answers.record(Some(status));
                0
            }
        };
        self.received_len.fetch_add(received_len, Relaxed);
        self.sent_len.fetch_add(sent_len, Relaxed);
    }

    /// All but what is under way.
    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        let single = [&self.requests, &self.discarded, &self.received_len, &self.sent_len];
        single.into_iter().chain(self.answers.all())
    }

    pub fn reset(&self) {
        self.all().for_each(|count| count.store(0, Relaxed));
    }

    pub fn memory(&self) -> Vec<(usize, u64)> {
        remember(self.all())
    }

    pub fn recall(&self, memory: &[(usize, u64)]) {
        recall(self.all(), memory);
    }
}

/// The counters that are not zero, by their place: most are.
pub fn remember<'a>(counters: impl Iterator<Item = &'a AtomicU64>) -> Vec<(usize, u64)> {
    let counts = counters.map(|count| count.load(Relaxed)).enumerate();
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Adds what another process has counted.
pub fn recall<'a>(counters: impl Iterator<Item = &'a AtomicU64>, memory: &[(usize, u64)]) {
    let mut known = memory.iter().peekable();
    for (place, counter) in counters.enumerate() {
        if let Some((_, count)) = known.next_if(|(at, _)| *at == place) {
            counter.fetch_add(*count, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_status_and_by_class() {
        let answers = Answers::default();
        for status in [Some(200), Some(204), Some(200), Some(503), Some(999), None] {
            answers.record(status);
        }
        assert_eq!(answers.codes(), BTreeMap::from([(200, 2), (204, 1), (503, 1)]));
        assert_eq!((answers.classes(), answers.total()), ([2, 0, 3, 0, 0, 1], 4));
        let heir = Answers::default();
        heir.record(Some(200));
        recall(heir.all(), &remember(answers.all()));
        assert_eq!(heir.classes(), [2, 0, 4, 0, 0, 1]);
    }

    #[test]
    fn times_fall_into_the_bucket_that_bounds_them() {
        let histogram = Histogram::default();
        [3, 5, 6].iter().for_each(|ms| histogram.record(Duration::from_millis(*ms)));
        histogram.record(Duration::from_secs(100));
        let buckets = histogram.buckets();
        assert_eq!(
            (buckets[3], buckets[4], buckets[LATENCY_BOUNDS_S.len()]),
            (2, 1, 1),
            "5 ms is within 5 ms"
        );
        assert_eq!(histogram.sum(), Duration::from_millis(100_014));
    }
}
