//! What active checks have found of a server: how often they must agree before its state turns.

use serde::{Deserialize, Serialize};

use super::Unusable;
use crate::conf::check::CheckTerms;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Checks {
    state: State,
    /// Answers in a row that speak against the present state.
    streak: u32,
    pub checks: u64,
    pub fails: u64,
    /// How often the server became unhealthy.
    pub unhealthy: u64,
    pub last_passed: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
enum State {
    /// No checks, or none that must be passed first.
    #[default]
    Trusted,
    Checking,
    Healthy,
    Unhealthy,
}

/// How a check changed the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Healthy,
    Unhealthy,
}

impl Checks {
    /// A check is about to begin. With `mandatory` a server that none has seen yet waits for the first answer.
    pub fn begin(&mut self, terms: CheckTerms) {
        if terms.mandatory && self.state == State::Trusted && self.checks == 0 {
            self.state = State::Checking;
        }
    }

    /// Nobody checks this server any more.
    pub fn end(&mut self) {
        *self = Checks::default();
    }

    pub fn unusable(&self) -> Option<Unusable> {
        match self.state {
            State::Trusted | State::Healthy => None,
            State::Checking => Some(Unusable::Checking),
            State::Unhealthy => Some(Unusable::Unhealthy),
        }
    }

    pub(super) fn on_check(&mut self, passed: bool, terms: CheckTerms) -> Option<Turn> {
        self.checks += 1;
        self.fails += u64::from(!passed);
        self.last_passed = Some(passed);
        let (turns_at, next) = match (self.state, passed) {
            (State::Trusted | State::Healthy, true) | (State::Unhealthy, false) => {
                self.streak = 0;
                if passed {
                    self.state = State::Healthy;
                }
                return None;
            }
            // The first answer decides.
            (State::Checking, true) => (1, State::Healthy),
            (State::Checking, false) => (1, State::Unhealthy),
            (State::Trusted | State::Healthy, false) => (terms.fails, State::Unhealthy),
            (State::Unhealthy, true) => (terms.passes, State::Healthy),
        };
        self.streak += 1;
        if self.streak < turns_at {
            return None;
        }
        self.state = next;
        self.streak = 0;
        if next == State::Unhealthy {
            self.unhealthy += 1;
            return Some(Turn::Unhealthy);
        }
        Some(Turn::Healthy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mandatory_check_keeps_a_new_server_out_until_its_first_answer() {
        let terms = CheckTerms { fails: 3, passes: 2, mandatory: true };
        let mut checks = Checks::default();
        checks.begin(terms);
        assert_eq!(checks.unusable(), Some(Unusable::Checking));
        assert_eq!(checks.on_check(true, terms), Some(Turn::Healthy));
        checks.begin(terms);
        assert_eq!(checks.unusable(), None, "a server that was seen is not new");
        let mut other = Checks::default();
        other.begin(terms);
        assert_eq!(other.on_check(false, terms), Some(Turn::Unhealthy), "one failure is enough here");
    }

    proptest! {
        /// The state is what the last `fails` or `passes` answers in a row say.
        #[test]
        fn only_a_row_of_equal_answers_turns_the_state(
            answers in prop::collection::vec(any::<bool>(), 0..60), fails in 1_u32..4, passes in 1_u32..4,
        ) {
            let terms = CheckTerms { fails, passes, mandatory: false };
            let mut checks = Checks::default();
            let (mut is_up, mut row, mut last) = (true, 0, None);
            for passed in answers {
                row = if last == Some(passed) { row + 1 } else { 1 };
                last = Some(passed);
                let turn = checks.on_check(passed, terms);
                let mut expected = None;
                if is_up && !passed && row >= fails {
                    (is_up, expected) = (false, Some(Turn::Unhealthy));
                } else if !is_up && passed && row >= passes {
                    (is_up, expected) = (true, Some(Turn::Healthy));
                }
                prop_assert_eq!(turn, expected);
                prop_assert_eq!(checks.unusable().is_none(), is_up);
            }
        }
    }
}
