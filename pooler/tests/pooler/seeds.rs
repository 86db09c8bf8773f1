//! The configurations that the stack's documents show. Completed where they leave something out they start and serve;
//! those that PgBouncer would misread are refused with a message that helps.

use std::process::Command;

use crate::script::Script;
use crate::world::{Certificates, Pooler, free_port, postgres};

/// Ten containers of ~8 connections each.
const TEN_CONTAINERS: &str = "pool_mode = transaction\nmax_client_conn = 1000\ndefault_pool_size = 25\n\
    reserve_pool_size = 5\nmax_db_connections = 50\nserver_idle_timeout = 600\nquery_timeout = 30";

const PRISMA: &str = "# Pooling mode\npool_mode = transaction\n\n# Connection limits\ndefault_pool_size = 25\n\
    min_pool_size = 5\nreserve_pool_size = 5\nmax_client_conn = 100\n# Timeouts\nserver_lifetime = 3600\n\
    server_idle_timeout = 600\nserver_connect_timeout = 15\nquery_wait_timeout = 120\n\
    # Reset query\nserver_reset_query = DISCARD ALL\nauth_type = trust";

const OLTP: &str = "# Transaction pooling for OLTP workload\npool_mode = transaction\nmax_client_conn = 10000\n\
    default_pool_size = 25\n";

const KUBERNETES: &str = "pool_mode = transaction\nmax_client_conn = 500\nmin_pool_size = 10\ndefault_pool_size = 50\n\
    server_idle_timeout = 600\nserver_lifetime = 3600\nquery_wait_timeout = 120";

const STANDBY: &str = "pool_mode = transaction\nmax_client_conn = 1000\ndefault_pool_size = 25\nmin_pool_size = 5\n\
    reserve_pool_size = 5\nreserve_pool_timeout = 3\nserver_idle_timeout = 600\nserver_lifetime = 3600\n\
    client_idle_timeout = 0\nclient_login_timeout = 60\nlog_connections = 1\nlog_disconnections = 1\n\
    log_pooler_errors = 1\nstats_period = 60\npidfile =";

const PRODUCTION: &str = "listen_addr = *\nmax_client_conn = 2000\ndefault_pool_size = 50\nreserve_pool_size = 10\n\
    stats_period = 10\nmax_db_connections = 150";

#[test]
fn the_samples_of_the_documents_start_and_serve() {
    let port = postgres().port;
    let databases = |pool: &str| {
        format!(
            "connect = host=localhost port={port} dbname=postgres {pool}\n\
             connect_standby = host=localhost port={port} dbname=postgres {pool}"
        )
    };
    let samples = [
        ("", TEN_CONTAINERS),
        ("", PRISMA),
        ("", OLTP),
        ("", KUBERNETES),
        ("pool_size=25 reserve_pool=5", STANDBY),
        ("pool_size=50 reserve_pool=10", PRODUCTION),
    ];
    for (pool, settings) in samples {
        let pooler = Pooler::start_with(&databases(pool), settings);
        for database in ["connect", "connect_standby"] {
            let mut client = Script::connect_to(&pooler, database, &[]);
            assert_eq!(client.value("SELECT 1+1"), "2", "{settings}");
        }
        let log = pooler.log();
        assert!(log.contains("process up: pooler ") && log.contains(", tls: rustls"), "{log}");
        assert!(
            log.contains("kernel file descriptor limit: ") && log.contains(", max expected fd use: "),
            "{log}"
        );
    }
    let pooler = Pooler::start_with(&databases("pool_size=25 reserve_pool=5"), STANDBY);
    let shown = pooler.admin("SHOW DATABASES");
    let row = shown.lines().find(|line| line.starts_with("connect|")).expect("it is listed");
    assert!(row.starts_with(&format!("connect|localhost|{port}|postgres||25|5|5|")), "{row}");
}

/// Password hashes in the list: md5 of password and name, as the documents make them.
#[tokio::test]
async fn a_list_of_md5_hashes_lets_its_users_in() {
    let pooler = Pooler::start(
        "auth_type = md5\nadmin_users = postgres, pgbouncer_admin\nstats_users = pgbouncer_stats",
    );
    // md5 of "arena_secret" and "alice".
    let hash = pgwire::auth::md5::hash("alice", b"arena_secret");
    let users = format!(
        "\"postgres\" \"pw\"\n\"alice\" \"{hash}\"\n\"pgbouncer_admin\" \"admin\"\n\"pgbouncer_stats\" \"s\"\n"
    );
    std::fs::write(pooler.folder.path().join("users.txt"), users).expect("the list is written");
    // Before it says so it does not listen to signals yet, and HUP would end it.
    pooler.wait_for_log("process up");
    pooler.signal("HUP");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while pooler.client_as("alice", "password=arena_secret").await.is_err() {
        assert!(std::time::Instant::now() < end, "{}", pooler.log());
    }
    for (user, password) in [("pgbouncer_admin", "admin"), ("pgbouncer_stats", "s")] {
        let login = format!("dbname=pgbouncer password={password}");
        let console = pooler.client_as(user, &login).await.expect(user);
        console.simple_query("SHOW POOLS").await.expect(user);
    }
}

#[test]
fn what_the_documents_show_and_pgbouncer_would_misread_is_refused_with_advice() {
    let refusals = [
        ("listen_addr = 172.25.0.0/16", "is a network, but a listener needs addresses"),
        ("listen_addr = 172.25.0.0/16            # Docker network only", "line of their own"),
        (
            "pool_mode = transaction  # Release connection after transaction",
            "comments stand on a line of their own",
        ),
        (
            "max_client_conn = 1000   # Support up to 1000 client connections",
            "comments stand on a line of their own",
        ),
        ("auth_type = scram-sha-256              # Instead of md5", "comments stand on a line of their own"),
    ];
    for (line, advice) in refusals {
        let said = check(&format!("[databases]\n[pgbouncer]\nlisten_port = {}\n{line}\n", free_port()));
        assert!(said.contains(advice) && said.contains("pooler.ini:4"), "{line}: {said}");
    }
}

/// What `--check` says of a file that it refuses.
fn check(ini: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pooler.ini");
    std::fs::write(&path, ini).expect("the ini file is written");
    let output = Command::new(env!("CARGO_BIN_EXE_pooler")).arg("--check").arg(&path).output();
    let output = output.expect("the program starts");
    assert!(!output.status.success(), "{ini}");
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn the_sample_with_tls_on_both_sides_starts_when_its_files_are_there() {
    let certs = Certificates::copy();
    let pooler = Pooler::start(&format!("{}\nserver_tls_sslmode = prefer", certs.client_tls()));
    let mut clear = Script::open(&pooler);
    clear.send_startup("postgres", &[]);
    assert!(clear.last_error().contains("SSL required"), "{}", pooler.log());
    let output = Command::new("psql")
        .args(["-X", "-A", "-t", "-c", "SELECT 'over TLS'"])
        .arg(format!("host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=require", pooler.port))
        .output()
        .expect("psql is installed");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "over TLS\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
