//! Conditional and partial requests (RFC 9110, 13 and 14): what of a file is wanted, from the request's fields and the
//! file's date, tag and length. As nginx decides them.

use std::ops::Range;
use std::time::SystemTime;

use crate::conf::files::Dates;

/// nginx: what stands around a part costs as much as so many bytes of it …
const PART_COST: u64 = 256;
/// … and so much more than the whole may be sent for all of them.
const PARTS_SURPLUS_MAX: u64 = 4096;
/// Of a number in a range.
const NUMBER_MAX: u64 = i64::MAX.cast_unsigned();

/// The fields of the request that matter here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes<'a> {
    pub if_match: Option<&'a [u8]>,
    pub if_none_match: Option<&'a [u8]>,
    pub if_modified_since: Option<&'a [u8]>,
    pub if_unmodified_since: Option<&'a [u8]>,
    pub if_range: Option<&'a [u8]>,
    pub range: Option<&'a [u8]>,
    /// What is made of the date in `if_modified_since`.
    pub dates: Dates,
    /// Of more ranges than these the whole is sent.
    pub ranges_max: Option<usize>,
}

/// What is there.
#[derive(Debug, Clone, Copy)]
pub struct Thing<'a> {
    /// With its quotes; empty: it has none.
    pub tag: &'a [u8],
    /// Whole seconds, as the header tells it.
    pub modified: SystemTime,
    pub len: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    Whole,
    Part(Range<u64>),
    /// In the order in which they were asked for; some bytes may be in several of them.
    Parts(Vec<Range<u64>>),
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
        Some(range) if range_applies(wishes, thing) => parts(range, thing.len, wishes.ranges_max),
        _ => Selection::Whole,
    }
}

/// Both must say so where both are given.
fn is_unchanged(wishes: &Wishes<'_>, thing: Thing<'_>) -> bool {
    let is_since = |text| match (wishes.dates, date(text)) {
        (Dates::Before, Some(date)) => date >= thing.modified,
        (_, date) => date == Some(thing.modified),
    };
    let by_date = wishes.if_modified_since.filter(|_| wishes.dates != Dates::Off).map(is_since);
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
    !tag.is_empty()
        && list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|one| match how {
            Compare::Strong => one == tag,
            Compare::Weak => bare(one) == bare(tag),
        })
}

fn date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()
}

/// Where several ranges would cost more than the whole, that is sent.
fn parts(text: &[u8], len: u64, count_max: Option<usize>) -> Selection {
    let Some((unit, list)) = text.split_at_checked(6).filter(|(_, list)| !list.is_empty()) else {
        return Selection::Whole;
    };
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return Selection::Whole;
    }
    let mut found: Vec<Range<u64>> = Vec::new();
    for text in list.split(|byte| *byte == b',') {
        match range(text, len) {
            None => return Selection::Unsatisfiable,
            Some(range) if !range.is_empty() => {
                if count_max == Some(found.len()) {
                    return Selection::Whole;
                }
                found.push(range);
            }
            // nginx: from the first byte on there is nothing.
            Some(Range { start: 0, .. }) => return Selection::Whole,
            Some(_) => {}
        }
    }
    let sum = found.iter().fold(0, |sum: u64, range| sum.saturating_add(range.end - range.start));
    let cost = sum.saturating_add(found.len() as u64 * PART_COST);
    match &found[..] {
        [] => Selection::Unsatisfiable,
        [one] => Selection::Part(one.clone()),
        _ if sum > len || cost > len.saturating_add(PARTS_SURPLUS_MAX) => Selection::Whole,
        _ => Selection::Parts(found),
    }
}

/// One of the list, cut to what there is. `None`: it breaks the rules.
fn range(text: &[u8], len: u64) -> Option<Range<u64>> {
    let text = without_spaces(text);
    if let Some(suffix) = text.strip_prefix(b"-") {
        return Some(len.saturating_sub(number(suffix)?)..len);
    }
    let dash = text.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (without_spaces(&text[..dash]), without_spaces(&text[dash + 1..]));
    let start = number(first)?;
    let end = if last.is_empty() { len } else { number(last)?.saturating_add(1).min(len) };
    Some(start..end)
}

fn without_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number <= NUMBER_MAX).then_some(number)
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

    fn asked(text: &str) -> Selection {
        select(&Wishes { range: Some(text.as_bytes()), ..Wishes::default() }, thing())
    }

    #[test]
    fn ranges_are_cut_to_the_length() {
        assert_eq!(asked("bytes=0-3"), Selection::Part(0..4));
        assert_eq!(asked("bytes=4-"), Selection::Part(4..10));
        assert_eq!(asked("bytes=-3"), Selection::Part(7..10));
        assert_eq!(asked("bytes=-30"), Selection::Part(0..10));
        assert_eq!(asked("bytes=8-99"), Selection::Part(8..10));
        assert_eq!(asked("bytes= 8 - 9 "), Selection::Part(8..10));
        for text in
            ["bytes=10-", "bytes=5-4", "bytes=-0", "bytes=x", "bytes=- 3", "bytes=1 2-3", "bytes=\t1-"]
        {
            assert_eq!(asked(text), Selection::Unsatisfiable, "{text}");
        }
        for text in ["lines=1-2", "bytes=", "bytes", ""] {
            assert_eq!(asked(text), Selection::Whole, "{text}");
        }
        let max = i64::MAX;
        assert_eq!(asked(&format!("bytes=0-{max}")), Selection::Part(0..10));
        assert_eq!(asked(&format!("bytes=0-{}", max.cast_unsigned() + 1)), Selection::Unsatisfiable);
    }

    #[test]
    fn of_more_ranges_than_are_allowed_the_whole_is_sent() {
        let with = |ranges_max, text: &str| {
            select(&Wishes { range: Some(text.as_bytes()), ranges_max, ..Wishes::default() }, thing())
        };
        assert_eq!(with(Some(0), "bytes=0-1"), Selection::Whole);
        assert_eq!(with(Some(1), "bytes=0-1"), Selection::Part(0..2));
        assert_eq!(with(Some(1), "bytes=0-1,3-4"), Selection::Whole);
        assert_eq!(
            with(Some(1), "bytes=0-1,20-30"),
            Selection::Part(0..2),
            "what is not there does not count"
        );
    }

    #[test]
    fn several_ranges_come_as_they_were_asked_for() {
        assert_eq!(asked("bytes=0-1,3-4"), Selection::Parts(vec![0..2, 3..5]));
        assert_eq!(asked("bytes=8-,-3, 0-0"), Selection::Parts(vec![8..10, 7..10, 0..1]));
        assert_eq!(asked("bytes=0-1,20-30"), Selection::Part(0..2), "what is not there is left out");
        assert_eq!(asked("bytes=20-30,40-"), Selection::Unsatisfiable);
        for text in ["bytes=0-1,", "bytes=,0-1", "bytes=0-1,,3-4", "bytes=0-1;3-4", "bytes=0-1,x"] {
            assert_eq!(asked(text), Selection::Unsatisfiable, "{text}");
        }
    }

    #[test]
    fn ranges_that_cost_more_than_the_whole_are_answered_with_it() {
        assert_eq!(asked("bytes=0-9,0-0"), Selection::Whole, "eleven bytes of ten");
        assert_eq!(asked("bytes=0-4,0-4"), Selection::Parts(vec![0..5, 0..5]));
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        let of = |count, len| {
            select(
                &Wishes { range: Some(many(count).as_bytes()), ..Wishes::default() },
                Thing { len, ..thing() },
            )
        };
        // 16 * (256 + 1) = 4096 + 16.
        assert_eq!(of(16, 16), Selection::Parts(vec![0..1; 16]));
        assert_eq!(of(17, 17), Selection::Whole);
        assert_eq!(of(17, 17 * 257 - 4096), Selection::Parts(vec![0..1; 17]));
        assert_eq!(of(17, 17 * 257 - 4097), Selection::Whole);
    }

    #[test]
    fn of_nothing_all_of_it_is_sent_where_a_range_begins_with_it() {
        let of_nothing = |text: &str| {
            select(&Wishes { range: Some(text.as_bytes()), ..Wishes::default() }, Thing { len: 0, ..thing() })
        };
        assert_eq!(of_nothing("bytes=0-3"), Selection::Whole);
        assert_eq!(of_nothing("bytes=-3"), Selection::Whole);
        assert_eq!(of_nothing("bytes=1-3"), Selection::Unsatisfiable);
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
        assert_eq!(with(Wishes { if_modified_since: Some(LATER), ..wishes }), Selection::Part(0..4));
        assert_eq!(
            with(Wishes { if_modified_since: Some(DATE), if_none_match: Some(b"\"x\""), ..wishes }),
            Selection::Part(0..4)
        );
        assert_eq!(with(Wishes { if_match: Some(b"\"x\""), ..wishes }), Selection::PreconditionFailed);
        assert_eq!(with(Wishes { if_match: Some(b"*"), ..wishes }), Selection::Part(0..4));
        let earlier: &[u8] = b"Thu, 01 Jan 1970 00:00:04 GMT";
        assert_eq!(
            with(Wishes { if_unmodified_since: Some(earlier), ..wishes }),
            Selection::PreconditionFailed
        );
        assert_eq!(with(Wishes { if_range: Some(TAG), ..wishes }), Selection::Part(0..4));
        assert_eq!(with(Wishes { if_range: Some(LATER), ..wishes }), Selection::Whole);
    }

    #[test]
    fn a_later_date_is_as_good_where_the_configuration_says_so_and_none_where_it_says_that() {
        let with = |dates, text| {
            let wishes = Wishes { if_modified_since: Some(text), dates, ..Wishes::default() };
            select(&wishes, thing()) == Selection::NotModified
        };
        let earlier = b"Thu, 01 Jan 1970 00:00:04 GMT";
        assert_eq!([DATE, LATER, earlier].map(|text| with(Dates::Exact, text)), [true, false, false]);
        assert_eq!([DATE, LATER, earlier].map(|text| with(Dates::Before, text)), [true, true, false]);
        assert_eq!([DATE, LATER, earlier].map(|text| with(Dates::Off, text)), [false; 3]);
        assert!(!with(Dates::Before, b"yesterday"));
    }

    #[test]
    fn a_file_without_a_tag_has_none_that_anybody_could_name() {
        let bare = Thing { tag: b"", ..thing() };
        let matches = |tags: &'static [u8]| {
            select(&Wishes { if_none_match: Some(tags), ..Wishes::default() }, bare) == Selection::NotModified
        };
        assert_eq!([&b"*"[..], b"", b"a,,", b"\"\""].map(matches), [true, false, false, false]);
    }

    /// A range in words and the bytes that it means, by RFC 9110, section 14.1.2.
    #[derive(Debug, Clone)]
    enum Spec {
        FromTo(usize, usize),
        From(usize),
        Last(usize),
    }

    impl Spec {
        fn text(&self) -> String {
            match self {
                Spec::FromTo(first, last) => format!("{first}-{last}"),
                Spec::From(first) => format!("{first}-"),
                Spec::Last(count) => format!("-{count}"),
            }
        }

        fn of<'t>(&self, thing: &'t [u8]) -> &'t [u8] {
            let end = thing.len();
            match *self {
                Spec::FromTo(first, last) => &thing[first.min(end)..(last + 1).min(end).max(first.min(end))],
                Spec::From(first) => &thing[first.min(end)..],
                Spec::Last(count) => &thing[end.saturating_sub(count)..],
            }
        }
    }

    fn spec() -> impl Strategy<Value = Spec> {
        prop_oneof![
            (0usize..60, 0usize..20).prop_map(|(first, more)| Spec::FromTo(first, first + more)),
            (0usize..60).prop_map(Spec::From),
            (0usize..60).prop_map(Spec::Last),
        ]
    }

    proptest! {
        #[test]
        fn any_range_is_within_the_file(text in "bytes=[0-9, x-]{0,20}", len in 0_u64..50) {
            let wishes = Wishes { range: Some(text.as_bytes()), ..Wishes::default() };
            let parts = match select(&wishes, Thing { len, ..thing() }) {
                Selection::Part(part) => vec![part],
                Selection::Parts(parts) => {
                    prop_assert!(parts.len() > 1);
                    prop_assert!(parts.iter().map(|part| part.end - part.start).sum::<u64>() <= len);
                    parts
                }
                _ => Vec::new(),
            };
            for part in parts {
                prop_assert!(part.start < part.end && part.end <= len);
            }
        }

        #[test]
        fn sound_ranges_mean_the_bytes_that_the_standard_says(
            specs in proptest::collection::vec(spec(), 1..6),
            thing_len in 1usize..50,
        ) {
            let bytes: Vec<u8> = (0..thing_len as u8).collect();
            let text = format!("bytes={}", specs.iter().map(Spec::text).collect::<Vec<_>>().join(", "));
            let wanted: Vec<&[u8]> =
                specs.iter().map(|spec| spec.of(&bytes)).filter(|part| !part.is_empty()).collect();
            let wishes = Wishes { range: Some(text.as_bytes()), ..Wishes::default() };
            let selected = select(&wishes, Thing { len: thing_len as u64, ..thing() });
            let found = |parts: &[Range<u64>]| {
                parts.iter().map(|part| bytes[part.start as usize..part.end as usize].to_vec()).collect::<Vec<_>>()
            };
            match selected {
                Selection::Part(part) => prop_assert_eq!(found(&[part]), wanted),
                Selection::Parts(parts) => prop_assert_eq!(found(&parts), wanted),
                Selection::Unsatisfiable => prop_assert!(wanted.is_empty()),
                Selection::Whole => prop_assert!(wanted.iter().map(|part| part.len()).sum::<usize>() > thing_len),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
