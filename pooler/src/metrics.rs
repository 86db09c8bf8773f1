//! The metrics in Prometheus' text form, under the names of pgbouncer_exporter. What it lacks: metrics/ours.rs.

mod ours;

use std::fmt::{Display, Write};

use crate::admin::PGBOUNCER_VERSION;
use crate::admin::facts::{ClientState, Counters, DatabaseRow, Facts, PoolRow, SocketState, StatsRow};
use crate::settings::Settings;

const MICROS_PER_SECOND: f64 = 1e6;

/// All metrics of one look at the pooler.
pub fn render(facts: &Facts) -> String {
    let mut page = Page::default();
    page.family("up", "gauge", "The pgbouncer scrape succeeded.");
    page.sample("up", &[], 1);
    page.family("version_info", "gauge", "The pgbouncer version info");
    page.sample("version_info", &[("version", &format!("PgBouncer {PGBOUNCER_VERSION}"))], 1);
    if let Some(settings) = &facts.settings {
        config(&mut page, settings);
        databases(&mut page, facts, settings);
    }
    lists(&mut page, facts);
    pools(&mut page, facts);
    stats(&mut page, facts);
    clients(&mut page, facts);
    ours::write(&mut page, facts);
    page.text
}

/// A page of metrics. Each name gets the prefix of the exporter.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP pgbouncer_{name} {help}\n# TYPE pgbouncer_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "pgbouncer_{name}");
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(text));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }
}

/// A label may hold whatever a client calls itself.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn config(page: &mut Page, settings: &Settings) {
    page.family("config_max_client_connections", "gauge", "Config maximum number of client connections");
    page.sample("config_max_client_connections", &[], settings.max_client_conn);
    page.family(
        "config_max_user_connections",
        "gauge",
        "Config maximum number of server connections per user",
    );
    page.sample("config_max_user_connections", &[], settings.keys.max_user_connections);
}

fn databases(page: &mut Page, facts: &Facts, settings: &Settings) {
    type Column = (&'static str, &'static str, fn(&DatabaseRow, &Settings) -> u32);
    let columns: [Column; 6] = [
        ("pool_size", "Maximum number of server connections", |row, settings| {
            row.database.pool_size.unwrap_or(settings.default_pool_size)
        }),
        ("reserve_pool", "Maximum number of additional connections for this database", |row, settings| {
            row.database.reserve_pool_size.unwrap_or(settings.keys.reserve_pool_size)
        }),
        ("max_connections", "Maximum number of allowed connections for this database", |row, settings| {
            settings.max_db_connections(&row.database)
        }),
        ("current_connections", "Current number of connections for this database", |row, _| row.connections),
        ("paused", "1 if this database is currently paused, else 0", |row, _| row.paused.into()),
        ("disabled", "1 if this database is currently disabled, else 0", |row, _| row.disabled.into()),
    ];
    for (name, help, value) in columns {
        let name = format!("databases_{name}");
        page.family(&name, "gauge", help);
        for row in &facts.databases {
            let entry = &row.database;
            let (host, port) = (entry.host_text().unwrap_or_default(), entry.port.to_string());
            let mode = entry.pool_mode.unwrap_or(settings.keys.pool_mode);
            let labels = [
                ("name", entry.name.as_str()),
                ("host", &host),
                ("port", &port),
                ("database", &entry.dbname),
                ("force_user", entry.user.as_deref().unwrap_or("")),
                ("pool_mode", mode.as_str()),
            ];
            page.sample(&name, &labels, value(row, settings));
        }
    }
}

fn lists(page: &mut Page, facts: &Facts) {
    let lists = &facts.lists;
    for (name, help, count) in [
        ("databases", "Count of databases", lists.databases),
        ("users", "Count of users", lists.users),
        ("pools", "Count of pools", lists.pools),
        ("free_clients", "Count of free clients", lists.free_clients),
        ("used_clients", "Count of used clients", lists.used_clients),
        ("login_clients", "Count of clients in login state", lists.login_clients),
        ("free_servers", "Count of free servers", lists.free_servers),
        ("used_servers", "Count of used servers", lists.used_servers),
        ("cached_dns_names", "Count of DNS names in the cache", lists.dns_names),
        ("cached_dns_zones", "Count of DNS zones in the cache", lists.dns_zones),
        ("in_flight_dns_queries", "Count of in-flight DNS queries", lists.dns_queries),
    ] {
        page.family(name, "gauge", help);
        page.sample(name, &[], count);
    }
}

fn pools(page: &mut Page, facts: &Facts) {
    type Column = (&'static str, &'static str, fn(&PoolRow) -> f64);
    let columns: [Column; 12] = [
        ("client_active_connections", "Client connections linked to server connection", |row| {
            row.cl_active.into()
        }),
        (
            "client_active_cancel_connections",
            "Client connections that have forwarded query cancellations",
            |row| row.cl_active_cancel_req.into(),
        ),
        ("client_waiting_connections", "Client connections waiting on a server connection", |row| {
            row.cl_waiting.into()
        }),
        (
            "client_waiting_cancel_connections",
            "Client connections that have not forwarded cancellations yet",
            |row| row.cl_waiting_cancel_req.into(),
        ),
        ("server_active_connections", "Server connections linked to a client connection", |row| {
            row.sv_active.into()
        }),
        (
            "server_active_cancel_connections",
            "Server connections that are forwarding a cancel request",
            |row| row.sv_active_cancel.into(),
        ),
        ("server_being_canceled_connections", "Servers that wait until cancel requests are done", |row| {
            row.sv_being_canceled.into()
        }),
        ("server_idle_connections", "Server connections idle and ready for a client query", |row| {
            row.sv_idle.into()
        }),
        ("server_used_connections", "Server connections idle more than server_check_delay", |row| {
            row.sv_used.into()
        }),
        ("server_testing_connections", "Server connections running a reset or check query", |row| {
            row.sv_tested.into()
        }),
        ("server_login_connections", "Server connections in the process of logging in", |row| {
            row.sv_login.into()
        }),
        ("client_maxwait_seconds", "Age of the oldest waiting client connection", |row| {
            row.max_wait.as_secs_f64()
        }),
    ];
    for (name, help, value) in columns {
        let name = format!("pools_{name}");
        page.family(&name, "gauge", help);
        for row in &facts.pools {
            page.sample(&name, &[("database", &row.database), ("user", &row.user)], value(row));
        }
    }
}

fn stats(page: &mut Page, facts: &Facts) {
    type Column = (&'static str, &'static str, fn(&Counters) -> f64);
    let columns: [Column; 13] = [
        ("queries_pooled_total", "SQL queries pooled", |c| c.queries as f64),
        ("queries_duration_seconds_total", "Time spent by the server on queries", |c| {
            seconds(c.query_micros)
        }),
        ("received_bytes_total", "Bytes received by the pooler from clients", |c| c.received_bytes as f64),
        ("queries_total", "SQL queries", |c| c.queries as f64),
        ("sent_bytes_total", "Bytes sent by the pooler to clients", |c| c.sent_bytes as f64),
        ("client_wait_seconds_total", "Time spent by clients waiting for a server", |c| {
            seconds(c.wait_micros)
        }),
        ("sql_transactions_pooled_total", "SQL transactions pooled", |c| c.transactions as f64),
        ("server_in_transaction_seconds_total", "Time spent in transactions", |c| {
            seconds(c.transaction_micros)
        }),
        ("client_parses_total", "Prepared statement Parse messages received from clients", |c| {
            c.client_parses as f64
        }),
        ("server_parses_total", "Prepared statement Parse messages sent to servers", |c| {
            c.server_parses as f64
        }),
        ("binds_total", "Bind messages of prepared statements forwarded", |c| c.binds as f64),
        ("server_assignments_total", "Times that a server was assigned to a client", |c| {
            c.server_assignments as f64
        }),
        ("client_logins_total", "Clients that logged in", |c| c.client_logins as f64),
    ];
    for (name, help, value) in columns {
        let name = format!("stats_{name}");
        page.family(&name, "counter", help);
        for StatsRow { database, now, .. } in &facts.stats {
            page.sample(&name, &[("database", database)], value(now));
        }
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / MICROS_PER_SECOND
}

/// Clients by what they call themselves, counted.
fn clients(page: &mut Page, facts: &Facts) {
    let mut counts = std::collections::BTreeMap::<[&str; 4], u32>::new();
    for row in &facts.sockets {
        let SocketState::Client(state) = row.state else { continue };
        let state = match state {
            ClientState::Active if row.link.is_none() => "idle",
            ClientState::Active => "active",
            ClientState::Waiting => "waiting",
            ClientState::ActiveCancelReq => "active_cancel_req",
            ClientState::WaitingCancelReq => "waiting_cancel_req",
            ClientState::Login => continue,
        };
        let (database, user) = (row.database.as_deref().unwrap_or(""), row.user.as_deref().unwrap_or(""));
        *counts.entry([database, user, &row.application_name, state]).or_default() += 1;
    }
    page.family(
        "client_connections",
        "gauge",
        "Client connections by database, user, application name and state",
    );
    for ([database, user, application, state], count) in counts {
        let labels =
            [("database", database), ("user", user), ("application_name", application), ("state", state)];
        page.sample("client_connections", &labels, count);
    }
}

#[cfg(test)]
mod tests;
