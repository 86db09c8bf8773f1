//! What exporters ask of the console, as they ask it: a driver, simple queries, columns by name.

use tokio_postgres::SimpleQueryMessage;

use crate::world::Pooler;

/// pgbouncer_exporter's queries, and the columns of each that it makes metrics and labels of.
const BY_COLUMN: &[(&str, &[&str])] = &[
    (
        "SHOW STATS;",
        &[
            "database",
            "total_query_count",
            "total_query_time",
            "total_received",
            "total_sent",
            "total_wait_time",
            "total_xact_count",
            "total_xact_time",
            "total_server_assignment_count",
            "total_client_parse_count",
            "total_server_parse_count",
            "total_bind_count",
        ],
    ),
    // In lower case, as the exporter of the Prometheus community writes it.
    (
        "SHOW stats_totals;",
        &[
            "database",
            "query_count",
            "query_time",
            "bytes_received",
            "bytes_sent",
            "wait_time",
            "xact_count",
            "xact_time",
            "client_parse_count",
            "server_parse_count",
            "bind_count",
        ],
    ),
    (
        "SHOW POOLS;",
        &[
            "database",
            "user",
            "cl_active",
            "cl_active_cancel_req",
            "cl_waiting",
            "cl_waiting_cancel_req",
            "sv_active",
            "sv_active_cancel",
            "sv_being_canceled",
            "sv_idle",
            "sv_used",
            "sv_tested",
            "sv_login",
            "maxwait",
            "maxwait_us",
            "pool_mode",
        ],
    ),
    (
        "SHOW DATABASES;",
        &[
            "name",
            "host",
            "port",
            "database",
            "force_user",
            "pool_mode",
            "pool_size",
            "reserve_pool_size",
            "max_connections",
            "current_connections",
            "paused",
            "disabled",
        ],
    ),
    ("SHOW CONFIG;", &["key", "value"]),
    ("SHOW VERSION;", &["version"]),
];

/// Rows of SHOW LISTS that exporters look up by their first column.
const LISTS: &[&str] = &[
    "databases",
    "users",
    "pools",
    "free_clients",
    "used_clients",
    "login_clients",
    "free_servers",
    "used_servers",
    "dns_names",
    "dns_zones",
    "dns_queries",
    "dns_pending",
];

async fn ask(console: &tokio_postgres::Client, query: &str) -> Vec<tokio_postgres::SimpleQueryRow> {
    let messages = console.simple_query(query).await.unwrap_or_else(|error| panic!("{query} {error}"));
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

#[tokio::test]
async fn exporters_find_every_column_that_they_read() {
    let pooler = Pooler::start("stats_users = alice");
    let client = pooler.client().await;
    client.batch_execute("SELECT 1").await.unwrap();
    let console = pooler.client_as("alice", "dbname=pgbouncer").await.unwrap();
    // What a driver says before it asks.
    console.simple_query("SET client_encoding TO 'UTF8'").await.unwrap();
    for (query, columns) in BY_COLUMN {
        let rows = ask(&console, query).await;
        assert!(!rows.is_empty(), "{query}");
        for row in &rows {
            for column in *columns {
                assert!(row.columns().iter().any(|c| c.name() == *column), "{query} lacks {column}");
            }
        }
    }
    let lists = ask(&console, "SHOW LISTS;").await;
    for name in LISTS {
        let row = lists.iter().find(|row| row.get(0) == Some(*name)).unwrap_or_else(|| panic!("no {name}"));
        assert!(row.get(1).is_some_and(|count| count.parse::<u64>().is_ok()), "{name}");
    }
}

/// The driver of Debian's exporter, and its four queries.
#[test]
fn psycopg_reads_the_tables_of_debians_exporter() {
    let pooler = Pooler::start("stats_users = alice");
    let script = "import sys, psycopg\n\
                  url = 'host=127.0.0.1 user=alice dbname=pgbouncer port=' + sys.argv[1]\n\
                  with psycopg.connect(url, autocommit=True) as console:\n\
                  \x20   for table in ['LISTS', 'STATS', 'POOLS', 'DATABASES']:\n\
                  \x20       result = console.pgconn.exec_(('SHOW %s;' % table).encode())\n\
                  \x20       assert result.ntuples > 0, (table, result.error_message)\n\
                  print('read')\n";
    let output = std::process::Command::new("/usr/bin/python3")
        .args(["-c", script, &pooler.port.to_string()])
        .output()
        .expect("python3 is installed");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "read\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
