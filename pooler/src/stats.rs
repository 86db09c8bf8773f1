//! Counters per database. Each worker has its own part and is the only one to write it: no counter is ever contended.

mod histogram;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::admin::facts::{Counters, Detail, ErrorCount, StatsRow};
use crate::error::End;
use crate::logic::ledger::{Limit, WorkerId};

pub use histogram::{BUCKETS, Histogram, end_seconds};

/// All statistics of the process.
pub struct Stats {
    workers: usize,
    databases: Mutex<BTreeMap<String, Arc<DatabaseStats>>>,
    snapshots: Mutex<Snapshots>,
    /// Ends that were somebody's fault, by whose and by SQLSTATE: few enough to be counted under one lock.
    errors: Mutex<BTreeMap<(&'static str, String), u64>>,
}

/// Averages are taken between now and the older of two snapshots that are one stats_period apart.
struct Snapshots {
    older: (Instant, BTreeMap<String, Counters>),
    newer: (Instant, BTreeMap<String, Counters>),
}

/// One database's counters.
pub struct DatabaseStats {
    parts: Box<[Part]>,
}

/// One worker's part, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
pub struct Part {
    pub server_assignments: Counter,
    pub transactions: Counter,
    pub queries: Counter,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    /// From the lease to the end of the transaction.
    pub transaction: Histogram,
    /// From a request to the end of its replies; requests that were sent together and answered together are one.
    pub query: Histogram,
    /// In the queue. A client that gets a server at once leaves no trace here.
    pub wait: Histogram,
    /// From the accepted socket to the greeting.
    pub login: Histogram,
    pub client_parses: Counter,
    pub server_parses: Counter,
    pub prepared_hits: Counter,
    pub binds: Counter,
    pub client_logins: Counter,
    limits_reached: [Counter; Limit::ALL.len()],
}

/// Written by one thread, read by any.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, more: u64) {
        // No read-modify-write instruction: this thread is the only writer.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Stats {
    pub fn new(workers: usize) -> Stats {
        let now = Instant::now();
        let snapshots = Snapshots { older: (now, BTreeMap::new()), newer: (now, BTreeMap::new()) };
        Stats {
            workers,
            databases: Mutex::default(),
            snapshots: Mutex::new(snapshots),
            errors: Mutex::default(),
        }
    }

    pub fn database(&self, name: &str) -> Arc<DatabaseStats> {
        let mut databases = self.databases.lock().expect("counting does not panic");
        let new = || Arc::new(DatabaseStats { parts: (0..self.workers).map(|_| Part::default()).collect() });
        databases.entry(name.to_string()).or_insert_with(new).clone()
    }

    /// Counts an end that was told to a client as an error. Goodbyes and vanished clients are none.
    pub fn count_error(&self, end: &End) {
        let Some(sqlstate) = end.sqlstate() else { return };
        let mut errors = self.errors.lock().expect("counting does not panic");
        *errors.entry((end.fault().as_str(), sqlstate.to_owned())).or_default() += 1;
    }

    pub fn errors(&self) -> Vec<ErrorCount> {
        let errors = self.errors.lock().expect("counting does not panic");
        let row = |((kind, sqlstate), count): (&(&'static str, String), &u64)| ErrorCount {
            kind,
            sqlstate: sqlstate.clone(),
            count: *count,
        };
        errors.iter().map(row).collect()
    }

    fn details(&self) -> BTreeMap<String, Detail> {
        let databases = self.databases.lock().expect("counting does not panic");
        databases.iter().map(|(name, stats)| (name.clone(), stats.detail())).collect()
    }

    fn totals(&self) -> BTreeMap<String, Counters> {
        let databases = self.databases.lock().expect("counting does not panic");
        databases.iter().map(|(name, stats)| (name.clone(), stats.total())).collect()
    }

    /// Once per stats_period.
    pub fn take_snapshot(&self) {
        let now = (Instant::now(), self.totals());
        let mut snapshots = self.snapshots.lock().expect("counting does not panic");
        snapshots.older = std::mem::replace(&mut snapshots.newer, now);
    }

    /// Counters as they are and as they were, and the time between.
    pub fn rows(&self) -> (Vec<StatsRow>, Duration) {
        let (totals, details) = (self.totals(), self.details());
        let snapshots = self.snapshots.lock().expect("counting does not panic");
        let (since, older) = &snapshots.older;
        let row = |(database, now): (String, Counters)| {
            let older = older.get(&database).copied().unwrap_or_default();
            let detail = details.get(&database).copied().unwrap_or_default();
            StatsRow { database, now, detail, older }
        };
        (totals.into_iter().map(row).collect(), since.elapsed())
    }

    /// What happened between the two last snapshots, and the time between: the line in the log.
    pub fn last_period(&self) -> (Counters, Duration) {
        let snapshots = self.snapshots.lock().expect("counting does not panic");
        let sum =
            |all: &BTreeMap<String, Counters>| all.values().fold(Counters::default(), |a, b| add(&a, b));
        let (old, new) = (sum(&snapshots.older.1), sum(&snapshots.newer.1));
        (subtract(&new, &old), snapshots.newer.0.saturating_duration_since(snapshots.older.0))
    }
}

impl DatabaseStats {
    #[inline]
    pub fn part(&self, worker: WorkerId) -> &Part {
        &self.parts[usize::from(worker)]
    }

    pub fn total(&self) -> Counters {
        self.parts.iter().fold(Counters::default(), |sum, part| add(&sum, &part.counters()))
    }

    fn detail(&self) -> Detail {
        let mut sum = Detail::default();
        for part in &self.parts {
            part.add_to(&mut sum);
        }
        sum
    }
}

impl Part {
    /// A client was kept out, or has to wait.
    pub fn count_limit(&self, limit: Limit) {
        self.limits_reached[limit as usize].add(1);
    }

    fn add_to(&self, sum: &mut Detail) {
        self.wait.add_to(&mut sum.waits);
        self.query.add_to(&mut sum.queries);
        self.transaction.add_to(&mut sum.transactions);
        self.login.add_to(&mut sum.logins);
        sum.prepared_hits += self.prepared_hits.get();
        for (total, count) in sum.limits_reached.iter_mut().zip(&self.limits_reached) {
            *total += count.get();
        }
    }

    fn counters(&self) -> Counters {
        Counters {
            server_assignments: self.server_assignments.get(),
            transactions: self.transactions.get(),
            queries: self.queries.get(),
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
            transaction_micros: self.transaction.micros(),
            query_micros: self.query.micros(),
            wait_micros: self.wait.micros(),
            client_parses: self.client_parses.get(),
            server_parses: self.server_parses.get(),
            binds: self.binds.get(),
            client_logins: self.client_logins.get(),
        }
    }
}

fn add(a: &Counters, b: &Counters) -> Counters {
    combine(a, b, u64::wrapping_add)
}

fn subtract(a: &Counters, b: &Counters) -> Counters {
    combine(a, b, u64::saturating_sub)
}

fn combine(a: &Counters, b: &Counters, f: fn(u64, u64) -> u64) -> Counters {
    Counters {
        server_assignments: f(a.server_assignments, b.server_assignments),
        transactions: f(a.transactions, b.transactions),
        queries: f(a.queries, b.queries),
        received_bytes: f(a.received_bytes, b.received_bytes),
        sent_bytes: f(a.sent_bytes, b.sent_bytes),
        transaction_micros: f(a.transaction_micros, b.transaction_micros),
        query_micros: f(a.query_micros, b.query_micros),
        wait_micros: f(a.wait_micros, b.wait_micros),
        client_parses: f(a.client_parses, b.client_parses),
        server_parses: f(a.server_parses, b.server_parses),
        binds: f(a.binds, b.binds),
        client_logins: f(a.client_logins, b.client_logins),
    }
}
