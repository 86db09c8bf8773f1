//! SHOW CONFIG, LISTS, MEM, STATE, VERSION, DNS_HOSTS and DNS_ZONES.

use crate::admin::PGBOUNCER_VERSION;
use crate::admin::facts::{Facts, State};
use crate::admin::table::{Columns, INT4, INT8, TEXT, Table, cell};
use crate::settings::{Changes, TABLE};

pub fn config(facts: &Facts) -> Table {
    const COLUMNS: Columns = &[("key", TEXT), ("value", TEXT), ("default", TEXT), ("changeable", TEXT)];
    let Some(settings) = &facts.settings else { return Table::new(COLUMNS) };
    let rows = TABLE.iter().map(|key| {
        let changeable = if key.changes == Changes::Live { "yes" } else { "no" };
        vec![cell(key.name), key.show(&settings.keys), key.default.map(String::from), cell(changeable)]
    });
    Table::with_rows(COLUMNS, rows)
}

pub fn lists(facts: &Facts) -> Table {
    let lists = &facts.lists;
    let rows = [
        ("databases", lists.databases),
        ("users", lists.users),
        ("peers", lists.peers),
        ("pools", lists.pools),
        ("peer_pools", lists.peer_pools),
        ("free_clients", lists.free_clients),
        ("used_clients", lists.used_clients),
        ("login_clients", lists.login_clients),
        ("free_servers", lists.free_servers),
        ("used_servers", lists.used_servers),
        ("dns_names", lists.dns_names),
        ("dns_zones", lists.dns_zones),
        ("dns_queries", lists.dns_queries),
        ("dns_pending", lists.dns_pending),
    ];
    Table::with_rows(
        &[("list", TEXT), ("items", INT4)],
        rows.map(|(name, count)| vec![cell(name), cell(count)]),
    )
}

pub fn mem(facts: &Facts) -> Table {
    const COLUMNS: Columns =
        &[("name", TEXT), ("size", INT4), ("used", INT4), ("free", INT4), ("memtotal", INT4)];
    let rows = facts.mem.iter().map(|row| {
        let total = u64::from(row.size_bytes) * (u64::from(row.used) + u64::from(row.free));
        vec![cell(row.name), cell(row.size_bytes), cell(row.used), cell(row.free), cell(total)]
    });
    Table::with_rows(COLUMNS, rows)
}

pub fn state(facts: &Facts) -> Table {
    let rows = [("active", State::Active), ("paused", State::Paused), ("suspended", State::Suspended)];
    let rows =
        rows.map(|(name, state)| vec![cell(name), cell(if facts.state == state { "yes" } else { "no" })]);
    Table::with_rows(&[("key", TEXT), ("value", TEXT)], rows)
}

pub fn version() -> Table {
    Table::with_rows(&[("version", TEXT)], [vec![cell(format!("PgBouncer {PGBOUNCER_VERSION}"))]])
}

pub fn dns_hosts(facts: &Facts) -> Table {
    let rows = facts
        .dns_hosts
        .iter()
        .map(|row| vec![cell(&row.hostname), cell(row.ttl_s), cell(row.addresses.join(","))]);
    Table::with_rows(&[("hostname", TEXT), ("ttl", INT8), ("addrs", TEXT)], rows)
}

/// Zone serials are not watched: names are looked up again after dns_max_ttl.
pub fn dns_zones() -> Table {
    Table::new(&[("zonename", TEXT), ("serial", INT8), ("count", INT4)])
}
