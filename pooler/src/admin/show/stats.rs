//! SHOW STATS, STATS_TOTALS, STATS_AVERAGES and TOTALS.

use std::time::Duration;

use crate::admin::facts::{Counters, Facts};
use crate::admin::table::{Cell, Columns, NUMERIC, TEXT, Table, cell};

/// The order of counters in every table.
fn values(counters: &Counters) -> [u64; 12] {
    [
        counters.server_assignments,
        counters.transactions,
        counters.queries,
        counters.received_bytes,
        counters.sent_bytes,
        counters.transaction_micros,
        counters.query_micros,
        counters.wait_micros,
        counters.client_parses,
        counters.server_parses,
        counters.binds,
        counters.client_logins,
    ]
}

fn add(a: &Counters, b: &Counters) -> Counters {
    Counters {
        server_assignments: a.server_assignments + b.server_assignments,
        transactions: a.transactions + b.transactions,
        queries: a.queries + b.queries,
        received_bytes: a.received_bytes + b.received_bytes,
        sent_bytes: a.sent_bytes + b.sent_bytes,
        transaction_micros: a.transaction_micros + b.transaction_micros,
        query_micros: a.query_micros + b.query_micros,
        wait_micros: a.wait_micros + b.wait_micros,
        client_parses: a.client_parses + b.client_parses,
        server_parses: a.server_parses + b.server_parses,
        binds: a.binds + b.binds,
        client_logins: a.client_logins + b.client_logins,
    }
}

/// Counts per second; times per transaction, query and assignment.
pub fn average(now: &Counters, older: &Counters, elapsed: Duration) -> Counters {
    let micros = elapsed.as_micros();
    let since = |field: fn(&Counters) -> u64| field(now).saturating_sub(field(older));
    let per_second = |field: fn(&Counters) -> u64| match micros {
        0 => 0,
        _ => u64::try_from(u128::from(since(field)) * 1_000_000 / micros).unwrap_or(u64::MAX),
    };
    let per = |field: fn(&Counters) -> u64, count: fn(&Counters) -> u64| match (micros, since(count)) {
        (0, _) | (_, 0) => 0,
        (_, count) => since(field) / count,
    };
    Counters {
        server_assignments: per_second(|c| c.server_assignments),
        transactions: per_second(|c| c.transactions),
        queries: per_second(|c| c.queries),
        received_bytes: per_second(|c| c.received_bytes),
        sent_bytes: per_second(|c| c.sent_bytes),
        transaction_micros: per(|c| c.transaction_micros, |c| c.transactions),
        query_micros: per(|c| c.query_micros, |c| c.queries),
        wait_micros: per(|c| c.wait_micros, |c| c.server_assignments),
        client_parses: per_second(|c| c.client_parses),
        server_parses: per_second(|c| c.server_parses),
        binds: per_second(|c| c.binds),
        client_logins: per_second(|c| c.client_logins),
    }
}

const STATS: Columns = &[
    ("database", TEXT),
    ("total_server_assignment_count", NUMERIC),
    ("total_xact_count", NUMERIC),
    ("total_query_count", NUMERIC),
    ("total_received", NUMERIC),
    ("total_sent", NUMERIC),
    ("total_xact_time", NUMERIC),
    ("total_query_time", NUMERIC),
    ("total_wait_time", NUMERIC),
    ("total_client_parse_count", NUMERIC),
    ("total_server_parse_count", NUMERIC),
    ("total_bind_count", NUMERIC),
    ("total_client_login_count", NUMERIC),
    ("avg_server_assignment_count", NUMERIC),
    ("avg_xact_count", NUMERIC),
    ("avg_query_count", NUMERIC),
    ("avg_recv", NUMERIC),
    ("avg_sent", NUMERIC),
    ("avg_xact_time", NUMERIC),
    ("avg_query_time", NUMERIC),
    ("avg_wait_time", NUMERIC),
    ("avg_client_parse_count", NUMERIC),
    ("avg_server_parse_count", NUMERIC),
    ("avg_bind_count", NUMERIC),
    ("avg_client_login_count", NUMERIC),
];

const STATS_TOTALS: Columns = &[
    ("database", TEXT),
    ("server_assignment_count", NUMERIC),
    ("xact_count", NUMERIC),
    ("query_count", NUMERIC),
    ("bytes_received", NUMERIC),
    ("bytes_sent", NUMERIC),
    ("xact_time", NUMERIC),
    ("query_time", NUMERIC),
    ("wait_time", NUMERIC),
    ("client_parse_count", NUMERIC),
    ("server_parse_count", NUMERIC),
    ("bind_count", NUMERIC),
    ("client_login_count", NUMERIC),
];

/// Some names have `avg_` and some do not: PgBouncer's are like that.
const STATS_AVERAGES: Columns = &[
    ("database", TEXT),
    ("server_assignment_count", NUMERIC),
    ("xact_count", NUMERIC),
    ("query_count", NUMERIC),
    ("bytes_received", NUMERIC),
    ("bytes_sent", NUMERIC),
    ("xact_time", NUMERIC),
    ("query_time", NUMERIC),
    ("wait_time", NUMERIC),
    ("avg_client_parse_count", NUMERIC),
    ("avg_server_parse_count", NUMERIC),
    ("avg_bind_count", NUMERIC),
    ("avg_client_login_count", NUMERIC),
];

/// Names of the rows of SHOW TOTALS, after `total_` and `avg_`.
const TOTALS: [&str; 12] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "client_bytes",
    "server_bytes",
    "xact_time",
    "query_time",
    "wait_time",
    "ps_client_parse_count",
    "ps_server_parse_count",
    "ps_bind_count",
    "client_login_count",
];

fn row(database: &str, values: impl IntoIterator<Item = u64>) -> Vec<Cell> {
    std::iter::once(cell(database)).chain(values.into_iter().map(cell)).collect()
}

pub fn stats(facts: &Facts) -> Table {
    let rows = facts.stats.iter().map(|stats| {
        let averages = average(&stats.now, &stats.older, facts.stats_elapsed);
        row(&stats.database, values(&stats.now).into_iter().chain(values(&averages)))
    });
    Table::with_rows(STATS, rows)
}

pub fn totals(facts: &Facts) -> Table {
    let rows = facts.stats.iter().map(|stats| row(&stats.database, values(&stats.now)));
    Table::with_rows(STATS_TOTALS, rows)
}

pub fn averages(facts: &Facts) -> Table {
    let rows = facts
        .stats
        .iter()
        .map(|stats| row(&stats.database, values(&average(&stats.now, &stats.older, facts.stats_elapsed))));
    Table::with_rows(STATS_AVERAGES, rows)
}

pub fn all_totals(facts: &Facts) -> Table {
    let sum = |field: fn(&crate::admin::facts::StatsRow) -> &Counters| {
        facts.stats.iter().fold(Counters::default(), |sum, stats| add(&sum, field(stats)))
    };
    let (now, older) = (sum(|stats| &stats.now), sum(|stats| &stats.older));
    let averages = average(&now, &older, facts.stats_elapsed);
    let lines = |prefix: &'static str, counters: Counters| {
        let named = TOTALS.into_iter().zip(values(&counters));
        named.map(move |(name, value)| vec![cell(format!("{prefix}{name}")), cell(value)])
    };
    let rows = lines("total_", now).chain(lines("avg_", averages));
    Table::with_rows(&[("name", TEXT), ("value", NUMERIC)], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_per_second_and_per_piece() {
        let older = Counters { queries: 10, query_micros: 1_000, ..Counters::default() };
        let now = Counters { queries: 40, query_micros: 4_000, received_bytes: 99, ..older };
        let averages = average(&now, &older, Duration::from_secs(3));
        assert_eq!((averages.queries, averages.query_micros, averages.received_bytes), (10, 100, 33));
        assert_eq!(averages.wait_micros, 0, "nothing was assigned");
        assert_eq!(average(&now, &older, Duration::ZERO), Counters::default());
    }
}
