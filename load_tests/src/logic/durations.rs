//! Spans of time as people write them: `30s`, `2m`, `1h30m`, `250ms`, a bare number of seconds.

use std::time::Duration;

/// Longer runs than this are a slip of the pen.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Reads `1h30m`, `2m`, `30s`, `250ms`, `1.5s` or a bare number of seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no span of time: write 30s, 2m, 1h30m, 250ms or a number of seconds");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let unit_s = unit_seconds(unit).ok_or_else(bad)?;
        let part = Duration::try_from_secs_f64(number * unit_s).map_err(|_| bad())?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = tail;
    }
    if total > LONGEST { Err(format!("`{text}` is longer than seven days")) } else { Ok(total) }
}

/// Writes a span the way `parse` reads it, to the millisecond.
pub fn show(span: Duration) -> String {
    let ms = span.as_millis();
    let (h, m, s, rest_ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let parts = [(h, "h"), (m, "m"), (s, "s"), (rest_ms, "ms")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn unit_seconds(unit: &str) -> Option<f64> {
    match unit {
        "" | "s" => Some(1.0),
        "ms" => Some(0.001),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_read_as_locust_and_people_write_them() {
        let table = [
            ("30s", 30_000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("90", 90_000),
            ("1.5s", 1500),
        ];
        for (text, ms) in table {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused_with_examples() {
        for text in ["", "m", "5x", "-1s", "1e9h", "2m m", "1.2.3s", "99999h", "∞"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_show_writes_parse_reads(ms in 0u64..600_000_000) {
            let span = Duration::from_millis(ms);
            let read = parse(&show(span)).expect("show writes what parse reads");
            prop_assert!(read.abs_diff(span) < Duration::from_micros(1));
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") { let _ = parse(&text); }
    }
}
