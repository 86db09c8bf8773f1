//! Whether an answer to a health check is a good one.

use crate::conf::check::{HeaderRule, HeaderTest, Match};
use crate::logic::h1::ResponseHead;

/// So much of a body is looked at; NGINX Plus looks at as much.
pub const BODY_LEN_MAX: usize = 256 * 1024;

/// Why an answer is not what `match` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("unexpected status")]
    Status,
    #[error("header does not match")]
    Header,
    #[error("body does not match")]
    Body,
}

/// `head` are the bytes of the head.
pub fn check_head(rules: &Match, response: &ResponseHead, head: &[u8]) -> Result<(), Mismatch> {
    if let Some(rule) = &rules.status {
        let is_in = rule.ranges.iter().any(|(from, to)| (*from..=*to).contains(&response.status));
        if is_in == rule.negated {
            return Err(Mismatch::Status);
        }
    }
    match rules.headers.iter().all(|rule| holds(rule, response, head)) {
        true => Ok(()),
        false => Err(Mismatch::Header),
    }
}

pub fn check_body(rules: &Match, body: &[u8]) -> Result<(), Mismatch> {
    match &rules.body {
        Some(rule) if rule.pattern.is_match(body) == rule.negated => Err(Mismatch::Body),
        _ => Ok(()),
    }
}

/// A header that is not there has no value that could be equal to anything.
fn holds(rule: &HeaderRule, response: &ResponseHead, head: &[u8]) -> bool {
    let mut values = response
        .fields
        .list
        .iter()
        .filter(|field| field.name.of(head).eq_ignore_ascii_case(&rule.name))
        .map(|field| field.value.of(head));
    let found = match &rule.test {
        HeaderTest::Present => values.next().is_some(),
        HeaderTest::Equals(text) => values.any(|value| value == &text[..]),
        HeaderTest::Pattern(pattern) => values.any(|value| pattern.is_match(value)),
    };
    found != rule.negated
}

#[cfg(test)]
mod tests {
    use regex::bytes::Regex;

    use super::*;
    use crate::conf::check::{BodyRule, StatusRule};

    fn head_passes(rules: &Match, head: &str) -> Result<(), Mismatch> {
        let mut response = ResponseHead::default();
        assert_eq!(response.parse(head.as_bytes(), 4096), Ok(true));
        check_head(rules, &response, head.as_bytes())
    }

    fn header(name: &str, test: HeaderTest, negated: bool) -> Match {
        let rule = HeaderRule { name: name.as_bytes().into(), test, negated };
        Match { headers: vec![rule], ..Match::default() }
    }

    #[test]
    fn a_status_is_looked_for_in_ranges() {
        let with = |ranges: Vec<(u16, u16)>, negated: bool| Match {
            status: Some(StatusRule { ranges, negated }),
            ..Match::default()
        };
        let ok = "HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(head_passes(&Match::success(), ok), Ok(()));
        assert_eq!(head_passes(&with(vec![(200, 200), (204, 204)], false), ok), Ok(()));
        assert_eq!(head_passes(&with(vec![(200, 299)], true), ok), Err(Mismatch::Status));
        assert_eq!(head_passes(&Match::success(), "HTTP/1.1 500 No\r\n\r\n"), Err(Mismatch::Status));
    }

    #[test]
    fn headers_are_there_or_not_equal_or_alike() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-A: one\r\nX-A: two\r\n\r\n";
        let equals = |text: &str| HeaderTest::Equals(text.as_bytes().into());
        let like = |text: &str| HeaderTest::Pattern(Regex::new(text).unwrap());
        assert_eq!(head_passes(&header("content-type", equals("text/html"), false), head), Ok(()));
        assert_eq!(
            head_passes(&header("content-type", equals("text/html"), true), head),
            Err(Mismatch::Header)
        );
        assert_eq!(head_passes(&header("x-a", like("^tw"), false), head), Ok(()));
        assert_eq!(head_passes(&header("x-a", like("three"), true), head), Ok(()));
        assert_eq!(head_passes(&header("x-b", HeaderTest::Present, false), head), Err(Mismatch::Header));
        assert_eq!(head_passes(&header("x-b", HeaderTest::Present, true), head), Ok(()));
    }

    #[test]
    fn a_body_matches_or_must_not() {
        let with = |negated: bool| Match {
            body: Some(BodyRule { pattern: Regex::new("Welcome").unwrap(), negated }),
            ..Match::default()
        };
        assert_eq!(check_body(&with(false), b"<h1>Welcome</h1>"), Ok(()));
        assert_eq!(check_body(&with(true), b"<h1>Welcome</h1>"), Err(Mismatch::Body));
        assert_eq!(check_body(&Match::success(), b""), Ok(()));
    }
}
