//! SHOW POOLS, DATABASES, USERS, PEERS and PEER_POOLS.

use super::flag;
use crate::admin::facts::{DatabaseRow, Facts, PoolRow, UserRow};
use crate::admin::table::{Cell, Columns, INT4, TEXT, Table, cell};
use crate::settings::Settings;

const POOLS: Columns = &[
    ("database", TEXT),
    ("user", TEXT),
    ("cl_active", INT4),
    ("cl_waiting", INT4),
    ("cl_active_cancel_req", INT4),
    ("cl_waiting_cancel_req", INT4),
    ("sv_active", INT4),
    ("sv_active_cancel", INT4),
    ("sv_being_canceled", INT4),
    ("sv_idle", INT4),
    ("sv_used", INT4),
    ("sv_tested", INT4),
    ("sv_login", INT4),
    ("maxwait", INT4),
    ("maxwait_us", INT4),
    ("pool_mode", TEXT),
    ("load_balance_hosts", TEXT),
];

pub fn pools(facts: &Facts) -> Table {
    Table::with_rows(POOLS, facts.pools.iter().map(pool))
}

fn pool(row: &PoolRow) -> Vec<Cell> {
    vec![
        cell(&row.database),
        cell(&row.user),
        cell(row.cl_active),
        cell(row.cl_waiting),
        cell(row.cl_active_cancel_req),
        cell(row.cl_waiting_cancel_req),
        cell(row.sv_active),
        cell(row.sv_active_cancel),
        cell(row.sv_being_canceled),
        cell(row.sv_idle),
        cell(row.sv_used),
        cell(row.sv_tested),
        cell(row.sv_login),
        cell(row.max_wait.as_secs()),
        cell(row.max_wait.subsec_micros()),
        cell(row.pool_mode),
        row.load_balance_hosts.and_then(cell),
    ]
}

const DATABASES: Columns = &[
    ("name", TEXT),
    ("host", TEXT),
    ("port", INT4),
    ("database", TEXT),
    ("force_user", TEXT),
    ("pool_size", INT4),
    ("min_pool_size", INT4),
    ("reserve_pool_size", INT4),
    ("server_lifetime", INT4),
    ("pool_mode", TEXT),
    ("load_balance_hosts", TEXT),
    ("max_connections", INT4),
    ("current_connections", INT4),
    ("max_client_connections", INT4),
    ("current_client_connections", INT4),
    ("paused", INT4),
    ("disabled", INT4),
];

pub fn databases(facts: &Facts) -> Table {
    let Some(settings) = &facts.settings else { return Table::new(DATABASES) };
    Table::with_rows(DATABASES, facts.databases.iter().map(|row| database(row, settings)))
}

fn database(row: &DatabaseRow, settings: &Settings) -> Vec<Cell> {
    let entry = &row.database;
    let balanced = (entry.hosts.len() > 1).then_some(entry.load_balance_hosts);
    vec![
        cell(&entry.name),
        entry.host_text(),
        cell(entry.port),
        cell(&entry.dbname),
        entry.user.clone(),
        cell(entry.pool_size.unwrap_or(settings.default_pool_size)),
        cell(settings.min_pool_size(entry)),
        cell(entry.reserve_pool_size.unwrap_or(settings.keys.reserve_pool_size)),
        cell(settings.server_lifetime(entry).as_secs()),
        entry.pool_mode.and_then(cell),
        balanced.and_then(cell),
        cell(settings.max_db_connections(entry)),
        cell(row.connections),
        cell(settings.max_db_client_connections(entry)),
        cell(row.clients),
        flag(row.paused),
        flag(row.disabled),
    ]
}

const USERS: Columns = &[
    ("name", TEXT),
    ("pool_size", TEXT),
    ("reserve_pool_size", TEXT),
    ("pool_mode", TEXT),
    ("max_user_connections", INT4),
    ("current_connections", INT4),
    ("max_user_client_connections", INT4),
    ("current_client_connections", INT4),
];

pub fn users(facts: &Facts) -> Table {
    let Some(settings) = &facts.settings else { return Table::new(USERS) };
    Table::with_rows(USERS, facts.users.iter().map(|row| user(row, settings)))
}

fn user(row: &UserRow, settings: &Settings) -> Vec<Cell> {
    let own = settings.users.get(&row.name);
    // Text columns, right-aligned to nine places: scripts have parsed it like this since it exists.
    let size = |n: Option<u32>| cell(n.map(|n| format!("{n:>9}")).unwrap_or_default());
    vec![
        cell(&row.name),
        size(own.and_then(|user| user.pool_size)),
        size(own.and_then(|user| user.reserve_pool_size)),
        own.and_then(|user| user.pool_mode).and_then(cell),
        cell(settings.max_user_connections(&row.name)),
        cell(row.connections),
        cell(settings.max_user_client_connections(&row.name)),
        cell(row.clients),
    ]
}

const PEERS: Columns = &[("peer_id", INT4), ("host", TEXT), ("port", INT4), ("pool_size", INT4)];

pub fn peers(facts: &Facts) -> Table {
    let default_size = facts.settings.as_ref().map_or(0, |settings| settings.default_pool_size);
    let rows = facts.peers.iter().map(|peer| {
        let size = peer.pool_size.unwrap_or(default_size);
        vec![cell(peer.id), cell(&peer.host), cell(peer.port), cell(size)]
    });
    Table::with_rows(PEERS, rows)
}

const PEER_POOLS: Columns = &[
    ("peer_id", INT4),
    ("cl_active_cancel_req", INT4),
    ("cl_waiting_cancel_req", INT4),
    ("sv_active_cancel", INT4),
    ("sv_login", INT4),
];

pub fn peer_pools(facts: &Facts) -> Table {
    let rows = facts.peer_pools.iter().map(|row| {
        vec![
            cell(row.peer_id),
            cell(row.cl_active_cancel_req),
            cell(row.cl_waiting_cancel_req),
            cell(row.sv_active_cancel),
            cell(row.sv_login),
        ]
    });
    Table::with_rows(PEER_POOLS, rows)
}
