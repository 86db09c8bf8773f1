//! The worker's clock: `now` as the thinkers take it, and the `Date` header, made once a second.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How nginx writes the time in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `$time_iso8601`
    Iso8601,
    /// `$time_local`
    CommonLog,
}

const ISO_8601: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
    "[year]-[month]-[day]T[hour]:[minute]:[second][offset_hour sign:mandatory]:[offset_minute]"
);
const COMMON_LOG: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
    "[day]/[month repr:short]/[year]:[hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]"
);

const COOKIE_SHORT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
    "[weekday repr:short], [day]-[month repr:short]-[year repr:last_two] [hour]:[minute]:[second] GMT"
);
const COOKIE_LONG: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
    "[weekday repr:short], [day]-[month repr:short]-[year] [hour]:[minute]:[second] GMT"
);

/// The machine's time zone: `TZ`, else /etc/localtime. Read once.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Default for Zone {
    fn default() -> Zone {
        Zone(TimeZone::system())
    }
}

impl Zone {
    /// The moment as the clocks on the wall show it. What no zone knows of is told in UTC.
    pub fn local(&self, at: SystemTime) -> time::OffsetDateTime {
        let seconds = Timestamp::try_from(at).map_or(0, |at| self.0.to_offset(at).seconds());
        let offset = time::UtcOffset::from_whole_seconds(seconds).unwrap_or(time::UtcOffset::UTC);
        time::OffsetDateTime::from(at).to_offset(offset)
    }
}

#[derive(Debug)]
pub struct Clock {
    zone: Zone,
    started: Instant,
    /// Wall clock at `anchor`: from there on the monotonic clock counts, so that one reading serves both.
    anchor: Cell<(Instant, SystemTime)>,
    second: Cell<Second>,
    date_second: Cell<u64>,
    date: RefCell<[u8; 29]>,
    /// The second, and how both forms write it.
    log_times: RefCell<(u64, String, String)>,
}

/// A second of the wall clock, as far as one reading of it tells: comparing two moments is a fraction of the cost of
/// subtracting them, and the time of day is asked for with each request.
#[derive(Debug, Clone, Copy)]
struct Second {
    from: Instant,
    until: Instant,
    since_epoch: u64,
}

/// After this long the wall clock is asked again: it may have been set.
const ANCHOR_AGE_MAX: Duration = Duration::from_secs(1);

impl Clock {
    pub fn new(started: Instant) -> Clock {
        let now = Instant::now();
        Clock {
            zone: Zone::default(),
            started,
            anchor: Cell::new((now, SystemTime::now())),
            second: Cell::new(Second { from: now, until: now, since_epoch: 0 }),
            date_second: Cell::new(u64::MAX),
            date: RefCell::new([b' '; 29]),
            log_times: RefCell::default(),
        }
    }

    /// Time since the process started.
    pub fn since_start(&self, now: Instant) -> Duration {
        now.duration_since(self.started)
    }

    pub fn wall(&self, now: Instant) -> SystemTime {
        let (mut anchor, mut wall) = self.anchor.get();
        if now.saturating_duration_since(anchor) >= ANCHOR_AGE_MAX {
            (anchor, wall) = (Instant::now(), SystemTime::now());
            self.anchor.set((anchor, wall));
        }
        wall + now.saturating_duration_since(anchor)
    }

    /// Whole seconds of the wall clock since 1970.
    fn second(&self, now: Instant) -> u64 {
        let known = self.second.get();
        if known.from <= now && now < known.until {
            return known.since_epoch;
        }
        let since = self.wall(now).duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_secs(1) - Duration::from_nanos(u64::from(since.subsec_nanos()));
        // No longer than `wall` goes by its anchor: the clock may be set in the middle of a second.
        let until = (now + left).min(self.anchor.get().0 + ANCHOR_AGE_MAX);
        self.second.set(Second { from: now, until, since_epoch: since.as_secs() });
        since.as_secs()
    }

    /// How far local time is ahead of UTC.
    pub fn offset_seconds(&self, now: Instant) -> i32 {
        self.zone.local(self.wall(now)).offset().whole_seconds()
    }

    /// Appends the time of day for a log.
    pub fn write_local(&self, now: Instant, form: Form, out: &mut Vec<u8>) -> bool {
        let mut known = self.log_times.borrow_mut();
        let second = self.second(now);
        if known.0 != second {
            let time = self.zone.local(self.wall(now));
            let text = |format: &[time::format_description::BorrowedFormatItem<'_>]| {
                time.format(format).unwrap_or_default()
            };
            *known = (second, text(ISO_8601), text(COMMON_LOG));
        }
        out.extend_from_slice(match form {
            Form::Iso8601 => known.1.as_bytes(),
            Form::CommonLog => known.2.as_bytes(),
        });
        true
    }

    /// Appends when a cookie that is set now ends, in nginx's form: two digits of the year up to 2037, then four.
    pub fn write_cookie_time(&self, now: Instant, after: Duration, out: &mut Vec<u8>) {
        let time = time::OffsetDateTime::from(self.wall(now) + after);
        let form = if time.year() > 2037 { COOKIE_LONG } else { COOKIE_SHORT };
        out.extend_from_slice(time.format(form).unwrap_or_default().as_bytes());
    }

    /// Appends the value of `Date`.
    pub fn write_date(&self, now: Instant, out: &mut Vec<u8>) {
        let second = self.second(now);
        let mut date = self.date.borrow_mut();
        if self.date_second.replace(second) != second {
            date.copy_from_slice(httpdate::fmt_http_date(self.wall(now)).as_bytes());
        }
        out.extend_from_slice(&date[..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_tell_local_time_with_its_offset() {
        let mut clock = Clock::new(Instant::now());
        clock.zone =
            Zone(TimeZone::fixed(jiff::tz::Offset::from_seconds(-(3 * 3600 + 1800)).expect("in range")));
        let at = clock.zone.local(UNIX_EPOCH + Duration::from_secs(86_400));
        assert_eq!((at.day(), at.hour(), at.minute()), (1, 20, 30));
        let written = |form| {
            let mut out = Vec::new();
            clock.write_local(Instant::now(), form, &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        assert!(written(Form::CommonLog).ends_with(" -0330"), "{}", written(Form::CommonLog));
        assert!(written(Form::Iso8601).ends_with("-03:30"), "{}", written(Form::Iso8601));
    }

    #[test]
    fn a_second_lasts_until_the_wall_clock_shows_the_next() {
        let clock = Clock::new(Instant::now());
        let begun = Instant::now();
        for step in 0..3000 {
            // Back and forth: moments do not always come in order.
            let now = begun + Duration::from_millis(if step % 3 == 0 { step / 2 } else { step });
            let plain = clock.wall(now).duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
            assert_eq!(clock.second(now), plain, "{step}");
        }
    }

    #[test]
    fn the_date_is_in_the_form_of_rfc_9110() {
        let clock = Clock::new(Instant::now());
        let mut out = Vec::new();
        clock.write_date(Instant::now(), &mut out);
        let text = String::from_utf8(out).expect("ASCII");
        assert!(httpdate::parse_http_date(&text).is_ok() && text.ends_with(" GMT"), "{text}");
    }
}
