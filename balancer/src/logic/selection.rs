//! Conditional and partial requests (RFC 9110, 13 and 14): what of a file is wanted, from the request's fields and the
//! file's date, tag and length. As nginx decides them with `if_modified_since exact`.

use std::time::SystemTime;

/// The fields of the request that matter here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes<'a> {
    pub if_match: Option<&'a [u8]>,
    pub if_none_match: Option<&'a [u8]>,
    pub if_modified_since: Option<&'a [u8]>,
    pub if_unmodified_since: Option<&'a [u8]>,
    pub if_range: Option<&'a [u8]>,
    pub range: Option<&'a [u8]>,
}

/// What is there.
#[derive(Debug, Clone, Copy)]
pub struct Thing<'a> {
    /// With its quotes.
    pub tag: &'a [u8],
    /// Whole seconds, as the header tells it.
    pub modified: SystemTime,
    pub len: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    Whole,
    /// From the first byte to before the second.
    Part(u64, u64),
    NotModified,
    PreconditionFailed,
    Unsatisfiable,
}

pub fn select(wishes: &Wishes<'_>, thing: Thing<'_>) -> Selection {
    if let Some(date) = wishes.if_unmodified_since.and_then(date)
        && thing.modified > date
    {
        return Selection::PreconditionFailed;
    }
    if wishes.if_match.is_some_and(|tags| !has_tag(tags, thing.tag, Compare::Strong)) {
        return Selection::PreconditionFailed;
    }
    if is_unchanged(wishes, thing) {
        return Selection::NotModified;
    }
    match wishes.range {
        Some(range) if range_applies(wishes, thing) => part(range, thing.len),
        _ => Selection::Whole,
    }
}

/// Both must say so where both are given.
fn is_unchanged(wishes: &Wishes<'_>, thing: Thing<'_>) -> bool {
    let by_date = wishes.if_modified_since.map(|text| date(text) == Some(thing.modified));
    let by_tag = wishes.if_none_match.map(|tags| has_tag(tags, thing.tag, Compare::Weak));
    match (by_date, by_tag) {
        (None, None) => false,
        (by_date, by_tag) => by_date.unwrap_or(true) && by_tag.unwrap_or(true),
    }
}

fn range_applies(wishes: &Wishes<'_>, thing: Thing<'_>) -> bool {
    match wishes.if_range {
        None => true,
        Some(tag) if tag.ends_with(b"\"") => tag == thing.tag,
        Some(text) => date(text) == Some(thing.modified),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    Strong,
    Weak,
}

fn has_tag(list: &[u8], tag: &[u8], how: Compare) -> bool {
    if list == b"*" {
        return true;
    }
    let bare = |tag: &'_ [u8]| tag.strip_prefix(b"W/").map_or(tag.to_vec(), <[u8]>::to_vec);
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|one| match how {
        Compare::Strong => one == tag,
        Compare::Weak => bare(one) == bare(tag),
    })
}

fn date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()
}

/// One range; several at once are answered with the whole, which a server may do.
fn part(range: &[u8], len: u64) -> Selection {
    let Some(spec) = range.get(..6).filter(|unit| unit.eq_ignore_ascii_case(b"bytes=")).map(|_| &range[6..])
    else {
        return Selection::Whole;
    };
    if spec.contains(&b',') {
        return Selection::Whole;
    }
    let Some(dash) = spec.iter().position(|byte| *byte == b'-') else { return Selection::Unsatisfiable };
    let (first, last) = (spec[..dash].trim_ascii(), spec[dash + 1..].trim_ascii());
    let selected = match (number(first), number(last)) {
        _ if len == 0 => None,
        (None, Some(suffix)) if first.is_empty() => (suffix > 0).then(|| (len.saturating_sub(suffix), len)),
        (Some(start), None) if last.is_empty() => Some((start, len)),
        (Some(start), Some(end)) if start <= end => Some((start, end.saturating_add(1).min(len))),
        _ => None,
    };
    match selected.filter(|(start, end)| start < end) {
        Some((0, end)) if end == len => Selection::Part(0, len),
        Some((start, end)) => Selection::Part(start, end),
        None => Selection::Unsatisfiable,
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    const TAG: &[u8] = b"\"5-a\"";
    const DATE: &[u8] = b"Thu, 01 Jan 1970 00:00:05 GMT";
    const LATER: &[u8] = b"Thu, 01 Jan 1970 00:00:06 GMT";

    fn thing() -> Thing<'static> {
        Thing { tag: TAG, modified: UNIX_EPOCH + Duration::from_secs(5), len: 10 }
    }

    fn range(text: &str) -> Selection {
        select(&Wishes { range: Some(text.as_bytes()), ..Wishes::default() }, thing())
    }

    #[test]
    fn ranges_are_cut_to_the_length() {
        assert_eq!(range("bytes=0-3"), Selection::Part(0, 4));
        assert_eq!(range("bytes=4-"), Selection::Part(4, 10));
        assert_eq!(range("bytes=-3"), Selection::Part(7, 10));
        assert_eq!(range("bytes=-30"), Selection::Part(0, 10));
        assert_eq!(range("bytes=8-99"), Selection::Part(8, 10));
        assert_eq!(range("bytes=10-"), Selection::Unsatisfiable);
        assert_eq!(range("bytes=5-4"), Selection::Unsatisfiable);
        assert_eq!(range("bytes=-0"), Selection::Unsatisfiable);
        assert_eq!(range("bytes=x"), Selection::Unsatisfiable);
        assert_eq!(range("lines=1-2"), Selection::Whole);
        assert_eq!(range("bytes=0-1,3-4"), Selection::Whole);
    }

    #[test]
    fn conditions_come_before_ranges() {
        let wishes = Wishes { range: Some(b"bytes=0-3"), ..Wishes::default() };
        let with = |wishes: Wishes<'_>| select(&wishes, thing());
        assert_eq!(
            with(Wishes { if_none_match: Some(b"\"x\", W/\"5-a\""), ..wishes }),
            Selection::NotModified
        );
        assert_eq!(with(Wishes { if_modified_since: Some(DATE), ..wishes }), Selection::NotModified);
        assert_eq!(with(Wishes { if_modified_since: Some(LATER), ..wishes }), Selection::Part(0, 4));
        assert_eq!(
            with(Wishes { if_modified_since: Some(DATE), if_none_match: Some(b"\"x\""), ..wishes }),
            Selection::Part(0, 4)
        );
        assert_eq!(with(Wishes { if_match: Some(b"\"x\""), ..wishes }), Selection::PreconditionFailed);
        assert_eq!(with(Wishes { if_match: Some(b"*"), ..wishes }), Selection::Part(0, 4));
        let earlier: &[u8] = b"Thu, 01 Jan 1970 00:00:04 GMT";
        assert_eq!(
            with(Wishes { if_unmodified_since: Some(earlier), ..wishes }),
            Selection::PreconditionFailed
        );
        assert_eq!(with(Wishes { if_range: Some(TAG), ..wishes }), Selection::Part(0, 4));
        assert_eq!(with(Wishes { if_range: Some(LATER), ..wishes }), Selection::Whole);
    }

    proptest! {
        #[test]
        fn any_range_is_within_the_file(text in "bytes=[0-9,x-]{0,12}", len in 0_u64..50) {
            let wishes = Wishes { range: Some(text.as_bytes()), ..Wishes::default() };
            if let Selection::Part(start, end) = select(&wishes, Thing { len, ..thing() }) {
                prop_assert!(start < end && end <= len);
            }
        }
    }
}
