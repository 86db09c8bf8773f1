//! What pgbouncer_exporter cannot know: how long things took, who had to wait for which limit, errors by code.

use super::{Page, seconds};
use crate::admin::facts::{Detail, Durations, Facts, StatsRow, Workers};
use crate::logic::ledger::Limit;
use crate::stats::end_seconds;

pub fn write(page: &mut Page, facts: &Facts) {
    histograms(page, facts);
    prepared(page, facts);
    limits(page, facts);
    errors(page, facts);
    workers(page, facts);
}

fn histograms(page: &mut Page, facts: &Facts) {
    type Column = (&'static str, &'static str, fn(&StatsRow) -> Durations);
    let columns: [Column; 4] = [
        ("wait_duration_seconds", "Time from asking for a server to getting one", waits),
        ("query_duration_seconds", "Time from a request to the end of its replies", |row| row.detail.queries),
        (
            "transaction_duration_seconds",
            "Time from the lease of a server to the end of the transaction",
            |row| row.detail.transactions,
        ),
        ("login_duration_seconds", "Time from the accepted socket to the greeting", |row| row.detail.logins),
    ];
    for (name, help, value) in columns {
        page.family(name, "histogram", help);
        for row in &facts.stats {
            histogram(page, name, &row.database, &value(row));
        }
    }
}

/// Who got a server at once waited no time; only those who did wait were measured.
fn waits(row: &StatsRow) -> Durations {
    let mut waits = row.detail.waits;
    let measured: u64 = waits.counts.iter().sum();
    waits.counts[0] += row.now.server_assignments.saturating_sub(measured);
    waits
}

fn histogram(page: &mut Page, name: &str, database: &str, durations: &Durations) {
    let (bucket_name, mut below) = (format!("{name}_bucket"), 0);
    for (bucket, count) in durations.counts.iter().enumerate() {
        below += count;
        let end = end_seconds(bucket).map_or_else(|| "+Inf".to_string(), |end| end.to_string());
        page.sample(&bucket_name, &[("database", database), ("le", &end)], below);
    }
    page.sample(&format!("{name}_sum"), &[("database", database)], seconds(durations.micros));
    page.sample(&format!("{name}_count"), &[("database", database)], below);
}

/// The hit ratio is hits / (hits + misses).
fn prepared(page: &mut Page, facts: &Facts) {
    type Column = (&'static str, &'static str, fn(&StatsRow) -> u64);
    let columns: [Column; 2] = [
        ("prepared_hits_total", "Uses of a named statement that the server had already", |row| {
            row.detail.prepared_hits
        }),
        ("prepared_misses_total", "Uses of a named statement that had to be prepared first", |row| {
            row.now.server_parses
        }),
    ];
    for (name, help, value) in columns {
        page.family(name, "counter", help);
        for row in &facts.stats {
            page.sample(name, &[("database", &row.database)], value(row));
        }
    }
}

fn limits(page: &mut Page, facts: &Facts) {
    let name = "limit_reached_total";
    page.family(name, "counter", "Clients that a limit kept out, or made wait for a server");
    for StatsRow { database, detail: Detail { limits_reached, .. }, .. } in &facts.stats {
        for limit in Limit::ALL {
            let labels = [("database", database.as_str()), ("limit", limit.as_str())];
            page.sample(name, &labels, limits_reached[limit as usize]);
        }
    }
}

fn workers(page: &mut Page, facts: &Facts) {
    let Workers { all, in_use, changes } = facts.workers;
    page.family("workers", "gauge", "Threads that may serve clients");
    page.sample("workers", &[], all);
    page.family("workers_in_use", "gauge", "Threads over which the load is spread");
    page.sample("workers_in_use", &[], in_use);
    page.family("worker_changes_total", "counter", "Clients that went from one thread to another");
    page.sample("worker_changes_total", &[], changes);
}

fn errors(page: &mut Page, facts: &Facts) {
    let name = "errors_total";
    page.family(name, "counter", "Errors sent to clients, by whose fault they were and their SQLSTATE");
    for row in &facts.errors {
        page.sample(name, &[("kind", row.kind), ("sqlstate", &row.sqlstate)], row.count);
    }
}
