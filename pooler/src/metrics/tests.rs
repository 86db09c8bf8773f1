use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::admin::facts::{Detail, ErrorCount};
use crate::logic::ledger::Limit;
use crate::settings::PoolMode;

fn busy() -> Facts {
    let pool = PoolRow {
        database: "p\"0".into(),
        user: "bob".into(),
        cl_active: 3,
        cl_waiting: 0,
        cl_active_cancel_req: 0,
        cl_waiting_cancel_req: 0,
        sv_active: 2,
        sv_active_cancel: 0,
        sv_being_canceled: 0,
        sv_idle: 1,
        sv_used: 0,
        sv_tested: 0,
        sv_login: 0,
        max_wait: Duration::from_millis(1500),
        pool_mode: PoolMode::Transaction,
        load_balance_hosts: None,
    };
    let now = Counters {
        queries: 7,
        query_micros: 2_500_000,
        server_assignments: 5,
        server_parses: 4,
        ..Counters::default()
    };
    let mut detail = Detail { prepared_hits: 36, ..Detail::default() };
    detail.waits.counts[1] = 2;
    detail.waits.micros = 200;
    detail.limits_reached[Limit::PoolSize as usize] = 2;
    Facts {
        settings: Some(Arc::default()),
        pools: vec![pool],
        stats: vec![StatsRow { database: "p0".into(), now, detail, older: Counters::default() }],
        errors: vec![ErrorCount { kind: "pool", sqlstate: "08P01".into(), count: 2 }],
        ..Facts::default()
    }
}

#[test]
fn values_have_the_exporters_names_and_units() {
    let page = render(&busy());
    for line in [
        "pgbouncer_up 1",
        "pgbouncer_version_info{version=\"PgBouncer 1.25.2\"} 1",
        "pgbouncer_config_max_client_connections 100",
        "pgbouncer_pools_server_active_connections{database=\"p\\\"0\",user=\"bob\"} 2",
        "pgbouncer_pools_client_maxwait_seconds{database=\"p\\\"0\",user=\"bob\"} 1.5",
        "pgbouncer_stats_queries_duration_seconds_total{database=\"p0\"} 2.5",
        "pgbouncer_stats_queries_total{database=\"p0\"} 7",
        "pgbouncer_errors_total{kind=\"pool\",sqlstate=\"08P01\"} 2",
        "pgbouncer_prepared_hits_total{database=\"p0\"} 36",
        "pgbouncer_prepared_misses_total{database=\"p0\"} 4",
        "pgbouncer_limit_reached_total{database=\"p0\",limit=\"pool_size\"} 2",
        "pgbouncer_limit_reached_total{database=\"p0\",limit=\"max_client_conn\"} 0",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
}

/// Five times a server was assigned, and two of the clients had waited for it.
#[test]
fn a_histogram_counts_what_took_up_to_each_bound_and_those_who_did_not_wait_at_all() {
    let page = render(&busy());
    let samples: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("pgbouncer_wait_duration_seconds_")).collect();
    assert_eq!(samples[0], "bucket{database=\"p0\",le=\"0.000064\"} 3");
    assert_eq!(samples[1], "bucket{database=\"p0\",le=\"0.000128\"} 5");
    let end = &samples[samples.len() - 3..];
    let wanted =
        ["bucket{database=\"p0\",le=\"+Inf\"} 5", "sum{database=\"p0\"} 0.0002", "count{database=\"p0\"} 5"];
    assert_eq!(end, wanted);
    assert!(page.contains("# TYPE pgbouncer_wait_duration_seconds histogram"));
}

#[test]
fn every_family_is_declared_once_before_its_samples() {
    let page = render(&busy());
    let mut declared = BTreeSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(declared.insert(name), "{name} twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is_declared = declared.contains(name) || of_histogram.is_some_and(|n| declared.contains(n));
            assert!(is_declared, "{name} is not declared");
        }
    }
}
