//! What a server answers to a health check, against rules and their opposites.
#![no_main]

use std::sync::LazyLock;

use balancer::conf::check::{BodyRule, HeaderRule, HeaderTest, Match, StatusRule};
use balancer::logic::check::{check_body, check_head};
use balancer::logic::h1::ResponseHead;
use libfuzzer_sys::fuzz_target;
use regex::bytes::Regex;

const HEAD_LEN_MAX: usize = 16 * 1024;

/// Made once: a configuration makes it at load, and to make it takes longer than all else here.
static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new("(?i)ok|w.*e$").expect("it is one"));

fn pattern() -> Regex {
    PATTERN.clone()
}

fn header(test: HeaderTest, negated: bool) -> Match {
    Match { headers: vec![HeaderRule { name: b"x"[..].into(), test, negated }], ..Match::default() }
}

fn status(negated: bool) -> Match {
    let ranges = vec![(200, 204), (300, 399)];
    Match { status: Some(StatusRule { ranges, negated }), ..Match::default() }
}

fn body(negated: bool) -> Match {
    Match { body: Some(BodyRule { pattern: pattern(), negated }), ..Match::default() }
}

fuzz_target!(|bytes: &[u8]| {
    assert_ne!(check_body(&body(false), bytes).is_ok(), check_body(&body(true), bytes).is_ok());
    let mut response = ResponseHead::default();
    if response.parse(bytes, HEAD_LEN_MAX) != Ok(true) {
        return;
    }
    let holds = |rules: &Match| check_head(rules, &response, bytes).is_ok();
    assert_ne!(holds(&status(false)), holds(&status(true)));
    let tests: [fn() -> HeaderTest; 3] =
        [|| HeaderTest::Present, || HeaderTest::Equals(b"ok"[..].into()), || HeaderTest::Pattern(pattern())];
    for test in tests {
        assert_ne!(holds(&header(test(), false)), holds(&header(test(), true)));
    }
});
