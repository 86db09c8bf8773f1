use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::admin::facts::ErrorCount;
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
    let now = Counters { queries: 7, query_micros: 2_500_000, ..Counters::default() };
    Facts {
        settings: Some(Arc::default()),
        pools: vec![pool],
        stats: vec![StatsRow { database: "p0".into(), now, older: Counters::default() }],
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
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
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
            assert!(declared.contains(name), "{name} is not declared");
        }
    }
}
