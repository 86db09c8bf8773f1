//! What befell the members' connections in a trial, counted by kind, and what of it the blow explains. All else is a
//! fault: a client of the chat would have noticed it.

use crate::logic::close::Close;
use crate::logic::durations;
use std::collections::BTreeMap;
use std::time::Duration;

/// What may befall a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incident {
    /// The server closed it.
    Closed(Close),
    /// It ended without a close frame.
    Cut(String),
    /// An `error` frame.
    Refused { code: String, detail: String },
    /// A message was not acknowledged within this time, and the connection lived on.
    Unacknowledged(Duration),
}

/// What a blow does to connections while it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Harm {
    /// Replicas go away in good order: each socket is told when to come back.
    SentAway,
    /// The replicas of these names die without a word.
    Died(Vec<String>),
    /// No replica is touched.
    Nothing,
}

/// The incidents of a trial.
#[derive(Debug, Default)]
pub struct Incidents {
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    count: u64,
    unexplained: u64,
    /// The first one that nothing explains, in full.
    first: Option<String>,
}

impl Incident {
    /// The words under which incidents are counted together.
    fn headline(&self) -> String {
        match self {
            Self::Closed(close) => format!("closed with {}", close.code),
            Self::Cut(_) => "cut without a close frame".to_owned(),
            Self::Refused { code, .. } => format!("error frame {code}"),
            Self::Unacknowledged(limit) => format!("no ack within {}", durations::show(*limit)),
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Closed(close) => &close.reason,
            Self::Cut(detail) | Self::Refused { detail, .. } => detail,
            Self::Unacknowledged(_) => "",
        }
    }
}

impl Harm {
    /// No blow is to the database, and the contract has chat go on without Redis: no `error` frame has an excuse.
    fn explains(&self, served_by: &str, incident: &Incident) -> bool {
        match (self, incident) {
            (Self::SentAway, Incident::Closed(close)) => close.code == 1012 && close.retry_after_ms().is_ok(),
            (Self::Died(_), Incident::Cut(_) | Incident::Unacknowledged(_)) => self.kills(served_by),
            _ => false,
        }
    }

    /// Whether this replica dies by it.
    pub fn kills(&self, replica: &str) -> bool {
        matches!(self, Self::Died(victims) if victims.iter().any(|victim| victim == replica))
    }
}

impl Incidents {
    /// Something befell a connection to the replica `served_by`; `harm` is the blow that lasts at that moment, if any.
    pub fn on_incident(&mut self, at: Duration, served_by: &str, incident: &Incident, harm: Option<&Harm>) {
        let seen = self.seen.entry(incident.headline()).or_default();
        seen.count += 1;
        if harm.is_some_and(|harm| harm.explains(served_by, incident)) {
            return;
        }
        seen.unexplained += 1;
        let when = if harm.is_some() { "within the blow" } else { "while nothing was done to the stack" };
        seen.first.get_or_insert_with(|| {
            format!("{served_by} at {:.1} s, {when}: {:?}", at.as_secs_f64(), incident.detail())
        });
    }

    /// All kinds with their numbers, explained or not.
    pub fn summary(&self) -> String {
        let counts: Vec<String> =
            self.seen.iter().map(|(headline, seen)| format!("{} {headline}", seen.count)).collect();
        if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
    }

    /// What nothing explains, a line for each kind.
    pub fn faults(&self) -> Vec<String> {
        let unexplained = self.seen.iter().filter_map(|(headline, seen)| {
            let first = seen.first.as_ref()?;
            Some(format!("{} times {headline}, first: {first}", seen.unexplained))
        });
        unexplained.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: Duration = Duration::from_secs(12);

    fn closed(code: u16, reason: &str) -> Incident {
        Incident::Closed(Close { code, reason: reason.to_owned() })
    }

    fn farewell() -> Incident {
        closed(1012, r#"{"retry_after_ms":50}"#)
    }

    fn cut() -> Incident {
        Incident::Cut("reset".to_owned())
    }

    fn refused() -> Incident {
        Incident::Refused { code: "unavailable".to_owned(), detail: "try again".to_owned() }
    }

    fn unacknowledged() -> Incident {
        Incident::Unacknowledged(Duration::from_secs(10))
    }

    fn died() -> Harm {
        Harm::Died(vec!["web-2".to_owned(), "web-3".to_owned()])
    }

    fn is_fault(incident: &Incident, served_by: &str, harm: Option<&Harm>) -> bool {
        let mut incidents = Incidents::default();
        incidents.on_incident(NOON, served_by, incident, harm);
        !incidents.faults().is_empty()
    }

    #[test]
    fn who_is_sent_away_in_good_order_is_told_when_to_come_back_and_nothing_else_is_right() {
        assert!(!is_fault(&farewell(), "web-1", Some(&Harm::SentAway)));
        for incident in [
            closed(1012, ""),
            closed(1012, "restart"),
            closed(1001, r#"{"retry_after_ms":50}"#),
            closed(4401, "the token expired"),
            closed(4403, "not a member of this session any more"),
            closed(4408, "too slow"),
            closed(4429, "too many frames"),
            cut(),
            refused(),
            unacknowledged(),
        ] {
            assert!(is_fault(&incident, "web-1", Some(&Harm::SentAway)), "{incident:?}");
        }
    }

    #[test]
    fn only_those_who_were_with_a_killed_replica_are_cut_off() {
        for incident in [cut(), unacknowledged()] {
            assert!(!is_fault(&incident, "web-2", Some(&died())), "{incident:?}");
            assert!(is_fault(&incident, "web-1", Some(&died())), "{incident:?}");
        }
        for incident in [farewell(), closed(4408, "too slow"), refused()] {
            assert!(is_fault(&incident, "web-2", Some(&died())), "{incident:?}");
        }
    }

    #[test]
    fn nobody_notices_at_a_connection_that_redis_is_away() {
        for incident in [farewell(), cut(), refused(), unacknowledged(), closed(4408, "too slow")] {
            assert!(is_fault(&incident, "web-1", Some(&Harm::Nothing)), "{incident:?}");
        }
    }

    #[test]
    fn before_and_after_a_blow_nothing_is_explained() {
        for incident in [farewell(), cut(), refused(), unacknowledged()] {
            assert!(is_fault(&incident, "web-2", None), "{incident:?}");
        }
    }

    #[test]
    fn incidents_are_counted_by_code_and_told_with_the_first_that_nothing_explains() {
        let mut incidents = Incidents::default();
        assert_eq!(incidents.summary(), "nothing");
        for (served_by, incident) in [
            ("web-1", farewell()),
            ("web-2", closed(1012, "")),
            ("web-1", closed(4408, "too slow")),
            ("web-3", closed(4408, "too slow")),
            ("web-1", refused()),
        ] {
            incidents.on_incident(NOON, served_by, &incident, Some(&Harm::SentAway));
        }
        assert_eq!(incidents.summary(), "2 closed with 1012, 2 closed with 4408, 1 error frame unavailable");
        assert_eq!(
            incidents.faults(),
            [
                "1 times closed with 1012, first: web-2 at 12.0 s, within the blow: \"\"",
                "2 times closed with 4408, first: web-1 at 12.0 s, within the blow: \"too slow\"",
                "1 times error frame unavailable, first: web-1 at 12.0 s, within the blow: \"try again\"",
            ]
        );
    }

    proptest! {
        #[test]
        fn no_error_frame_is_ever_explained(code in "[a-z_-]{1,12}", served_by in "web-[1-9]", harm in 0usize..4) {
            let harms = [None, Some(Harm::SentAway), Some(died()), Some(Harm::Nothing)];
            let incident = Incident::Refused { code, detail: String::new() };
            prop_assert!(is_fault(&incident, &served_by, harms[harm].as_ref()));
        }
    }
}
