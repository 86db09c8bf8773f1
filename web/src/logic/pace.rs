//! How fast one WebSocket may send: a bucket of frames that refills by time, and how long excess is forgiven.

use std::time::Instant;

use crate::logic::rate::Rate;

/// Frames in a row that are refused before the connection is closed: a client that does not read its errors.
const REFUSED_LEN_MAX: u32 = 50;

/// The rate of one socket, and how often it was exceeded in a row.
#[derive(Debug, Clone)]
pub struct Pace {
    rate: Rate,
    full_at: Option<Instant>,
    refused: u32,
}

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Admit,
    /// Answer with an error; nothing is done.
    Refuse,
    Close,
}

impl Pace {
    /// `per_s` frames each second in the long run, `burst` at once.
    pub fn new(per_s: u32, burst: u32) -> Self {
        Self { rate: Rate::new(per_s, burst), full_at: None, refused: 0 }
    }

    pub fn on_frame(&mut self, now: Instant) -> Verdict {
        if let Ok(full_at) = self.rate.admit(self.full_at, now) {
            self.full_at = Some(full_at);
            self.refused = 0;
            return Verdict::Admit;
        }
        self.refused += 1;
        if self.refused > REFUSED_LEN_MAX { Verdict::Close } else { Verdict::Refuse }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_then_frames_are_refused_then_the_connection_is_closed() {
        let now = Instant::now();
        let mut pace = Pace::new(10, 5);
        for _ in 0..5 {
            assert_eq!(pace.on_frame(now), Verdict::Admit);
        }
        for _ in 0..REFUSED_LEN_MAX {
            assert_eq!(pace.on_frame(now), Verdict::Refuse);
        }
        assert_eq!(pace.on_frame(now), Verdict::Close);
        assert_eq!(pace.on_frame(now + Duration::from_millis(100)), Verdict::Admit, "time heals");
    }

    proptest! {
        #[test]
        fn never_more_than_burst_plus_rate_passes(gaps_ms in prop::collection::vec(0u64..50, 1..400)) {
            let start = Instant::now();
            let mut now = start;
            let mut pace = Pace::new(20, 10);
            let mut admitted = 0u32;
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                if pace.on_frame(now) == Verdict::Admit {
                    admitted += 1;
                }
                let allowed = 10.0 + (now - start).as_secs_f64() * 20.0;
                prop_assert!(f64::from(admitted) <= allowed + 1e-6);
            }
        }
    }
}
