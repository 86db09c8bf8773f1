//! The figures as one JSON document, with what a reader needs to compare two of them: plan, machine, versions.

use crate::logic::durations;
use crate::logic::plan::Plan;
use crate::logic::stats::{Entry, PERCENTILES, Stats};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The machine and program that made the figures.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Environment {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub memory_mib: u64,
    pub version: &'static str,
}

/// What the generator itself took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Generator {
    pub cpu: Duration,
    pub elapsed: Duration,
}

/// Above this share of its one core the generator may be what is measured.
const CPU_SHARE_SANE: f64 = 0.7;

impl Generator {
    /// Share of one core.
    pub fn cpu_share(&self) -> f64 {
        self.cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    pub fn is_suspect(&self) -> bool {
        self.cpu_share() > CPU_SHARE_SANE
    }
}

/// The whole report.
pub fn json(stats: &Stats, plan: &Plan, environment: &Environment, generator: Generator) -> Value {
    let lines: Vec<Value> = stats
        .entries()
        .map(|(key, entry)| line(key.kind.word(), key.name, entry, generator.elapsed))
        .collect();
    let faults: Vec<Value> = stats
        .faults()
        .map(|(key, headline, seen)| {
            json!({"method": key.kind.word(), "name": key.name, "error": headline, "occurrences": seen.count,
                   "first_s": seen.first.as_secs_f64(), "last_s": seen.last.as_secs_f64(), "example": seen.example.to_string()})
        })
        .collect();
    json!({
        "plan": {
            "host": plan.target.to_string(), "model": "closed", "users": plan.arrival.users(), "mix": plan.mix.to_string(),
            "run_time": durations::show(plan.run_time), "wait_ms": [plan.wait.least.as_millis() as u64, plan.wait.most.as_millis() as u64],
            "accounts": plan.accounts, "room_size": plan.room_size, "sources": plan.sources, "seed": plan.seed,
        },
        "environment": environment,
        "generator": {"cpu_share_of_one_core": generator.cpu_share(), "suspect": generator.is_suspect()},
        "elapsed_s": generator.elapsed.as_secs_f64(),
        "aggregated": line("", "Aggregated", stats.total(), generator.elapsed),
        "requests": lines,
        "failures": faults,
        "failure_count": stats.failures(),
    })
}

fn line(kind: &str, name: &str, entry: &Entry, elapsed: Duration) -> Value {
    let span_s = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let percentiles: Map<String, Value> =
        PERCENTILES.iter().map(|(q, word)| ((*word).to_owned(), json!(entry.percentile_ms(*q)))).collect();
    json!({
        "method": kind, "name": name, "requests": entry.requests, "failures": entry.failures,
        "requests_per_s": entry.requests as f64 / span_s, "failures_per_s": entry.failures as f64 / span_s,
        "mean_ms": entry.mean_ms(), "min_ms": entry.min_ms(), "max_ms": entry.max_ms(), "mean_bytes": entry.mean_bytes(),
        "percentiles_ms": percentiles,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::stats::{Key, Kind, Sample};

    #[test]
    fn a_percentile_without_samples_is_null_and_not_zero() {
        let mut stats = Stats::default();
        let key = Key { kind: Kind::Get, name: "/x" };
        stats.on_sample(
            &Sample { key, took: Duration::from_millis(2), body_bytes: 1, fault: None },
            Duration::ZERO,
        );
        let generator = Generator { cpu: Duration::from_secs(1), elapsed: Duration::from_secs(4) };
        let report = json(&stats, &Plan::example(), &Environment::default(), generator);
        assert_eq!(report["requests"][0]["percentiles_ms"]["99%"], Value::Null);
        assert_eq!(report["requests"][0]["percentiles_ms"]["50%"], json!(2.0));
        assert_eq!(report["aggregated"]["requests_per_s"], json!(0.25));
        assert_eq!(report["generator"]["suspect"], json!(false));
    }

    #[test]
    fn a_generator_that_is_busy_itself_says_so() {
        assert!(Generator { cpu: Duration::from_secs(8), elapsed: Duration::from_secs(10) }.is_suspect());
    }
}
