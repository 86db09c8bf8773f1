//! How far an answer in the making may be ahead of those who take it. Who takes it: see `stream/live.rs`.

use std::time::{Duration, Instant};

use crate::logic::stall::STALL_MAX;

/// Bytes that may be made ahead of whoever has taken most.
pub const AHEAD_MAX: usize = 16 * 1024;
/// Who is waited for takes within this time what was made when the wait began, as behind a full socket.
pub const WAIT_MAX: Duration = STALL_MAX;

/// The lead of one maker over the fastest of those who take its answer.
#[derive(Debug, Default)]
pub struct Lead {
    made_bytes: usize,
    taken_bytes: usize,
    pace: Pace,
}

#[derive(Debug, Clone, Copy, Default)]
enum Pace {
    #[default]
    Free,
    /// The maker was too far ahead: so many bytes must be taken by then.
    Held { owed_bytes: usize, until: Instant },
    /// They were not. The answer goes on for those who read it once it is stored.
    Released,
}

impl Lead {
    pub fn on_made(&mut self, bytes: usize) {
        self.made_bytes += bytes;
    }

    /// The fastest has taken so many bytes more.
    pub fn on_taken(&mut self, bytes: usize) {
        self.taken_bytes += bytes;
        debug_assert!(self.taken_bytes <= self.made_bytes, "nobody takes what is not made");
        self.pace = match self.pace {
            Pace::Held { owed_bytes, until } if owed_bytes > bytes => {
                Pace::Held { owed_bytes: owed_bytes - bytes, until }
            }
            Pace::Released if self.ahead() > 0 => Pace::Released,
            Pace::Free | Pace::Held { .. } | Pace::Released => Pace::Free,
        };
    }

    /// Until when the maker waits, unless somebody takes something before; `None`: it goes on.
    pub fn hold_until(&mut self, now: Instant) -> Option<Instant> {
        if self.ahead() <= AHEAD_MAX {
            return None;
        }
        match self.pace {
            Pace::Free => {
                let until = now + WAIT_MAX;
                self.pace = Pace::Held { owed_bytes: self.ahead(), until };
                Some(until)
            }
            Pace::Held { until, .. } if now < until => Some(until),
            Pace::Held { .. } | Pace::Released => {
                self.pace = Pace::Released;
                None
            }
        }
    }

    fn ahead(&self) -> usize {
        self.made_bytes.saturating_sub(self.taken_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_maker_waits_while_it_is_too_far_ahead_and_goes_on_when_enough_is_taken() {
        let start = Instant::now();
        let mut lead = Lead::default();
        lead.on_made(AHEAD_MAX);
        assert_eq!(lead.hold_until(start), None);
        lead.on_made(1);
        assert_eq!(lead.hold_until(start), Some(start + WAIT_MAX));
        lead.on_taken(1);
        assert_eq!(lead.hold_until(start + S), None);
    }

    #[test]
    fn who_takes_crumbs_does_not_put_the_end_of_the_wait_off() {
        let start = Instant::now();
        let mut lead = Lead::default();
        lead.on_made(AHEAD_MAX + 10);
        for at in 0..10 {
            assert_eq!(lead.hold_until(start + at * S), Some(start + WAIT_MAX), "after {at} s");
            lead.on_taken(1);
            lead.on_made(1);
        }
        assert_eq!(lead.hold_until(start + WAIT_MAX), None);
        lead.on_made(3 * AHEAD_MAX);
        assert_eq!(lead.hold_until(start + WAIT_MAX), None, "nor is it waited for again");
    }

    #[test]
    fn who_has_taken_all_after_all_is_waited_for_again() {
        let start = Instant::now();
        let mut lead = Lead::default();
        lead.on_made(AHEAD_MAX + 1);
        lead.hold_until(start);
        assert_eq!(lead.hold_until(start + WAIT_MAX), None);
        lead.on_taken(AHEAD_MAX + 1);
        lead.on_made(AHEAD_MAX + 1);
        let later = start + 2 * WAIT_MAX;
        assert_eq!(lead.hold_until(later), Some(later + WAIT_MAX));
    }

    proptest! {
        /// A maker of pieces of `piece_len`, and others who do `steps`: take so many bytes after so many milliseconds.
        #[test]
        fn a_lead_is_bounded_and_so_are_all_waits_together(
            piece_len in 1usize..9000,
            steps in prop::collection::vec((0u64..30_000, 0usize..20_000), 0..60),
        ) {
            const ANSWER_LEN: usize = 64 * 1024;
            let mut now = Instant::now();
            let (mut lead, mut waited, mut released) = (Lead::default(), Duration::ZERO, false);
            let mut steps = steps.into_iter();
            while lead.made_bytes < ANSWER_LEN {
                let Some(until) = lead.hold_until(now) else {
                    released |= matches!(lead.pace, Pace::Released);
                    prop_assert!(released || lead.ahead() <= AHEAD_MAX, "ahead by {}", lead.ahead());
                    lead.on_made(piece_len);
                    continue;
                };
                let (pause_ms, bytes) = steps.next().unwrap_or((u64::MAX, 0));
                let next = now.checked_add(Duration::from_millis(pause_ms)).unwrap_or(until).min(until);
                waited += next - now;
                now = next;
                lead.on_taken(bytes.min(lead.ahead()));
            }
            let waits = u32::try_from(lead.made_bytes / AHEAD_MAX + 1).expect("a small number");
            prop_assert!(waited <= waits * WAIT_MAX, "waited {waited:?}");
        }
    }
}
