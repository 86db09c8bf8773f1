//! The console over psql: tables, commands, rights, metrics.

use std::process::Command;

use crate::world::{Pooler, free_port, get_page, postgres};

/// psql's output with a line of column names, and what went wrong.
fn psql(pooler: &Pooler, user: &str, command: &str) -> (String, String) {
    let output = Command::new("psql")
        .args(["-X", "-A", "-q", "-h", "127.0.0.1", "-U", user, "-d", "pgbouncer"])
        .args(["-p", &pooler.port.to_string(), "-c", command])
        .output()
        .expect("psql is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    (text(&output.stdout), text(&output.stderr))
}

fn columns(pooler: &Pooler, table: &str) -> String {
    let (text, errors) = psql(pooler, "postgres", &format!("SHOW {table}"));
    assert_eq!(errors, "", "{table}");
    text.lines().next().unwrap_or_default().to_string()
}

#[tokio::test]
async fn tables_have_pgbouncers_columns_and_true_figures() {
    let pooler = Pooler::start("");
    let client = pooler.client().await;
    client.batch_execute("BEGIN; SELECT 1; COMMIT").await.expect("Postgres answers");
    let pools = "database|user|cl_active|cl_waiting|cl_active_cancel_req|cl_waiting_cancel_req|sv_active|\
                 sv_active_cancel|sv_being_canceled|sv_idle|sv_used|sv_tested|sv_login|maxwait|maxwait_us|pool_mode|\
                 load_balance_hosts";
    assert_eq!(columns(&pooler, "POOLS"), pools);
    assert!(
        pooler.admin("SHOW POOLS").starts_with("postgres|postgres|1|0|0|0|0|0|0|1|"),
        "{}",
        pooler.admin("SHOW POOLS")
    );
    assert!(columns(&pooler, "CLIENTS").starts_with("type|user|database|replication|state|addr|port|"));
    assert!(columns(&pooler, "SERVERS").ends_with("|prepared_statements|id"));
    assert!(columns(&pooler, "SOCKETS").ends_with("|pkt_avail|send_avail"));
    assert_eq!(columns(&pooler, "CONFIG"), "key|value|default|changeable");
    assert!(columns(&pooler, "DATABASES").ends_with("|current_client_connections|paused|disabled"));
    for table in ["USERS", "LISTS", "MEM", "STATE", "PEERS", "PEER_POOLS", "DNS_HOSTS", "DNS_ZONES", "FDS"] {
        assert!(columns(&pooler, table).contains('|'), "{table}");
    }
    let stats = pooler.admin("SHOW STATS_TOTALS");
    let row = stats.lines().find(|line| line.starts_with("postgres|")).expect("the database was used");
    assert!(row.starts_with("postgres|1|1|1|"), "assignments, transactions, queries: {row}");
    assert_eq!(pooler.admin("SHOW VERSION"), "PgBouncer 1.25.2");
}

#[test]
fn a_user_who_may_only_look_is_refused_all_else() {
    let pooler = Pooler::start("stats_users = alice");
    assert_eq!(psql(&pooler, "alice", "SHOW STATE").1, "");
    for command in
        ["PAUSE", "KILL", "KILL_CLIENT 1", "RELOAD", "SHUTDOWN", "SHOW FDS", "SET pool_mode = session"]
    {
        assert_eq!(psql(&pooler, "alice", command).1, "ERROR:  admin access needed", "{command}");
    }
    assert!(psql(&pooler, "bob", "SHOW STATE").1.contains("not allowed"));
}

#[tokio::test]
async fn set_and_reload_take_effect_and_tell_what_is_wrong() {
    let pooler = Pooler::start("");
    pooler.admin("SET default_pool_size = 7");
    assert!(pooler.admin("SHOW CONFIG").contains("default_pool_size|7|20|yes"));
    assert_eq!(psql(&pooler, "postgres", "SET listen_port = 1").1, "ERROR:  SET failed");
    assert_eq!(psql(&pooler, "postgres", "SET default_pool_size = many").1, "ERROR:  SET failed");
    let path = pooler.folder.path().join("pooler.ini");
    let ini = std::fs::read_to_string(&path).expect("the ini file is there");
    std::fs::write(&path, format!("{ini}\npool_mod = session\n")).expect("the ini file is written");
    let refused = psql(&pooler, "postgres", "RELOAD").1;
    assert_eq!(refused, "ERROR:  RELOAD failed, see logs for additional details");
    assert!(
        pooler.log().contains("unknown parameter \"pool_mod\"; did you mean pool_mode?"),
        "{}",
        pooler.log()
    );
    assert!(pooler.admin("SHOW CONFIG").contains("default_pool_size|7|20|yes"), "the old settings stay");
    std::fs::write(&path, format!("{ini}\nmax_client_conn = 55\n")).expect("the ini file is written");
    pooler.admin("RELOAD");
    assert!(pooler.admin("SHOW CONFIG").contains("max_client_conn|55|100|yes"));
}

#[tokio::test]
async fn clients_are_killed_by_number_and_a_disabled_database_takes_none() {
    let pooler = Pooler::start("");
    let client = pooler.client_as("alice", "").await.expect("the login succeeds");
    let rows = pooler.admin("SHOW CLIENTS");
    let row = rows.lines().find(|line| line.contains("|alice|")).expect("alice is there");
    let id = row.rsplit('|').next().expect("the last column is the id");
    pooler.admin(&format!("KILL_CLIENT {id}"));
    assert!(client.simple_query("SELECT 1").await.is_err(), "alice is gone");
    assert!(psql(&pooler, "postgres", "KILL_CLIENT 999999").1.contains("client not found"));
    pooler.admin("DISABLE other");
    let refused = pooler.client_as("alice", "dbname=other").await.expect_err("other is disabled");
    assert!(format!("{refused:?}").contains("database \\\"other\\\" is disabled"), "{refused:?}");
    pooler.admin("ENABLE other");
    assert!(pooler.client_as("alice", "dbname=other").await.is_ok());
    assert!(psql(&pooler, "postgres", "DISABLE nosuchdb").1.contains("no such database: nosuchdb"));
}

#[tokio::test]
async fn the_metrics_port_gives_the_exporters_names() {
    let port = free_port();
    let pooler = Pooler::start(&format!("metrics_listen_port = {port}"));
    let client = pooler.client().await;
    client.batch_execute("SELECT 1").await.expect("Postgres answers");
    let page = get_page(port, "/metrics");
    assert!(page.contains("\npgbouncer_up 1\n"), "{page}");
    assert!(
        page.contains("pgbouncer_pools_server_idle_connections{database=\"postgres\",user=\"postgres\"} 1"),
        "{page}"
    );
    assert!(page.contains("pgbouncer_stats_queries_total{database=\"postgres\"} 1"), "{page}");
    assert!(get_page(port, "/health/ready").starts_with("HTTP/1.1 200"));
    let checked = Command::new(env!("CARGO_BIN_EXE_pooler"))
        .arg("--healthcheck")
        .arg(pooler.folder.path().join("pooler.ini"))
        .output()
        .expect("the program starts");
    assert_eq!(String::from_utf8_lossy(&checked.stdout), "ready\n");
}

#[tokio::test]
async fn users_who_are_in_no_file_are_looked_up() {
    let databases = format!(
        "looked = host=127.0.0.1 port={} dbname=postgres auth_user=postgres\n\
         broken = host=127.0.0.1 port={0} dbname=postgres auth_user=postgres auth_query='SELECT $1::text'",
        postgres().port
    );
    postgres()
        .query("SET password_encryption = 'scram-sha-256'; CREATE ROLE looked_up LOGIN PASSWORD 'found'")
        .expect("the role is made");
    let query = "auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1";
    let pooler = Pooler::start_with(&databases, &format!("auth_type = scram-sha-256\n{query}"));
    let login = |more: &'static str| pooler.client_as("looked_up", more);
    let client = login("dbname=looked password=found").await.expect("the password is right");
    let row =
        client.query_one("SELECT current_user::text", &[]).await.expect("the keys open Postgres as well");
    assert_eq!(row.get::<_, String>(0), "looked_up");
    let wrong = login("dbname=looked password=lost").await.expect_err("the password is wrong");
    assert!(format!("{wrong:?}").contains("SASL authentication failed"), "{wrong:?}");
    let broken = login("dbname=broken password=found").await.expect_err("the query gives one column");
    assert!(format!("{broken:?}").contains("bouncer config error"), "{broken:?}");
    assert!(pooler.log().contains("expected 2 columns from auth_query, not 1"));
    let nobody =
        pooler.client_as("nobody_at_all", "dbname=looked password=x").await.expect_err("no such user");
    assert!(format!("{nobody:?}").contains("no such user"), "{nobody:?}");
}

#[tokio::test]
async fn errors_told_to_clients_are_counted_by_fault_and_sqlstate() {
    let port = free_port();
    let pooler = Pooler::start(&format!("auth_type = plain\nmetrics_listen_port = {port}"));
    assert!(!get_page(port, "/metrics").contains("pgbouncer_errors_total{"));
    pooler.client_as("alice", "password=wrong").await.map(|_| ()).expect_err("the password is wrong");
    let page = get_page(port, "/metrics");
    assert!(page.contains("pgbouncer_errors_total{kind=\"client\",sqlstate=\"28P01\"} 1"), "{page}");
}
