//! Where all users of a run write their figures. One thread, so a cell and no lock.

use crate::logic::fault::Fault;
use crate::logic::stats::{Key, Kind, Sample, Stats};
use std::cell::{Cell, Ref, RefCell};
use std::time::Duration;
use tokio::time::Instant;

/// The figures of a run and its clock.
#[derive(Debug)]
pub struct Recorder {
    began: Cell<Instant>,
    stats: RefCell<Stats>,
    running: Cell<u32>,
}

impl Recorder {
    pub fn start() -> Self {
        Self { began: Cell::new(Instant::now()), stats: RefCell::default(), running: Cell::new(0) }
    }

    /// Time since the start, on the one clock of all users.
    pub fn now(&self) -> Duration {
        self.began.get().elapsed()
    }

    /// A request ended.
    pub fn on_request(&self, key: Key, began: Instant, body_bytes: usize, fault: Option<&Fault>) {
        self.on_sample(key, began.elapsed(), body_bytes as u64, fault);
    }

    /// A span inside a request, or between two users, was measured.
    pub fn on_span(&self, name: &'static str, took: Duration, fault: Option<&Fault>) {
        self.on_sample(Key { kind: Kind::Span, name }, took, 0, fault);
    }

    pub fn stats(&self) -> Ref<'_, Stats> {
        self.stats.borrow()
    }

    /// Figures of the set-up are dropped: the run begins now.
    pub fn restart(&self) {
        self.began.set(Instant::now());
        *self.stats.borrow_mut() = Stats::default();
    }

    /// Hands the figures over at the end of a run.
    pub fn take_stats(&self) -> Stats {
        self.stats.take()
    }

    pub fn running(&self) -> u32 {
        self.running.get()
    }

    pub fn on_user_start(&self) {
        self.running.set(self.running.get() + 1);
    }

    pub fn on_user_end(&self) {
        self.running.set(self.running.get().saturating_sub(1));
    }

    fn on_sample(&self, key: Key, took: Duration, body_bytes: u64, fault: Option<&Fault>) {
        if let Some(fault) = fault {
            tracing::debug!(kind = key.kind.word(), name = key.name, %fault, "a request failed");
        }
        self.stats.borrow_mut().on_sample(&Sample { key, took, body_bytes, fault }, self.now());
    }
}
