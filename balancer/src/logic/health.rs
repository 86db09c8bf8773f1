//! One upstream server as the balance sees it: its terms, its load, and nginx's accounting of failures
//! (`max_fails`, `fail_timeout`). No choice between servers: see choose.rs. `now` counts from the process's start.

use std::time::Duration;

/// What the configuration says about a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// As written in the `server` line: what consistent hashing hashes.
    pub server: Box<str>,
    pub weight: u32,
    /// 0: unlimited.
    pub max_conns: u32,
    /// 0: failures are not counted.
    pub max_fails: u32,
    pub fail_timeout: Duration,
    pub backup: bool,
    pub down: bool,
}

/// A server with its live state.
#[derive(Debug, Clone)]
pub struct Peer {
    pub terms: Terms,
    /// Requests in flight.
    pub conns: u32,
    fails: u32,
    /// When it failed last.
    accessed: Duration,
    /// When it failed last or was last given a chance to show that it is back.
    checked: Duration,
    /// The weight that failures have lowered; grows back by one per round.
    effective_weight: i64,
    current_weight: i64,
}

/// Why a server is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    Down,
    /// `max_fails` failures, and `fail_timeout` has not passed since.
    Failed,
    /// `max_conns` requests in flight.
    Full,
}

impl Peer {
    pub fn new(terms: Terms) -> Peer {
        let weight = i64::from(terms.weight);
        Peer {
            terms,
            conns: 0,
            fails: 0,
            accessed: Duration::ZERO,
            checked: Duration::ZERO,
            effective_weight: weight,
            current_weight: 0,
        }
    }

    /// Takes over what is known about the same server from before a reload: failures, load and place in the rotation.
    pub fn inherit(&mut self, before: &Peer) {
        let terms = std::mem::replace(&mut self.terms, before.terms.clone());
        *self = Peer { terms, ..before.clone() };
        self.effective_weight = self.effective_weight.min(i64::from(self.terms.weight));
    }

    pub fn unusable(&self, now: Duration) -> Option<Unusable> {
        if self.terms.down {
            return Some(Unusable::Down);
        }
        if self.has_failed(now) {
            return Some(Unusable::Failed);
        }
        self.is_full().then_some(Unusable::Full)
    }

    pub fn is_full(&self) -> bool {
        self.terms.max_conns > 0 && self.conns >= self.terms.max_conns
    }

    fn has_failed(&self, now: Duration) -> bool {
        self.terms.max_fails > 0
            && self.fails >= self.terms.max_fails
            && now.saturating_sub(self.checked) <= self.terms.fail_timeout
    }

    /// Failures counted in the present window.
    pub fn fails(&self) -> u32 {
        self.fails
    }

    /// One request is on its way to this server. The first pick after `fail_timeout` is the probe of this window:
    /// while it is under way, a server that has failed gets no other request.
    pub(super) fn on_picked(&mut self, now: Duration) {
        self.conns += 1;
        if now.saturating_sub(self.checked) > self.terms.fail_timeout {
            self.checked = now;
        }
    }

    /// The request ended well, or at least was not the server's fault.
    pub(super) fn on_success(&mut self) {
        self.conns = self.conns.saturating_sub(1);
        if self.accessed < self.checked {
            self.fails = 0;
        }
    }

    /// True when this failure takes the server out of the rotation.
    pub(super) fn on_failure(&mut self, now: Duration) -> bool {
        self.conns = self.conns.saturating_sub(1);
        self.fails = self.fails.saturating_add(1);
        self.accessed = now;
        self.checked = now;
        if self.terms.max_fails == 0 {
            return false;
        }
        self.effective_weight -= i64::from(self.terms.weight / self.terms.max_fails);
        self.effective_weight = self.effective_weight.max(0);
        self.fails >= self.terms.max_fails
    }

    /// The only server of a group: failures are not held against it.
    pub(super) fn on_single_end(&mut self) {
        self.conns = self.conns.saturating_sub(1);
        self.fails = 0;
    }

    /// One step of smooth weighted round robin; returns what the winner will have to pay.
    pub(super) fn gain(&mut self) -> i64 {
        let gained = self.effective_weight;
        self.current_weight += gained;
        if self.effective_weight < i64::from(self.terms.weight) {
            self.effective_weight += 1;
        }
        gained
    }

    pub(super) fn pay(&mut self, total: i64) {
        self.current_weight -= total;
    }

    pub(super) fn current_weight(&self) -> i64 {
        self.current_weight
    }
}

#[cfg(test)]
mod tests;
