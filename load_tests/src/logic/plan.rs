//! What a run is to do, as one value: checked, complete, with no trace of how it was written on the command line.

use crate::logic::arrival::Arrival;
use crate::logic::durations;
use crate::logic::mix::Mix;
use crate::logic::random::Random;
use crate::logic::target::Target;
use std::str::FromStr;
use std::time::Duration;

/// A whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub target: Target,
    pub arrival: Arrival,
    pub mix: Mix,
    pub run_time: Duration,
    pub wait: Wait,
    /// Registered once and shared by the users: a registration costs the stack some 20 ms of CPU by design.
    pub accounts: u32,
    pub room_size: u32,
    /// Loopback networks (127.0.1.0/24 …) the users come from; 0 leaves the choice to the system.
    pub sources: u8,
    pub seed: u64,
    pub answer_limit: Duration,
}

/// How long a user thinks between two requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    pub least: Duration,
    pub most: Duration,
}

impl Wait {
    /// One pause, evenly spread.
    pub fn next(&self, random: &mut Random) -> Duration {
        let span_us = u64::try_from((self.most - self.least).as_micros()).unwrap_or(u64::MAX - 1);
        self.least + Duration::from_micros(random.below(span_us + 1))
    }
}

impl FromStr for Wait {
    type Err = String;

    /// `1s..3s`, or one span for a constant pause; `0` asks again at once.
    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let (least, most) = (durations::parse(least)?, durations::parse(most)?);
        if least > most {
            Err(format!("the wait `{text}` ends before it begins"))
        } else {
            Ok(Self { least, most })
        }
    }
}

/// A named mix, or one of the documented load scenarios with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    Api,
    Stream,
    Socket,
    Mixed,
    Baseline,
    Stress,
    Sustained,
}

/// What a scenario says when the command line does not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    pub mix: Mix,
    pub users: u32,
    pub spawn_per_s: f64,
    pub run_time: Duration,
}

impl Scenario {
    pub const WORDS: [(&str, Self); 7] = [
        ("api", Self::Api),
        ("stream", Self::Stream),
        ("ws", Self::Socket),
        ("mixed", Self::Mixed),
        ("baseline", Self::Baseline),
        ("stress", Self::Stress),
        ("sustained", Self::Sustained),
    ];

    pub fn defaults(self) -> Defaults {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let small = |mix| Defaults { mix, users: 10, spawn_per_s: 10.0, run_time: Duration::from_secs(30) };
        let large = |users, spawn_per_s, run_time| Defaults { mix: Mix::MIXED, users, spawn_per_s, run_time };
        match self {
            Self::Api => small(Mix::API),
            Self::Stream => small(Mix::STREAM),
            Self::Socket => small(Mix::SOCKET),
            Self::Mixed => small(Mix::MIXED),
            Self::Baseline => large(200, 10.0, minutes(10)),
            Self::Stress => large(1000, 50.0, minutes(10)),
            Self::Sustained => large(500, 25.0, minutes(30)),
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = Self::WORDS.map(|(word, _)| word).join(", ");
        let found = Self::WORDS.iter().find(|(word, _)| *word == text);
        found.map(|(_, scenario)| *scenario).ok_or_else(|| format!("no scenario `{text}`: one of {words}"))
    }
}

#[cfg(test)]
impl Plan {
    pub fn example() -> Self {
        Self {
            target: "http://127.0.0.1:8080".parse().expect("a target"),
            arrival: Arrival::Closed { users: 10, spawn_per_s: 10.0 },
            mix: Mix::MIXED,
            run_time: Duration::from_secs(5),
            wait: Wait { least: Duration::ZERO, most: Duration::ZERO },
            accounts: 4,
            room_size: 10,
            sources: 0,
            seed: 1,
            answer_limit: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wait_is_a_span_or_two() {
        let ms = Duration::from_millis;
        assert_eq!("0".parse(), Ok(Wait { least: ms(0), most: ms(0) }));
        assert_eq!("500ms..1.5s".parse(), Ok(Wait { least: ms(500), most: ms(1500) }));
        assert!("3s..1s".parse::<Wait>().is_err());
        assert!("..".parse::<Wait>().is_err());
    }

    #[test]
    fn documented_scenarios_have_their_documented_numbers() {
        let stress = "stress".parse::<Scenario>().expect("a scenario").defaults();
        assert_eq!(
            (stress.users, stress.spawn_per_s, stress.run_time),
            (1000, 50.0, Duration::from_secs(600))
        );
        assert!("peak".parse::<Scenario>().expect_err("unknown").contains("baseline"));
    }

    proptest! {
        #[test]
        fn a_pause_lies_within_the_wait(seed: u64, least in 0u64..5000, more in 0u64..5000) {
            let wait = Wait { least: Duration::from_millis(least), most: Duration::from_millis(least + more) };
            let pause = wait.next(&mut Random::new(seed));
            prop_assert!(wait.least <= pause && pause <= wait.most);
        }
    }
}
