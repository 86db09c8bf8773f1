//! What virtual users write. The text follows from its number, so a reader can check it without having kept it.

use crate::logic::random::Random;
use std::time::Duration;

const WORDS: [&str; 24] = [
    "balance", "replica", "socket", "offset", "ledger", "river", "window", "lantern", "copper", "signal",
    "garden", "violet", "morning", "anchor", "pepper", "saddle", "timber", "quiet", "marble", "harbour",
    "kettle", "orbit", "paper", "willow",
];

/// The text of message `n` of a user: 4 to 23 words, the same each time it is asked for.
pub fn message(seed: u64, user: u32, n: u64) -> String {
    let mut random = Random::new(Random::of_user(seed, user).next_u64() ^ n);
    let words = 4 + random.below(20);
    let mut text = format!("message {n} of {user}:");
    for _ in 0..words {
        text.push(' ');
        text.push_str(WORDS[random.below(WORDS.len() as u64) as usize]);
    }
    text
}

/// A text that says when it was sent, on the clock of this run.
pub fn stamped(run: &str, sent: Duration, text: &str) -> String {
    format!("lt/{run}/{} {text}", sent.as_micros())
}

/// When a text of this run was sent; `None` for texts of others.
pub fn stamp_of(run: &str, content: &str) -> Option<Duration> {
    let stamp = content.strip_prefix("lt/")?.strip_prefix(run)?.strip_prefix('/')?;
    let (micros, _) = stamp.split_once(' ')?;
    micros.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_the_same_each_time_and_differs_from_the_next() {
        assert_eq!(message(1, 2, 3), message(1, 2, 3));
        assert_ne!(message(1, 2, 3), message(1, 2, 4));
        assert_ne!(message(1, 2, 3), message(1, 3, 3));
    }

    proptest! {
        #[test]
        fn a_stamp_is_read_by_its_own_run_only(micros in 0u64..u64::MAX / 2, text in ".{0,40}") {
            let sent = Duration::from_micros(micros);
            let content = stamped("a1b2", sent, &text);
            prop_assert_eq!(stamp_of("a1b2", &content), Some(sent));
            prop_assert_eq!(stamp_of("a1b", &content), None);
            prop_assert_eq!(stamp_of("ffff", &content), None);
        }

        #[test]
        fn foreign_texts_have_no_stamp_and_do_not_panic(text in ".{0,60}") {
            prop_assert_eq!(stamp_of("a1b2", &text), None);
        }
    }
}
