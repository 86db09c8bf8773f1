//! What active checks have found of a server: how often they must agree before its state turns.

use serde::{Deserialize, Serialize};

use super::Unusable;
use crate::conf::check::CheckTerms;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Checks {
    /// By the place of the check in its group; what none has told of is trusted.
    #[serde(default)]
    verdicts: Vec<Verdict>,
    pub checks: u64,
    pub fails: u64,
    /// How often the server became unhealthy.
    pub unhealthy: u64,
    pub last_passed: Option<bool>,
}

/// What one check says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Verdict {
    state: State,
    /// Answers in a row that speak against the present state.
    streak: u32,
    is_known: bool,
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

/// How a check changed what all of them say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Healthy,
    Unhealthy,
}

impl Checks {
    /// A check is about to begin. With `mandatory` a server that none has seen yet waits for the first answer.
    pub fn begin(&mut self, terms: CheckTerms) {
        let is_new = self.checks == 0;
        let verdict = self.verdict(terms.place);
        if terms.mandatory && is_new && verdict.state == State::Trusted {
            verdict.state = State::Checking;
        }
    }

    /// So many checks are left of this server; what others have found no longer counts.
    pub fn keep(&mut self, count: usize) {
        self.verdicts.truncate(count);
        if count == 0 {
            *self = Checks::default();
        }
    }

    /// This check has seen the server.
    pub fn is_known(&self, place: usize) -> bool {
        self.verdicts.get(place).is_some_and(|verdict| verdict.is_known)
    }

    /// One check that speaks against the server is enough.
    pub fn unusable(&self) -> Option<Unusable> {
        let is = |state: State| self.verdicts.iter().any(|verdict| verdict.state == state);
        match () {
            () if is(State::Unhealthy) => Some(Unusable::Unhealthy),
            () if is(State::Checking) => Some(Unusable::Checking),
            () => None,
        }
    }

    pub(super) fn on_check(&mut self, passed: bool, terms: CheckTerms) -> Option<Turn> {
        self.checks += 1;
        self.fails += u64::from(!passed);
        self.last_passed = Some(passed);
        let before = self.unusable();
        self.verdict(terms.place).on_check(passed, terms);
        match (before, self.unusable()) {
            (Some(Unusable::Unhealthy), Some(_)) | (None, None) => None,
            (_, Some(Unusable::Unhealthy)) => {
                self.unhealthy += 1;
                Some(Turn::Unhealthy)
            }
            (_, Some(_)) => None,
            (Some(_), None) => Some(Turn::Healthy),
        }
    }

    fn verdict(&mut self, place: usize) -> &mut Verdict {
        if self.verdicts.len() <= place {
            self.verdicts.resize_with(place + 1, Verdict::default);
        }
        &mut self.verdicts[place]
    }
}

impl Verdict {
    fn on_check(&mut self, passed: bool, terms: CheckTerms) {
        self.is_known = true;
        let (turns_at, next) = match (self.state, passed) {
            (State::Trusted | State::Healthy, true) => (0, State::Healthy),
            (State::Unhealthy, false) => (0, State::Unhealthy),
            // The first answer decides.
            (State::Checking, true) => (1, State::Healthy),
            (State::Checking, false) => (1, State::Unhealthy),
            (State::Trusted | State::Healthy, false) => (terms.fails, State::Unhealthy),
            (State::Unhealthy, true) => (terms.passes, State::Healthy),
        };
        self.streak += 1;
        if self.streak >= turns_at {
            (self.state, self.streak) = (next, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mandatory_check_keeps_a_new_server_out_until_its_first_answer() {
        let terms = CheckTerms { place: 0, fails: 3, passes: 2, mandatory: true };
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

    #[test]
    fn a_check_that_has_gone_no_longer_speaks_against_a_server() {
        let terms = |place| CheckTerms { place, fails: 1, passes: 1, mandatory: false };
        let mut checks = Checks::default();
        assert_eq!(checks.on_check(false, terms(1)), Some(Turn::Unhealthy));
        assert_eq!((checks.is_known(0), checks.is_known(1)), (false, true));
        checks.keep(2);
        assert_eq!(checks.unusable(), Some(Unusable::Unhealthy));
        checks.keep(1);
        assert_eq!((checks.unusable(), checks.checks), (None, 1));
        checks.keep(0);
        assert_eq!(checks.checks, 0);
    }

    proptest! {
        /// Each has its own row of answers, and a server is there as long as all say so.
        #[test]
        fn one_of_several_checks_is_enough_to_keep_a_server_out(
            answers in prop::collection::vec((0_usize..3, any::<bool>()), 0..60), mandatory in any::<bool>(),
        ) {
            let terms = |place: usize| CheckTerms { place, fails: 2, passes: 2, mandatory };
            let mut checks = Checks::default();
            let mut alone = [Checks::default(), Checks::default(), Checks::default()];
            for (place, check) in alone.iter_mut().enumerate() {
                checks.begin(terms(place));
                check.begin(terms(place));
            }
            for (place, passed) in answers {
                let before = checks.unusable();
                let turn = checks.on_check(passed, terms(place));
                alone[place].on_check(passed, terms(place));
                let says = |what| alone.iter().any(|check| check.unusable() == Some(what));
                prop_assert_eq!(checks.unusable() == Some(Unusable::Unhealthy), says(Unusable::Unhealthy));
                prop_assert_eq!(checks.unusable().is_none(), alone.iter().all(|check| check.unusable().is_none()));
                prop_assert_eq!(turn == Some(Turn::Healthy), before.is_some() && checks.unusable().is_none());
                prop_assert!(turn != Some(Turn::Unhealthy) || before != Some(Unusable::Unhealthy));
            }
        }

        /// The state is what the last `fails` or `passes` answers in a row say.
        #[test]
        fn only_a_row_of_equal_answers_turns_the_state(
            answers in prop::collection::vec(any::<bool>(), 0..60), fails in 1_u32..4, passes in 1_u32..4,
        ) {
            let terms = CheckTerms { place: 0, fails, passes, mandatory: false };
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
