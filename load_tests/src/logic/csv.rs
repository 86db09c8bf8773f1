//! locust's CSV files, header for header, so that what reads locust's reads ours. Times in ms with fractions.

use crate::logic::stats::{Entry, PERCENTILES, Recent, Stats};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const END: &str = "\r\n";
/// What locust writes where there is no figure.
const NONE: &str = "N/A";

/// `PREFIX_stats.csv`
pub fn stats(stats: &Stats, elapsed: Duration) -> String {
    let mut text = row([
        "Type",
        "Name",
        "Request Count",
        "Failure Count",
        "Median Response Time",
        "Average Response Time",
        "Min Response Time",
        "Max Response Time",
        "Average Content Size",
        "Requests/s",
        "Failures/s",
    ]
    .into_iter()
    .chain(PERCENTILES.iter().map(|(_, word)| *word)));
    let rows = stats.entries().map(|(key, entry)| (key.kind.word(), key.name, entry));
    for (kind, name, entry) in rows.chain([("", "Aggregated", stats.total())]) {
        let span_s = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let mut cells = vec![kind.to_owned(), name.to_owned()];
        cells.extend([entry.requests.to_string(), entry.failures.to_string()]);
        cells.extend(times(entry));
        cells.push((entry.requests as f64 / span_s).to_string());
        cells.push((entry.failures as f64 / span_s).to_string());
        cells.extend(percentiles(entry));
        text.push_str(&row(cells.iter().map(String::as_str)));
    }
    text
}

/// The header of `PREFIX_stats_history.csv`
pub fn history_header() -> String {
    let first = ["Timestamp", "User Count", "Type", "Name", "Requests/s", "Failures/s"];
    let last = [
        "Total Request Count",
        "Total Failure Count",
        "Total Median Response Time",
        "Total Average Response Time",
        "Total Min Response Time",
        "Total Max Response Time",
        "Total Average Content Size",
    ];
    row(first.into_iter().chain(PERCENTILES.iter().map(|(_, word)| *word)).chain(last))
}

/// One line of `PREFIX_stats_history.csv`: rates and percentiles of the last ten seconds, totals since the start.
pub fn history_row(unix_s: i64, users: u32, recent: &Recent, total: &Entry) -> String {
    let mut cells = vec![unix_s.to_string(), users.to_string(), String::new(), "Aggregated".to_owned()];
    cells.extend([format!("{:.6}", recent.requests_per_s), format!("{:.6}", recent.failures_per_s)]);
    cells.extend(percentiles(&recent.figures));
    cells.extend([total.requests.to_string(), total.failures.to_string()]);
    cells.extend(times(total));
    row(cells.iter().map(String::as_str))
}

/// `PREFIX_failures.csv`; `began_unix_s` is when the run began.
pub fn failures(stats: &Stats, began_unix_s: f64) -> String {
    let mut text = row(["Method", "Name", "Error", "Occurrences", "First Seen", "Last Seen"]);
    for (key, headline, seen) in stats.faults() {
        let count = seen.count.to_string();
        let (first, last) = (utc(began_unix_s, seen.first), utc(began_unix_s, seen.last));
        text.push_str(&row([key.kind.word(), key.name, headline, &count, &first, &last]));
    }
    text
}

/// `PREFIX_exceptions.csv`: users here report faults and do not throw, so it has a header only.
pub fn exceptions() -> String {
    row(["Count", "Message", "Traceback", "Nodes"])
}

fn times(entry: &Entry) -> [String; 5] {
    let median = entry.percentile_ms(0.5).unwrap_or(0.0);
    [median, entry.mean_ms(), entry.min_ms(), entry.max_ms(), entry.mean_bytes()]
        .map(|figure| figure.to_string())
}

fn percentiles(entry: &Entry) -> impl Iterator<Item = String> + '_ {
    PERCENTILES
        .iter()
        .map(|(q, _)| entry.percentile_ms(*q).map_or_else(|| NONE.to_owned(), |ms| ms.to_string()))
}

fn utc(began_unix_s: f64, after: Duration) -> String {
    OffsetDateTime::from_unix_timestamp((began_unix_s + after.as_secs_f64()) as i64)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

fn row<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = cells.into_iter().map(cell).collect();
    quoted.join(",") + END
}

fn cell(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::fault::Fault;
    use crate::logic::stats::{Key, Kind, Sample};
    use proptest::prelude::*;

    fn columns(line: &str) -> usize {
        line.split(',').count()
    }

    #[test]
    fn headers_are_locusts() {
        assert_eq!(
            stats(&Stats::default(), Duration::ZERO).lines().next(),
            Some(
                "Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,Min Response Time,\
                 Max Response Time,Average Content Size,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%"
            )
        );
        assert_eq!(
            failures(&Stats::default(), 0.0),
            "Method,Name,Error,Occurrences,First Seen,Last Seen\r\n"
        );
        assert_eq!(exceptions(), "Count,Message,Traceback,Nodes\r\n");
        assert!(history_header().starts_with("Timestamp,User Count,Type,Name,Requests/s,Failures/s,50%,"));
    }

    #[test]
    fn rows_have_as_many_cells_as_their_headers() {
        let mut figures = Stats::default();
        let key = Key { kind: Kind::Post, name: "/x" };
        let fault = Fault::Connect("refused, twice \"so\"".into());
        let sample = Sample { key, took: Duration::from_millis(3), body_bytes: 5, fault: Some(&fault) };
        figures.on_sample(&sample, Duration::from_secs(1));
        let text = stats(&figures, Duration::from_secs(2));
        let widths: Vec<usize> = text.lines().map(columns).collect();
        assert_eq!(widths, [22, 22, 22]);
        let line = history_row(1, 2, &figures.recent(Duration::from_secs(1)), figures.total());
        assert_eq!(columns(&line), columns(&history_header()));
        let text = failures(&figures, 1_700_000_000.0);
        assert!(
            text.contains("\"cannot connect: refused, twice \"\"so\"\"\",1,2023-11-14T22:13:21Z"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn a_cell_reads_back_as_itself(text in ".{0,40}") {
            let written = cell(&text);
            let read = match written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(inner) if text.contains([',', '"', '\r', '\n']) => inner.replace("\"\"", "\""),
                _ => written,
            };
            prop_assert_eq!(read, text);
        }
    }
}
