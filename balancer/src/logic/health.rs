//! One upstream server as the balance sees it: its terms, its load, nginx's accounting of failures (`max_fails`,
//! `fail_timeout`), what active checks found, and the way back to full weight. No choice between servers: see choose.rs.
//! `now` counts from the process's start; failures are timed in whole seconds, as nginx times them.

mod checks;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::checks::{Checks, Turn};
use super::times::Times;
use crate::conf::check::CheckTerms;
use crate::conf::upstream::{Duty, Terms};

/// A server with its live state.
#[derive(Debug, Clone)]
pub struct Peer {
    pub terms: Terms,
    /// What the API calls it; the same as long as the server stays in its group.
    pub id: u32,
    /// Requests in flight.
    pub conns: u32,
    pub times: Times,
    pub checks: Checks,
    pub history: History,
    fails: u32,
    /// The second in which it failed last.
    accessed: u64,
    /// The second in which it failed last or was last given a chance to show that it is back.
    checked: u64,
    /// One weight of the configuration is so many of ours: slow start needs fractions.
    unit: i64,
    /// The weight that failures have lowered; grows back by one per round.
    effective_weight: i64,
    current_weight: i64,
    /// Since when the server grows back to its full weight.
    ramp: Option<Duration>,
}

/// Everything that is known of a server but its terms and what is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerMemory {
    id: u32,
    header_ms: u64,
    response_ms: u64,
    checks: Checks,
    history: History,
    fails: u32,
    accessed: u64,
    checked: u64,
    unit: i64,
    /// Of its terms; processes before us did not tell it.
    #[serde(default)]
    weight: Option<u32>,
    effective_weight: i64,
    current_weight: i64,
    ramp: Option<Duration>,
}

/// What the status shows of a server's past.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    /// Failures since ever.
    pub fails: u64,
    /// How often it was taken out of the rotation by failures.
    pub unavailable: u64,
    pub selected: Option<Duration>,
    /// Since when it is out.
    pub down_since: Option<Duration>,
    down_before: Duration,
}

impl History {
    fn on_out(&mut self, now: Duration) {
        self.down_since.get_or_insert(now);
    }

    fn on_back(&mut self, now: Duration) {
        if let Some(since) = self.down_since.take() {
            self.down_before += now.saturating_sub(since);
        }
    }

    /// How long it was out, all in all.
    pub fn downtime(&self, now: Duration) -> Duration {
        self.down_before + self.down_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

/// Why a server is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    Down,
    /// `drain`: only clients that stick to it are let through.
    Draining,
    /// A mandatory check has not been passed yet.
    Checking,
    /// Active checks failed.
    Unhealthy,
    /// `max_fails` failures, and `fail_timeout` has not passed since.
    Failed,
    /// `max_conns` requests in flight.
    Full,
}

impl Unusable {
    /// For `$balancer_why`.
    pub fn name(self) -> &'static str {
        match self {
            Unusable::Down => "down",
            Unusable::Draining => "draining",
            Unusable::Checking => "checking",
            Unusable::Unhealthy => "unhealthy",
            Unusable::Failed => "failed",
            Unusable::Full => "full",
        }
    }
}

/// Fractions of a weight in groups that have a slow start.
const FINE_UNIT: i64 = 100;

impl Peer {
    pub fn new(terms: Terms) -> Peer {
        let weight = i64::from(terms.weight);
        Peer {
            terms,
            id: 0,
            conns: 0,
            times: Times::default(),
            checks: Checks::default(),
            history: History::default(),
            fails: 0,
            accessed: 0,
            checked: 0,
            unit: 1,
            effective_weight: weight,
            current_weight: 0,
            ramp: None,
        }
    }

    /// Counts weights in fractions, as all servers of the group must if one of them has a slow start.
    pub(super) fn refine(&mut self) {
        let full = self.full_weight();
        self.unit = FINE_UNIT;
        self.rescale(full);
    }

    /// Its weight or the unit of weights is another than it was: its place in the rotation moves along.
    fn rescale(&mut self, full_before: i64) {
        let (full, before) = (i128::from(self.full_weight()), i128::from(full_before.max(1)));
        let scaled = |weight: i64| (i128::from(weight) * full / before) as i64;
        self.effective_weight = scaled(self.effective_weight).min(self.full_weight());
        self.current_weight = scaled(self.current_weight);
    }

    /// Takes over what is known about the same server from before a change of the configuration: failures, load,
    /// health, times and place in the rotation.
    pub fn inherit(&mut self, before: &Peer, now: Duration) {
        let (terms, unit) = (self.terms.clone(), self.unit);
        *self = Peer { terms, unit, ..before.clone() };
        self.rescale(before.full_weight());
        if before.terms.duty != Duty::Up && self.terms.duty == Duty::Up {
            self.start_slowly(now);
        }
    }

    pub(super) fn memory(&self) -> PeerMemory {
        PeerMemory {
            id: self.id,
            header_ms: self.times.header_ms,
            response_ms: self.times.response_ms,
            checks: self.checks.clone(),
            history: self.history.clone(),
            fails: self.fails,
            accessed: self.accessed,
            checked: self.checked,
            unit: self.unit,
            weight: Some(self.terms.weight),
            effective_weight: self.effective_weight,
            current_weight: self.current_weight,
            ramp: self.ramp,
        }
    }

    /// Goes on where the same server of another process was.
    pub(super) fn recall(&mut self, memory: PeerMemory) {
        self.id = memory.id;
        self.times.header_ms = memory.header_ms;
        self.times.response_ms = memory.response_ms;
        (self.checks, self.history) = (memory.checks, memory.history);
        (self.fails, self.accessed, self.checked) = (memory.fails, memory.accessed, memory.checked);
        (self.effective_weight, self.current_weight) = (memory.effective_weight, memory.current_weight);
        self.ramp = memory.ramp;
        let weight = memory.weight.map_or(i64::from(self.terms.weight), i64::from);
        self.rescale(weight * memory.unit.max(1));
    }

    pub fn unusable(&self, now: Duration) -> Option<Unusable> {
        match self.terms.duty {
            Duty::Down => return Some(Unusable::Down),
            Duty::Drain => return Some(Unusable::Draining),
            Duty::Up => {}
        }
        self.unable(now)
    }

    /// As [`Peer::unusable`], for a client that sticks to this server: it is let through while the server drains.
    pub fn unusable_for_own(&self, now: Duration) -> Option<Unusable> {
        match self.terms.duty {
            Duty::Down => Some(Unusable::Down),
            Duty::Drain | Duty::Up => self.unable(now),
        }
    }

    fn unable(&self, now: Duration) -> Option<Unusable> {
        if let Some(why) = self.checks.unusable() {
            return Some(why);
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
        self.is_over_limit() && !self.is_past_timeout(now)
    }

    fn is_over_limit(&self) -> bool {
        self.terms.max_fails > 0 && self.fails >= self.terms.max_fails
    }

    fn is_past_timeout(&self, now: Duration) -> bool {
        now.as_secs().saturating_sub(self.checked) > self.terms.fail_timeout.as_secs()
    }

    /// When a server that has failed may be asked again.
    pub fn back_at(&self, now: Duration) -> Option<Duration> {
        let second = self.checked.saturating_add(self.terms.fail_timeout.as_secs()).saturating_add(1);
        self.has_failed(now).then_some(Duration::from_secs(second))
    }

    /// How often the time of a server that nobody asks is halved by now.
    pub fn halvings(&self, now: Duration) -> u64 {
        match self.is_past_timeout(now) {
            true => {
                now.as_secs().saturating_sub(self.checked)
                    / self.terms.fail_timeout.as_secs().saturating_add(1)
            }
            false => 0,
        }
    }

    /// Failures counted in the present window.
    pub fn fails(&self) -> u32 {
        self.fails
    }

    /// One request is on its way to this server. The first pick after `fail_timeout` is the probe of this window:
    /// while it is under way, a server that has failed gets no other request.
    pub(super) fn on_picked(&mut self, now: Duration) {
        self.conns += 1;
        self.history.selected = Some(now);
        if self.is_past_timeout(now) {
            self.checked = now.as_secs();
        }
    }

    pub(super) fn on_left(&mut self) {
        self.conns = self.conns.saturating_sub(1);
    }

    /// The request ended well, or at least was not the server's fault.
    pub(super) fn on_success(&mut self, now: Option<Duration>) {
        self.on_left();
        self.on_alive(now);
    }

    /// The server has shown that it lives: by the end of a request, and ours also by a switch of protocols. A WebSocket
    /// may last for hours, and a server that was away for a moment would get no other until then.
    pub(super) fn on_alive(&mut self, now: Option<Duration>) {
        if self.accessed >= self.checked {
            return;
        }
        if self.is_over_limit()
            && let Some(now) = now
        {
            self.history.on_back(now);
            self.start_slowly(now);
        }
        self.fails = 0;
    }

    /// True when this failure takes the server out of the rotation.
    pub(super) fn on_failure(&mut self, now: Duration) -> bool {
        self.on_left();
        self.fails = self.fails.saturating_add(1);
        self.history.fails += 1;
        self.accessed = now.as_secs();
        self.checked = now.as_secs();
        if self.terms.max_fails == 0 {
            return false;
        }
        self.effective_weight -= i64::from(self.terms.weight / self.terms.max_fails) * self.unit;
        self.effective_weight = self.effective_weight.max(0);
        let is_out = self.is_over_limit();
        if is_out {
            self.history.unavailable += 1;
            self.history.on_out(now);
        }
        is_out
    }

    /// The only server of a group: failures are not held against it.
    pub(super) fn on_single_end(&mut self) {
        self.on_left();
        self.fails = 0;
    }

    /// An active check has ended. Says when that changed whether the server takes part.
    pub fn on_check(&mut self, passed: bool, terms: CheckTerms, now: Duration) -> Option<Turn> {
        let turn = self.checks.on_check(passed, terms);
        match turn {
            Some(Turn::Healthy) => {
                self.history.on_back(now);
                self.fails = 0;
                self.start_slowly(now);
            }
            Some(Turn::Unhealthy) => self.history.on_out(now),
            None => {}
        }
        turn
    }

    fn start_slowly(&mut self, now: Duration) {
        self.ramp = (!self.terms.slow_start.is_zero()).then_some(now);
    }

    fn full_weight(&self) -> i64 {
        i64::from(self.terms.weight) * self.unit
    }

    /// What the server may carry now: its weight, less what a slow start still holds back.
    pub fn weight(&self, now: Duration) -> i64 {
        let full = self.full_weight();
        let Some(since) = self.ramp else { return full };
        let gone_ms = now.saturating_sub(since).as_millis();
        let whole_ms = self.terms.slow_start.as_millis().max(1);
        match gone_ms < whole_ms {
            true => (full as i128 * gone_ms as i128 / whole_ms as i128) as i64,
            false => full,
        }
    }

    /// One step of smooth weighted round robin; returns what the winner will have to pay.
    pub(super) fn gain(&mut self, now: Duration) -> i64 {
        let gained = self.effective_weight.min(self.weight(now));
        self.current_weight += gained;
        self.effective_weight = (self.effective_weight + self.unit).min(self.full_weight());
        gained
    }

    pub(super) fn pay(&mut self, total: i64) {
        self.current_weight -= total;
    }

    /// In weights of the configuration, rounded down.
    pub(super) fn current_weight(&self) -> i64 {
        self.current_weight
    }

    pub(super) fn unit(&self) -> i64 {
        self.unit
    }
}

#[cfg(test)]
mod tests;
