//! Replication connections, and servers that are left because they are obsolete.

use crate::script::{Batch, Script};
use crate::world::{Pooler, postgres, wait_until};

fn walsenders_of(application: &str) -> String {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{application}'");
    postgres().query(&sql).unwrap()
}

#[test]
fn a_logical_client_has_a_server_of_its_own_started_with_its_options() {
    let pooler = Pooler::start("default_pool_size = 2");
    let asked = [
        ("replication", "database"),
        ("application_name", "own_server"),
        ("options", "-c enable_seqscan=off -c extra_float_digits=2"),
    ];
    let mut client = Script::connect_with(&pooler, &asked);
    assert_eq!(client.value("SHOW enable_seqscan"), "off");
    assert_eq!(client.value("SHOW application_name"), "own_server");
    assert!(!client.value("IDENTIFY_SYSTEM").is_empty());
    let pid = client.value("SELECT pg_backend_pid()");
    let mut other = Script::connect(&pooler);
    assert_ne!(other.value("SELECT pg_backend_pid()"), pid, "nobody shares it");
    assert_eq!(other.value("SHOW enable_seqscan"), "on");
    assert_eq!(walsenders_of("own_server"), "1");
    drop(client);
    wait_until("its server is closed", || walsenders_of("own_server") == "0");
    pooler.wait_for_log("closing because: replication client was closed");
}

#[test]
fn a_physical_client_speaks_to_the_walsender() {
    let pooler = Pooler::start("");
    for word in ["yes", "on", "1", "true"] {
        let mut client = Script::connect_with(&pooler, &[("replication", word), ("TimeZone", "Asia/Tokyo")]);
        client.send(Batch::new().query("SELECT 1"));
        assert_eq!(client.replies(1), "E0A000 Z", "no SQL there");
        assert_eq!(client.value("SHOW TimeZone"), "Asia/Tokyo", "{word}");
        assert!(!client.value("IDENTIFY_SYSTEM").is_empty());
    }
    let mut client = Script::connect_with(&pooler, &[("replication", "off")]);
    assert_eq!(client.value("SELECT 'a client like any other'"), "a client like any other");
}

#[test]
fn the_log_streams_both_ways_until_the_client_ends_it() {
    let pooler = Pooler::start("");
    let at = postgres().query("SELECT pg_current_wal_lsn()").unwrap();
    let mut client = Script::connect_with(&pooler, &[("replication", "yes")]);
    client.send(Batch::new().query(&format!("START_REPLICATION PHYSICAL {at}")));
    assert_eq!(client.some_replies(1), "W");
    postgres().query("SELECT pg_logical_emit_message(false, 'x', repeat('y', 100000))").unwrap();
    let mut received = 0;
    while received < 100_000 {
        let (kind, body) = client.next();
        assert_eq!(kind, b'd');
        received += body.len();
    }
    // A standby's status, which gets no answer, then the end.
    let mut status = b"d\0\0\0\x26r".to_vec();
    status.extend([0; 33]);
    client.send_bytes(&status);
    client.send_bytes(b"c\0\0\0\x04");
    loop {
        match client.next().0 {
            b'd' => {}
            b'c' => break,
            other => panic!("{}", other as char),
        }
    }
    let rest = client.replies(1);
    assert!(rest.ends_with("C Z"), "{rest}");
    assert!(!client.value("IDENTIFY_SYSTEM").is_empty(), "and the connection serves on");
}

#[test]
fn what_a_user_may_not_do_is_told_in_postgres_words_and_hurts_nobody_else() {
    let pooler = Pooler::start("");
    for (kind, words) in
        [("database", "superuser or replication role"), ("yes", "no pg_hba.conf entry for replication")]
    {
        let mut refused = Script::open(&pooler);
        let mut out = Vec::new();
        let asked = [("user", "alice"), ("database", "postgres"), ("replication", kind)];
        pgwire::startup::startup(&mut out, 0, asked);
        refused.send_bytes(&out);
        let error = refused.last_error();
        assert!(error.contains("login failed") && error.contains(words), "{error}");
    }
    pooler.wait_for_log("closing because: login failed (age=");
    let mut fine = Script::open(&pooler);
    let mut out = Vec::new();
    pgwire::startup::startup(&mut out, 0, [("user", "alice"), ("database", "postgres")]);
    fine.send_bytes(&out);
    assert!(fine.replies(1).ends_with('Z'), "the pool does not rest");
}

#[test]
fn a_word_that_is_no_kind_of_replication_is_refused() {
    let pooler = Pooler::start("");
    let mut script = Script::open(&pooler);
    let mut out = Vec::new();
    let asked = [("user", "postgres"), ("database", "postgres"), ("replication", "maybe")];
    pgwire::startup::startup(&mut out, 0, asked);
    script.send_bytes(&out);
    assert!(script.last_error().contains("invalid value for parameter \"replication\""));
}

#[test]
fn an_idle_server_is_evicted_for_a_replication_client_and_the_next_waits_for_its_turn() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut normal = Script::connect(&pooler);
    let before = normal.value("SELECT pg_backend_pid()");
    let mut own = Script::connect_with(&pooler, &[("replication", "database")]);
    pooler.wait_for_log("closing because: evicted");
    normal.send(Batch::new().query("SELECT pg_backend_pid()"));
    wait_until("the pool is full", || pooler.admin("SHOW POOLS").contains("postgres|postgres|1|1|"));
    assert_eq!(own.value("SELECT 'holds it'"), "holds it");
    drop(own);
    let after = normal.column().into_iter().next();
    assert!(after.is_some_and(|pid| pid != before));
}

#[test]
fn the_console_shows_the_kind_on_both_sides() {
    let pooler = Pooler::start("");
    let _logical = Script::connect_with(&pooler, &[("replication", "database")]);
    let _physical = Script::connect_with(&pooler, &[("replication", "true")]);
    for table in ["SHOW CLIENTS", "SHOW SERVERS"] {
        let shown = pooler.admin(table);
        assert!(shown.contains("|logical|active|") && shown.contains("|physical|active|"), "{shown}");
    }
    assert!(pooler.log().contains("replication=database") && pooler.log().contains("replication=yes"));
}

#[test]
fn the_hba_word_replication_is_about_physical_connections_only() {
    let rules = "host postgres all 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 trust\n";
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let file = folder.path().join("hba");
    std::fs::write(&file, rules).unwrap();
    let pooler = Pooler::start(&format!("auth_type = hba\nauth_hba_file = {}", file.display()));
    Script::connect_with(&pooler, &[("replication", "database")]);
    let mut refused = Script::open(&pooler);
    let mut out = Vec::new();
    let asked = [("user", "postgres"), ("database", "postgres"), ("replication", "yes")];
    pgwire::startup::startup(&mut out, 0, asked);
    refused.send_bytes(&out);
    assert!(!refused.last_error().is_empty());
    std::fs::write(&file, format!("host replication postgres 127.0.0.1/32 trust\n{rules}")).unwrap();
    pooler.admin("RELOAD");
    Script::connect_with(&pooler, &[("replication", "yes")]);
}

#[test]
fn reconnect_ends_replication_clients_at_once() {
    let pooler = Pooler::start("");
    let mut client = Script::connect_with(&pooler, &[("replication", "database")]);
    pooler.admin("RECONNECT");
    assert!(client.last_error().contains("database configuration changed"));
    pooler.wait_for_log("closing because: database configuration changed");
}

#[test]
fn with_server_fast_close_a_session_leaves_an_obsolete_server_between_transactions() {
    let pooler = Pooler::start("pool_mode = session\nserver_fast_close = 1");
    let (mut idle, mut busy) = (Script::connect(&pooler), Script::connect(&pooler));
    idle.value("SELECT 1");
    busy.send(Batch::new().query("BEGIN"));
    assert_eq!(busy.replies(1), "C ZT");
    pooler.admin("RECONNECT");
    assert!(idle.last_error().contains("database configuration changed"));
    assert_eq!(busy.value("SELECT 'in its transaction'"), "in its transaction");
    busy.send(Batch::new().query("COMMIT"));
    assert!(busy.replies(1).starts_with("C Z"));
    assert!(busy.last_error().contains("database configuration changed"));
}

/// A buffer that is made small after the connection was made stalls the peer for 200 ms per piece.
#[test]
fn small_socket_buffers_do_not_stall_a_large_result() {
    let pooler = Pooler::start("tcp_socket_buffer = 4096");
    let mut client = Script::connect(&pooler);
    let started = std::time::Instant::now();
    assert_eq!(client.value("SELECT repeat('x', 1000000)").len(), 1_000_000);
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}
