//! How a server closes a socket, and what it asks of clients that it sends away.

use crate::logic::fault::Fault;
use crate::logic::shape;
use serde::Deserialize;

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(code: u16, reason: &str) -> Close {
        Close { code, reason: reason.to_owned() }
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

    proptest! {
        #[test]
        fn no_reason_panics(code: u16, reason in ".{0,60}") {
            let _ = Close { code, reason }.retry_after_ms();
        }
    }
}
