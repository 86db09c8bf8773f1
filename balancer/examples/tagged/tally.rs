//! What all clients have seen, and whether it is what it has to be.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::ways::{ACTS, Act, WAYS, Way};

#[derive(Debug, Default)]
pub struct Tally {
    next_id: Cell<u64>,
    /// Requests.
    pub asked: Cell<u64>,
    /// Things done, of one request or several.
    pub done: Cell<u64>,
    /// By way, act and what came of it: one for each request.
    pub outcomes: RefCell<BTreeMap<(&'static str, &'static str, &'static str), u64>>,
    /// Answers that belong to another request, or to none.
    pub foreign: RefCell<Vec<String>>,
    /// What mixes nothing up and may not be all the same: no answer and no end of the connection.
    pub failed: RefCell<Vec<String>>,
    /// How often an origin has died, by the origins' own count.
    pub kills: Arc<AtomicU64>,
}

impl Tally {
    pub fn id(&self) -> u64 {
        self.next_id.set(self.next_id.get() + 1);
        self.asked.set(self.asked.get() + 1);
        self.next_id.get()
    }

    pub fn on_done(&self) {
        self.done.set(self.done.get() + 1);
    }

    pub fn add(&self, (way, act): (Way, &Act), outcome: &'static str) {
        *self.outcomes.borrow_mut().entry((way.name(), act.name, outcome)).or_default() += 1;
    }

    pub fn on_foreign(&self, (way, act): (Way, &Act), id: u64, what: &str) {
        self.foreign.borrow_mut().push(format!("{}, {} {id}: {what}", way.name(), act.name));
    }

    /// Requests with an outcome for which this holds.
    fn count(&self, holds: impl Fn(&str, &str, &str) -> bool) -> u64 {
        let outcomes = self.outcomes.borrow();
        let found = outcomes.iter().filter(|((way, act, outcome), _)| holds(way, act, outcome));
        found.map(|(_, count)| count).sum()
    }

    /// Answers that are not what was asked for, without the request itself being the reason.
    pub fn spoilt(&self) -> u64 {
        let is_due =
            |name: &str, outcome: &str| ACTS.iter().any(|act| act.name == name && act.due.contains(&outcome));
        self.count(|_, act, outcome| !is_due(act, outcome))
    }

    /// An origin that dies, one of nine, spoils what it has begun to answer and what may not be asked twice: a few of the
    /// requests of so many clients.
    pub fn spoilt_max(&self, clients: u64) -> u64 {
        self.kills.load(Relaxed) * clients.div_ceil(SPOILT_ONE_IN)
    }

    /// What else is wrong: requests that nobody accounts for, things that were not done or came to nothing.
    pub fn faults(&self, clients: u64) -> Vec<String> {
        let mut faults = Vec::new();
        let told = self.count(|_, _, _| true);
        if told + self.failed.borrow().len() as u64 != self.asked.get() {
            faults.push(format!("{} requests, {told} outcomes", self.asked.get()));
        }
        let (spoilt, spoilt_max) = (self.spoilt(), self.spoilt_max(clients));
        if spoilt > spoilt_max {
            faults.push(format!(
                "{spoilt} answers cut or refused that nothing had disturbed: origins that died explain {spoilt_max}"
            ));
        }
        for act in &ACTS {
            let all = self.count(|_, name, _| name == act.name);
            let due = self.count(|_, name, outcome| name == act.name && act.due.contains(&outcome));
            let least = act.least(self.done.get());
            if all < least {
                faults.push(format!("{}: {all} requests, at least {least} were to come", act.name));
            }
            if due * 10 < all * 9 && !act.is_seldom() || due == 0 {
                faults.push(format!("{}: {due} of {all} came to {:?}", act.name, act.due));
            }
            for way in WAYS.iter().filter(|way| act.is_taken_by(**way) && !act.is_seldom()) {
                let due = |_: &str, name: &str, outcome: &str| name == act.name && act.due.contains(&outcome);
                if self.count(|by, name, outcome| by == way.name() && due(by, name, outcome)) == 0 {
                    faults.push(format!("{}: {} never came to {:?}", way.name(), act.name, act.due));
                }
            }
        }
        faults
    }
}

/// Clients for each answer that one death may spoil.
const SPOILT_ONE_IN: u64 = 16;
