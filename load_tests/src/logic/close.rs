//! How a server closes a socket, and what it asks of clients that it sends away.

use crate::logic::fault::Fault;
use crate::logic::shape;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// A close frame; code 1005 where it bore none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Farewell {
    retry_after_ms: u64,
}

impl Close {
    /// After how many milliseconds a replica that goes away asks its client to come back.
    pub fn retry_after_ms(&self) -> Result<u64, Fault> {
        if !matches!(self.code, 1001 | 1012) {
            return Err(Fault::shape("a close that does not ask to come back", self.to_string()));
        }
        let farewell: Result<Farewell, Fault> = shape::decode(self.reason.as_bytes());
        let told = farewell.map_err(|_| Fault::shape("a farewell without retry_after_ms", self.to_string()));
        told.map(|farewell| farewell.retry_after_ms)
    }
}

impl std::fmt::Display for Close {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.reason.as_str() {
            "" => write!(f, "{}", self.code),
            reason => write!(f, "{} {reason}", self.code),
        }
    }
}

/// What is wrong with the farewells of replicas that go away, each with the replica that said it: all ask to come back,
/// and the sockets of one replica at different moments. Two may share one: a replica that is told to end while it sends
/// its sockets away begins to count anew.
pub fn farewell_faults(farewells: &[(String, Close)]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut moments: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (served_by, close) in farewells {
        match close.retry_after_ms() {
            Ok(retry_after_ms) => moments.entry(served_by).or_default().push(retry_after_ms),
            Err(fault) => faults.push(format!("{served_by}: {fault}")),
        }
    }
    for (served_by, told) in moments {
        let distinct: BTreeSet<&u64> = told.iter().collect();
        if told.len() > 1 && (distinct.len() < 2 || distinct.len() * 2 < told.len()) {
            let (count, moments) = (told.len(), distinct.len());
            faults.push(format!("{served_by} asks {count} clients back at only {moments} moments"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(code: u16, reason: &str) -> Close {
        Close { code, reason: reason.to_owned() }
    }

    fn farewell(served_by: &str, retry_after_ms: u64) -> (String, Close) {
        (served_by.to_owned(), close(1012, &format!(r#"{{"retry_after_ms":{retry_after_ms}}}"#)))
    }

    #[test]
    fn a_farewell_says_when_to_come_back() {
        assert_eq!(close(1012, r#"{"retry_after_ms": 247}"#).retry_after_ms(), Ok(247));
        assert_eq!(close(1001, r#"{"retry_after_ms":0}"#).retry_after_ms(), Ok(0));
        for (code, reason) in [
            (1012, ""),
            (1012, "later"),
            (1012, r#"{"retry_after_ms":"50"}"#),
            (1012, r#"{"retry_after_ms":-1}"#),
            (1012, r#"{"retry_after_ms":50,"why":"x"}"#),
            (1001, "no pong came in time"),
            (1005, r#"{"retry_after_ms":50}"#),
            (4408, r#"{"retry_after_ms":50}"#),
        ] {
            assert!(close(code, reason).retry_after_ms().is_err(), "{code} {reason}");
        }
    }

    #[test]
    fn clients_of_one_replica_are_asked_back_at_different_moments() {
        let spread = [farewell("web-1", 50), farewell("web-1", 247), farewell("web-2", 50)];
        assert_eq!(farewell_faults(&spread), Vec::<String>::new());
        let begun_anew = [50, 247, 444, 50, 247, 444].map(|ms| farewell("web-1", ms));
        assert_eq!(farewell_faults(&begun_anew), Vec::<String>::new());
        for moments in [&[50, 50][..], &[50, 50, 50], &[50, 50, 50, 247, 247], &[7; 10]] {
            let crowd: Vec<_> = moments.iter().map(|ms| farewell("web-1", *ms)).collect();
            let told = farewell_faults(&crowd);
            assert!(told.len() == 1 && told[0].starts_with("web-1 asks"), "{moments:?}: {told:?}");
        }
    }

    #[test]
    fn one_client_that_is_not_asked_back_is_a_fault() {
        let told = farewell_faults(&[farewell("web-1", 50), ("web-2".to_owned(), close(1012, ""))]);
        assert_eq!(told, ["web-2: wrong shape: a farewell without retry_after_ms: 1012"]);
        let told = farewell_faults(&[("web-1".to_owned(), close(4408, "too slow"))]);
        assert_eq!(told, ["web-1: wrong shape: a close that does not ask to come back: 4408 too slow"]);
    }

    proptest! {
        #[test]
        fn no_reason_panics(code: u16, reason in ".{0,60}") {
            let close = Close { code, reason };
            let _ = close.retry_after_ms();
            let _ = farewell_faults(&[("web-1".to_owned(), close)]);
        }
    }
}
