//! The forms that arguments take: sizes, times, counts, flags. Each refuses what nginx refuses.

use std::time::Duration;

/// `10`, `10k`, `10M`: bytes.
pub fn size(text: &str) -> Option<u64> {
    scaled(text, &[('k', 1 << 10), ('m', 1 << 20)])
}

/// As [`size`], with `g`.
pub fn offset(text: &str) -> Option<u64> {
    scaled(text, &[('k', 1 << 10), ('m', 1 << 20), ('g', 1 << 30)])
}

fn scaled(text: &str, units: &[(char, u64)]) -> Option<u64> {
    let last = text.chars().last()?.to_ascii_lowercase();
    let unit = units.iter().find(|(letter, _)| *letter == last);
    let (digits, factor) = match unit {
        Some((_, factor)) => (&text[..text.len() - 1], *factor),
        None => (text, 1),
    };
    count(digits)?.checked_mul(factor)
}

/// Digits only.
pub fn count(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// Seconds unless a unit says otherwise: `30`, `30s`, `1m30s`, `1h`; `ms` only where nginx takes it.
pub fn seconds(text: &str) -> Option<Duration> {
    time(text, Precision::Seconds)
}

/// As [`seconds`], with `ms`.
pub fn millis(text: &str) -> Option<Duration> {
    time(text, Precision::Millis)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Precision {
    Seconds,
    Millis,
}

/// Units from large to small, each at most once.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("M", 30 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
];

fn time(text: &str, precision: Precision) -> Option<Duration> {
    let mut total_ms = 0_u64;
    let mut rest = text;
    let mut allowed = 0;
    while !rest.is_empty() {
        let digits_len = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = count(&rest[..digits_len])?;
        rest = &rest[digits_len..];
        let (factor, len) = if rest.starts_with("ms") {
            if precision == Precision::Seconds {
                return None;
            }
            allowed = UNITS.len();
            (1, 2)
        } else if rest.is_empty() || rest.starts_with(' ') {
            allowed = UNITS.len();
            (1000, 0)
        } else {
            let place = UNITS[allowed..].iter().position(|(unit, _)| rest.starts_with(unit))?;
            allowed += place + 1;
            (UNITS[allowed - 1].1, 1)
        };
        total_ms = total_ms.checked_add(number.checked_mul(factor)?)?;
        rest = rest[len..].trim_start_matches(' ');
    }
    (!text.is_empty()).then(|| Duration::from_millis(total_ms))
}

/// `on` or `off`, in any case.
pub fn flag(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("on") {
        return Some(true);
    }
    text.eq_ignore_ascii_case("off").then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("16"), Some(16));
        assert_eq!(size("16k"), Some(16 << 10));
        assert_eq!(size("2M"), Some(2 << 20));
        assert_eq!((size("1g"), offset("1g")), (None, Some(1 << 30)));
        assert_eq!((size(""), size("k"), size("-1"), size("1.5k")), (None, None, None, None));
        assert_eq!(offset("99999999999999999g"), None);
    }

    #[test]
    fn times_have_units() {
        assert_eq!(seconds("75"), Some(Duration::from_secs(75)));
        assert_eq!(seconds("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(seconds("1h 5"), Some(Duration::from_secs(3605)));
        assert_eq!(millis("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(millis("1s500ms"), Some(Duration::from_millis(1500)));
        assert_eq!((seconds("250ms"), seconds(""), seconds("s"), seconds("1s1m")), (None, None, None, None));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,12}") {
            let _ = (size(&text), offset(&text), seconds(&text), millis(&text), flag(&text));
        }
    }
}
