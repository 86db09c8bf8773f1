//! What can be wrong with an answer, in words that add up in a report: no ids, no times, no secrets in the headline.

use std::time::Duration;
use thiserror::Error;

/// Why a request counts as failed. `headline` groups equal faults; `Display` adds the detail of this one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("connection ended before a response began: {0}")]
    NoAnswer(String),
    #[error("connection ended within a response: {0}")]
    Cut(String),
    #[error("no {what} within {}", crate::logic::durations::show(*.limit))]
    Late { what: &'static str, limit: Duration },
    #[error("status {got}, expected {wanted}: {title}")]
    Status { got: u16, wanted: u16, title: String },
    #[error("wrong shape: {rule}: {detail}")]
    Shape { rule: &'static str, detail: String },
    #[error("wrong order: {rule}: {detail}")]
    Order { rule: &'static str, detail: String },
}

impl Fault {
    pub fn shape(rule: &'static str, detail: impl Into<String>) -> Self {
        Self::Shape { rule, detail: detail.into() }
    }

    pub fn order(rule: &'static str, detail: impl Into<String>) -> Self {
        Self::Order { rule, detail: detail.into() }
    }

    /// The words under which equal faults are counted together.
    pub fn headline(&self) -> String {
        match self {
            Self::Shape { rule, .. } => format!("wrong shape: {rule}"),
            Self::Order { rule, .. } => format!("wrong order: {rule}"),
            other => other.to_string(),
        }
    }

    /// True when a response had begun before it went wrong.
    pub fn is_begun(&self) -> bool {
        !matches!(self, Self::Connect(_) | Self::NoAnswer(_) | Self::Late { what: RESPONSE, .. })
    }
}

/// What is awaited until a response begins.
pub const RESPONSE: &str = "response";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_faults_have_equal_headlines_whatever_their_detail() {
        let one = Fault::order("an offset came twice", "7 after 9");
        let two = Fault::order("an offset came twice", "1 after 3");
        assert_eq!(one.headline(), two.headline());
        assert_ne!(one.to_string(), two.to_string());
    }

    #[test]
    fn only_faults_after_the_first_byte_count_as_begun() {
        let limit = Duration::from_secs(1);
        assert!(!Fault::Late { what: RESPONSE, limit }.is_begun());
        assert!(!Fault::NoAnswer("reset".into()).is_begun());
        assert!(Fault::Late { what: "end of the body", limit }.is_begun());
        assert!(Fault::Cut("reset".into()).is_begun());
        assert!(Fault::Status { got: 502, wanted: 200, title: String::new() }.is_begun());
    }
}
