//! May this request be sent to another server? nginx's `proxy_next_upstream`, rule by rule.

use std::time::Duration;

use crate::conf::proxy::NextUpstream;

/// How an attempt at one server failed before an answer began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Connecting, sending or reading failed, or the connection ended before the head of the answer.
    Error,
    /// A connect, send or read deadline passed.
    Timeout,
    /// The answer's head breaks the rules.
    InvalidHeader,
    /// An answer of this status came, whole and valid.
    Status(u16),
}

impl Failure {
    /// What the client gets when nobody else is asked.
    pub fn status(self) -> u16 {
        match self {
            Failure::Timeout => 504,
            Failure::Status(status) => status,
            Failure::Error | Failure::InvalidHeader => 502,
        }
    }

    /// Whether it counts against the server (`max_fails`): all but 403 and 404.
    pub fn is_blamed(self) -> bool {
        !matches!(self, Failure::Status(403 | 404))
    }
}

/// What has happened to the request so far.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Bytes of the request may have reached the server.
    pub was_sent: bool,
    pub is_non_idempotent: bool,
    /// The body can be sent from its beginning: no part of it that went to a server is gone here.
    pub is_replayable: bool,
    /// The connection had served another request before and no byte of an answer came: the server may just have
    /// closed it, as it may at any time.
    pub was_stale: bool,
    /// Servers that may be asked after this one.
    pub tries_left: u32,
    /// Since the first attempt.
    pub elapsed: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next server.
    Next,
    /// The same server over a new connection: costs no try and no blame.
    SameServer,
    GiveUp,
}

pub fn verdict(rule: &NextUpstream, failure: Failure, situation: Situation) -> Verdict {
    let repeats_action = situation.was_sent && situation.is_non_idempotent && !rule.non_idempotent;
    // Not sent to a server's own account may still be gone here: HTTP/2 refuses streams whose body is under way.
    let lost_body = !situation.is_replayable;
    let late = !rule.time_max.is_zero() && situation.elapsed >= rule.time_max;
    if repeats_action || lost_body || late || !is_listed(rule, failure) {
        return Verdict::GiveUp;
    }
    if failure == Failure::Error && situation.was_stale {
        return Verdict::SameServer;
    }
    if situation.tries_left > 0 { Verdict::Next } else { Verdict::GiveUp }
}

fn is_listed(rule: &NextUpstream, failure: Failure) -> bool {
    match failure {
        Failure::Error => rule.error,
        Failure::Timeout => rule.timeout,
        Failure::InvalidHeader => rule.invalid_header,
        Failure::Status(status) => rule.statuses.contains(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::proxy::RetryStatuses;
    use proptest::prelude::*;

    fn by_default() -> NextUpstream {
        NextUpstream {
            error: true,
            timeout: true,
            invalid_header: false,
            non_idempotent: false,
            statuses: RetryStatuses::default(),
            tries_max: 0,
            time_max: Duration::ZERO,
        }
    }

    fn sent() -> Situation {
        Situation {
            was_sent: true,
            is_non_idempotent: false,
            is_replayable: true,
            was_stale: false,
            tries_left: 1,
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn errors_and_timeouts_go_to_the_next_server_by_default_and_nothing_else_does() {
        let rule = by_default();
        assert_eq!(verdict(&rule, Failure::Error, sent()), Verdict::Next);
        assert_eq!(verdict(&rule, Failure::Timeout, sent()), Verdict::Next);
        assert_eq!(verdict(&rule, Failure::InvalidHeader, sent()), Verdict::GiveUp);
        assert_eq!(verdict(&rule, Failure::Status(503), sent()), Verdict::GiveUp);
        let mut statuses = RetryStatuses::default();
        assert!(statuses.add(503));
        assert_eq!(verdict(&NextUpstream { statuses, ..rule }, Failure::Status(503), sent()), Verdict::Next);
    }

    #[test]
    fn a_stale_connection_costs_no_try() {
        let stale = Situation { was_stale: true, tries_left: 0, ..sent() };
        assert_eq!(verdict(&by_default(), Failure::Error, stale), Verdict::SameServer);
        assert_eq!(verdict(&by_default(), Failure::Timeout, stale), Verdict::GiveUp);
        let post = Situation { is_non_idempotent: true, ..stale };
        assert_eq!(verdict(&by_default(), Failure::Error, post), Verdict::GiveUp);
    }

    #[test]
    fn a_post_that_was_not_sent_may_go_on() {
        let post = Situation { was_sent: false, is_non_idempotent: true, ..sent() };
        assert_eq!(verdict(&by_default(), Failure::Error, post), Verdict::Next);
    }

    #[test]
    fn a_body_that_is_not_whole_any_more_goes_nowhere_whatever_the_server_says_it_did() {
        for (was_sent, was_stale) in [(true, false), (true, true), (false, false), (false, true)] {
            let holed = Situation { was_sent, was_stale, is_replayable: false, ..sent() };
            let rule = NextUpstream { non_idempotent: true, ..by_default() };
            assert_eq!(verdict(&rule, Failure::Error, holed), Verdict::GiveUp);
        }
    }

    #[test]
    fn time_bounds_the_attempts() {
        let rule = NextUpstream { time_max: Duration::from_secs(1), ..by_default() };
        let late = Situation { elapsed: Duration::from_secs(1), ..sent() };
        assert_eq!(verdict(&rule, Failure::Error, late), Verdict::GiveUp);
    }

    proptest! {
        #[test]
        fn what_may_act_twice_is_never_sent_twice(
            error: bool, timeout: bool, invalid_header: bool, is_replayable: bool, was_stale: bool,
            tries_left in 0u32..5, seconds in 0u64..5, time_max in 0u64..5, kind in 0u8..4,
        ) {
            let mut statuses = RetryStatuses::default();
            statuses.add(500);
            let time_max = Duration::from_secs(time_max);
            let rule = NextUpstream { error, timeout, invalid_header, statuses, time_max, ..by_default() };
            let failure =
                [Failure::Error, Failure::Timeout, Failure::InvalidHeader, Failure::Status(500)][usize::from(kind)];
            let elapsed = Duration::from_secs(seconds);
            let situation =
                Situation { is_non_idempotent: true, is_replayable, was_stale, tries_left, elapsed, ..sent() };
            prop_assert_eq!(verdict(&rule, failure, situation), Verdict::GiveUp);
            let unsent = Situation { was_sent: false, was_stale: false, ..situation };
            let may = is_replayable && tries_left > 0 && (time_max.is_zero() || elapsed < time_max)
                && [error, timeout, invalid_header, true][usize::from(kind)];
            prop_assert_eq!(verdict(&rule, failure, unsent) == Verdict::Next, may);
        }
    }
}
