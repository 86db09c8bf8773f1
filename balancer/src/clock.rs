//! The worker's clock: `now` as the thinkers take it, and the `Date` header, made once a second.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How nginx writes the time in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `$time_iso8601`
    Iso8601,
    /// `$time_local`
    CommonLog,
}

const ISO_8601: &[time::format_description::BorrowedFormatItem<'_>] =
    time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]+00:00");
const COMMON_LOG: &[time::format_description::BorrowedFormatItem<'_>] =
    time::macros::format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");

const COOKIE_SHORT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
    "[weekday repr:short], [day]-[month repr:short]-[year repr:last_two] [hour]:[minute]:[second] GMT"
);
const COOKIE_LONG: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
    "[weekday repr:short], [day]-[month repr:short]-[year] [hour]:[minute]:[second] GMT"
);

#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// Wall clock at `anchor`: from there on the monotonic clock counts, so that one reading serves both.
    anchor: Cell<(Instant, SystemTime)>,
    date_second: Cell<u64>,
    date: RefCell<[u8; 29]>,
    /// The second, and how both forms write it.
    log_times: RefCell<(u64, String, String)>,
}

/// After this long the wall clock is asked again: it may have been set.
const ANCHOR_AGE_MAX: Duration = Duration::from_secs(1);

impl Clock {
    pub fn new(started: Instant) -> Clock {
        Clock {
            started,
            anchor: Cell::new((Instant::now(), SystemTime::now())),
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

    /// Appends the time of day for a log. In UTC: the rules of time zones are not thread-safe to ask for.
    pub fn write_local(&self, now: Instant, form: Form, out: &mut Vec<u8>) -> bool {
        let mut known = self.log_times.borrow_mut();
        let wall = self.wall(now);
        let second = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if known.0 != second {
            let time = time::OffsetDateTime::from(wall);
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
        let wall = self.wall(now);
        let second = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut date = self.date.borrow_mut();
        if self.date_second.replace(second) != second {
            date.copy_from_slice(httpdate::fmt_http_date(wall).as_bytes());
        }
        out.extend_from_slice(&date[..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_in_the_form_of_rfc_9110() {
        let clock = Clock::new(Instant::now());
        let mut out = Vec::new();
        clock.write_date(Instant::now(), &mut out);
        let text = String::from_utf8(out).expect("ASCII");
        assert!(httpdate::parse_http_date(&text).is_ok() && text.ends_with(" GMT"), "{text}");
    }
}
