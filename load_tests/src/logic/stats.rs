//! The figures of a run: what was asked, how long it took, what failed. Knows no clock: every entry says when.

use crate::logic::fault::Fault;
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What a sample is about. Only requests count towards the aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Get,
    Post,
    Stream,
    Socket,
    /// A span measured inside a request or between two users; listed, not added up.
    Span,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Stream => "SSE",
            Self::Socket => "WS",
            Self::Span => "SPAN",
        }
    }
}

/// One line of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub name: &'static str,
}

/// One answered (or failed) request.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    pub key: Key,
    pub took: Duration,
    pub body_bytes: u64,
    pub fault: Option<&'a Fault>,
}

/// How often one fault was seen, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrences {
    pub count: u64,
    pub first: Duration,
    pub last: Duration,
    /// The first one in full.
    pub example: Fault,
}

/// Percentiles that locust reports, in its order.
pub const PERCENTILES: [(f64, &str); 11] = [
    (0.50, "50%"),
    (0.66, "66%"),
    (0.75, "75%"),
    (0.80, "80%"),
    (0.90, "90%"),
    (0.95, "95%"),
    (0.98, "98%"),
    (0.99, "99%"),
    (0.999, "99.9%"),
    (0.9999, "99.99%"),
    (1.0, "100%"),
];

/// Distinct faults kept by name; more of them say nothing new and a broken server could invent many.
const FAULTS_MAX: usize = 200;
/// The span over which "now" is averaged, as locust does.
const RECENT_SECONDS: u64 = 10;
const LONGEST_US: u64 = 600_000_000;

/// Figures of one line.
#[derive(Debug, Clone)]
pub struct Entry {
    latency_us: Histogram<u64>,
    pub requests: u64,
    pub failures: u64,
    pub body_bytes: u64,
    sum_us: u64,
    min_us: u64,
    max_us: u64,
}

impl Default for Entry {
    fn default() -> Self {
        let latency_us =
            Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds and digits are constants in range");
        Self { latency_us, requests: 0, failures: 0, body_bytes: 0, sum_us: 0, min_us: u64::MAX, max_us: 0 }
    }
}

impl Entry {
    fn on_sample(&mut self, sample: &Sample<'_>) {
        let took_us = micros(sample.took);
        self.requests += 1;
        self.failures += u64::from(sample.fault.is_some());
        self.body_bytes += sample.body_bytes;
        self.sum_us += took_us;
        self.min_us = self.min_us.min(took_us);
        self.max_us = self.max_us.max(took_us);
        self.latency_us.saturating_record(took_us.max(1));
    }

    pub fn mean_ms(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.sum_us as f64 / self.requests as f64 / 1000.0 }
    }

    pub fn min_ms(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.min_us as f64 / 1000.0 }
    }

    pub fn max_ms(&self) -> f64 {
        self.max_us as f64 / 1000.0
    }

    pub fn mean_bytes(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.body_bytes as f64 / self.requests as f64 }
    }

    /// The latency that a share `q` of the samples did not exceed; `None` where too few samples were taken.
    pub fn percentile_ms(&self, q: f64) -> Option<f64> {
        if self.requests < samples_needed(q) {
            return None;
        }
        if q >= 1.0 {
            return Some(self.max_ms());
        }
        // The histogram rounds up within its three digits: never above what was seen.
        Some((self.latency_us.value_at_quantile(q) as f64 / 1000.0).min(self.max_ms()))
    }
}

/// Samples without which a percentile is a rumour: ten beyond it for the tail, one at all below it.
pub fn samples_needed(q: f64) -> u64 {
    if (0.98..1.0).contains(&q) { (10.0 / (1.0 - q)).round() as u64 } else { 1 }
}

/// All figures of a run.
#[derive(Debug, Default)]
pub struct Stats {
    entries: BTreeMap<Key, Entry>,
    total: Entry,
    faults: BTreeMap<(Key, String), Occurrences>,
    recent: VecDeque<Bucket>,
}

/// One second of the recent past.
#[derive(Debug)]
struct Bucket {
    second: u64,
    figures: Entry,
}

/// What happened in the last ten seconds.
#[derive(Debug, Clone)]
pub struct Recent {
    pub figures: Entry,
    pub requests_per_s: f64,
    pub failures_per_s: f64,
}

impl Stats {
    /// Takes in one sample that ended `at` after the start.
    pub fn on_sample(&mut self, sample: &Sample<'_>, at: Duration) {
        self.entries.entry(sample.key).or_default().on_sample(sample);
        if sample.key.kind != Kind::Span {
            self.total.on_sample(sample);
            self.on_recent(sample, at.as_secs());
        }
        if let Some(fault) = sample.fault {
            self.on_fault(sample.key, fault, at);
        }
    }

    pub fn total(&self) -> &Entry {
        &self.total
    }

    pub fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    pub fn faults(&self) -> impl Iterator<Item = (&Key, &str, &Occurrences)> {
        self.faults.iter().map(|((key, headline), seen)| (key, headline.as_str(), seen))
    }

    /// What came in a wrong order, was left out or came twice; over sockets also what came in a wrong form.
    pub fn disorders(&self) -> impl Iterator<Item = (&Key, &str, &Occurrences)> {
        self.faults().filter(|(key, _, seen)| is_disorder(**key, &seen.example))
    }

    /// Failures of every kind, spans included: what the exit code is made of.
    pub fn failures(&self) -> u64 {
        self.entries.values().map(|entry| entry.failures).sum()
    }

    /// The last ten seconds before `at`.
    pub fn recent(&self, at: Duration) -> Recent {
        let oldest = at.as_secs().saturating_sub(RECENT_SECONDS - 1);
        let mut figures = Entry::default();
        for bucket in self.recent.iter().filter(|bucket| bucket.second >= oldest) {
            figures.merge(&bucket.figures);
        }
        let span_s = at.as_secs_f64().clamp(1.0, RECENT_SECONDS as f64);
        let requests_per_s = figures.requests as f64 / span_s;
        let failures_per_s = figures.failures as f64 / span_s;
        Recent { figures, requests_per_s, failures_per_s }
    }

    fn on_recent(&mut self, sample: &Sample<'_>, second: u64) {
        if self.recent.back().is_none_or(|bucket| bucket.second < second) {
            // A bucket that falls off is used again: its histogram is the large part.
            let mut bucket = match self.recent.len() as u64 > RECENT_SECONDS {
                true => self.recent.pop_front().expect("longer than zero"),
                false => Bucket { second, figures: Entry::default() },
            };
            bucket.second = second;
            bucket.figures.clear();
            self.recent.push_back(bucket);
        }
        self.recent.back_mut().expect("pushed above").figures.on_sample(sample);
    }

    fn on_fault(&mut self, key: Key, fault: &Fault, at: Duration) {
        let mut headline = fault.headline();
        // The rules of order and form are few, and must be told however many other faults there are.
        let is_full = self.faults.len() >= FAULTS_MAX && !is_disorder(key, fault);
        if is_full && !self.faults.contains_key(&(key, headline.clone())) {
            headline = "(other faults)".to_owned();
        }
        let new = || Occurrences { count: 0, first: at, last: at, example: fault.clone() };
        let seen = self.faults.entry((key, headline)).or_insert_with(new);
        seen.count += 1;
        seen.last = at;
    }
}

impl Entry {
    fn merge(&mut self, other: &Self) {
        self.latency_us.add(&other.latency_us).expect("equal bounds");
        self.requests += other.requests;
        self.failures += other.failures;
        self.body_bytes += other.body_bytes;
        self.sum_us += other.sum_us;
        self.min_us = self.min_us.min(other.min_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    fn clear(&mut self) {
        self.latency_us.reset();
        (self.requests, self.failures, self.body_bytes, self.sum_us) = (0, 0, 0, 0);
        (self.min_us, self.max_us) = (u64::MAX, 0);
    }
}

fn is_disorder(key: Key, fault: &Fault) -> bool {
    match fault {
        Fault::Order { .. } => true,
        Fault::Shape { .. } => key.kind == Kind::Socket,
        _ => false,
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX).min(LONGEST_US)
}

#[cfg(test)]
mod tests;
