//! The figures as text for people: a progress line while it runs, locust's tables at the end.

use crate::logic::durations;
use crate::logic::stats::{Entry, Key, PERCENTILES, Recent, Stats};
use std::fmt::Write;
use std::time::Duration;

const NAME_WIDTH: usize = 44;

/// One line while it runs.
pub fn progress(recent: &Recent, at: Duration, users: (u32, u32), failures: u64) -> String {
    let figures = &recent.figures;
    format!(
        "{:>7}  users {}/{}  {:.1} req/s  p50 {} ms  p95 {} ms  failures {failures}",
        durations::show(Duration::from_secs(at.as_secs())),
        users.0,
        users.1,
        recent.requests_per_s,
        told(figures.percentile_ms(0.5)),
        told(figures.percentile_ms(0.95)),
    )
}

/// Counts, times and rates of each line, with locust's columns.
pub fn requests(stats: &Stats, elapsed: Duration) -> String {
    let mut text = format!(
        "{:<6} {:<NAME_WIDTH$} {:>8} {:>14} |{:>8} {:>8} {:>8} {:>8} |{:>9} {:>11}\n",
        "Type", "Name", "# reqs", "# fails", "Avg", "Min", "Max", "Med", "req/s", "failures/s"
    );
    text.push_str(&rule(&[6, NAME_WIDTH + 1, 9, 15, 9, 9, 9, 9, 10, 12]));
    for (key, entry) in stats.entries() {
        text.push_str(&request_line(key.kind.word(), key.name, entry, elapsed));
    }
    text.push_str(&rule(&[6, NAME_WIDTH + 1, 9, 15, 9, 9, 9, 9, 10, 12]));
    text.push_str(&request_line("", "Aggregated", stats.total(), elapsed));
    text
}

/// The percentiles of each line in milliseconds; `-` where too few samples were taken.
pub fn percentiles(stats: &Stats) -> String {
    let mut text =
        "Response time percentiles in ms (HDR, 3 digits; tail percentiles only with ten samples beyond them)\n".to_owned();
    let _ = write!(text, "{:<6} {:<NAME_WIDTH$}", "Type", "Name");
    for (_, word) in PERCENTILES {
        let _ = write!(text, " {word:>8}");
    }
    let _ = writeln!(text, " {:>8}", "# reqs");
    let mut widths = vec![6, NAME_WIDTH + 1];
    widths.extend([8; PERCENTILES.len() + 1]);
    text.push_str(&rule(&widths));
    let rows = stats.entries().map(|(key, entry)| (key.kind.word(), key.name, entry));
    for (kind, name, entry) in rows.chain([("", "Aggregated", stats.total())]) {
        let _ = write!(text, "{kind:<6} {name:<NAME_WIDTH$}");
        for (q, _) in PERCENTILES {
            let _ = write!(text, " {:>8}", told(entry.percentile_ms(q)));
        }
        let _ = writeln!(text, " {:>8}", entry.requests);
    }
    text
}

/// What failed, how often, with the first one in full; empty when nothing did.
pub fn faults(stats: &Stats) -> String {
    if stats.faults().next().is_none() {
        return String::new();
    }
    let mut text = format!("Error report\n{:>12}  {:<30} {}\n", "occurrences", "request", "error");
    for (Key { kind, name }, headline, seen) in stats.faults() {
        let _ = writeln!(text, "{:>12}  {:<30} {headline}", seen.count, format!("{} {name}", kind.word()));
        if seen.example.to_string() != headline {
            let _ = writeln!(text, "{:>12}  {:<30}   first: {}", "", "", seen.example);
        }
    }
    text
}

fn request_line(kind: &str, name: &str, entry: &Entry, elapsed: Duration) -> String {
    let span_s = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let share = if entry.requests == 0 { 0.0 } else { 100.0 * entry.failures as f64 / entry.requests as f64 };
    format!(
        "{kind:<6} {name:<NAME_WIDTH$} {:>8} {:>14} |{:>8} {:>8} {:>8} {:>8} |{:>9.2} {:>11.2}\n",
        entry.requests,
        format!("{}({share:.2}%)", entry.failures),
        ms(entry.mean_ms()),
        ms(entry.min_ms()),
        ms(entry.max_ms()),
        told(entry.percentile_ms(0.5)),
        entry.requests as f64 / span_s,
        entry.failures as f64 / span_s,
    )
}

fn rule(widths: &[usize]) -> String {
    let parts: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    parts.join("|") + "\n"
}

fn told(value_ms: Option<f64>) -> String {
    value_ms.map_or_else(|| "-".to_owned(), ms)
}

/// Below ten a digit after the point says something, above it none does.
fn ms(value_ms: f64) -> String {
    if value_ms < 10.0 { format!("{value_ms:.2}") } else { format!("{value_ms:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::fault::Fault;
    use crate::logic::stats::{Kind, Sample};

    fn stats() -> Stats {
        let mut stats = Stats::default();
        let key = Key { kind: Kind::Get, name: "/api/users" };
        let fault = Fault::shape("not JSON", "at byte 0");
        let bad = Sample { key, took: Duration::from_millis(40), body_bytes: 0, fault: Some(&fault) };
        for n in 1..=9 {
            let sample = Sample { took: Duration::from_millis(n), fault: None, ..bad };
            stats.on_sample(&sample, Duration::from_secs(1));
        }
        stats.on_sample(&bad, Duration::from_secs(1));
        stats
    }

    #[test]
    fn the_table_has_a_line_per_name_and_one_for_all() {
        let text = requests(&stats(), Duration::from_secs(10));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[2].starts_with("GET    /api/users"), "{text}");
        assert!(lines[2].contains("1(10.00%)") && lines[2].contains("1.00"), "{text}");
        assert!(lines[4].trim_start().starts_with("Aggregated"), "{text}");
    }

    #[test]
    fn untold_percentiles_are_dashes() {
        let text = percentiles(&stats());
        let line = text.lines().find(|line| line.starts_with("GET")).expect("the line of the one name");
        assert_eq!(line.split_whitespace().filter(|cell| *cell == "-").count(), 4, "{text}");
    }

    #[test]
    fn faults_are_reported_with_an_example_and_nothing_without() {
        assert_eq!(faults(&Stats::default()), "");
        let text = faults(&stats());
        assert!(
            text.contains("wrong shape: not JSON")
                && text.contains("first: wrong shape: not JSON: at byte 0"),
            "{text}"
        );
    }

    #[test]
    fn progress_says_when_who_and_how_fast() {
        let stats = stats();
        let line = progress(&stats.recent(Duration::from_secs(2)), Duration::from_millis(2300), (3, 5), 1);
        assert!(line.contains("2s  users 3/5  5.0 req/s") && line.ends_with("failures 1"), "{line}");
    }
}
