//! Sizes, queues and their deadlines.

use std::time::{Duration, Instant};

use crate::script::{Batch, Script};
use crate::world::{Pooler, postgres, wait_until};

fn hold(pooler: &Pooler) -> Script {
    let mut holder = Script::connect(pooler);
    holder.send(Batch::new().query("BEGIN"));
    assert_eq!(holder.replies(1), "C ZT");
    holder
}

/// A column of SHOW POOLS for the pool of `postgres`.
fn pool_column(pooler: &Pooler, index: usize) -> String {
    let pools = pooler.admin("SHOW POOLS");
    let line = pools.lines().find(|l| l.starts_with("postgres|postgres|")).unwrap_or_default().to_string();
    line.split('|').nth(index).unwrap_or_default().to_string()
}

#[test]
fn the_pool_size_is_exact_over_all_workers() {
    let pooler = Pooler::start("default_pool_size = 3\nworker_threads = 3\napplication_name_add_host = 0");
    let threads: Vec<_> = (0..12)
        .map(|_| {
            let mut client = Script::connect(&pooler);
            std::thread::spawn(move || {
                for _ in 0..30 {
                    assert_eq!(client.value("SELECT 'served' FROM pg_sleep(0.001)"), "served");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let opened = pooler.log().matches("new connection to server").count();
    assert!(opened <= 3, "{opened} servers were opened");
    assert_eq!(pool_column(&pooler, 3), "0", "nobody waits any more");
}

#[test]
fn a_client_that_waits_too_long_is_told_so() {
    let pooler = Pooler::start("default_pool_size = 1\nquery_wait_timeout = 1");
    let _holder = hold(&pooler);
    let mut waiting = Script::connect(&pooler);
    waiting.send(Batch::new().query("SELECT 1"));
    assert!(waiting.last_error().contains("query_wait_timeout"));
    wait_until("the queue is empty", || pool_column(&pooler, 3) == "0");
}

#[test]
fn a_client_that_leaves_the_queue_leaves_no_trace() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut holder = hold(&pooler);
    let mut waiting = Script::connect(&pooler);
    waiting.send(Batch::new().query("SELECT 1"));
    wait_until("it waits", || pool_column(&pooler, 3) == "1");
    drop(waiting);
    wait_until("it is gone", || pool_column(&pooler, 3) == "0");
    holder.send(Batch::new().query("COMMIT"));
    assert_eq!(holder.replies(1), "C Z");
    assert_eq!(Script::connect(&pooler).value("SELECT 'served'"), "served");
}

#[test]
fn the_reserve_opens_for_those_who_wait() {
    let pooler = Pooler::start("default_pool_size = 1\nreserve_pool_size = 1\nreserve_pool_timeout = 1");
    let _holder = hold(&pooler);
    let started = Instant::now();
    assert_eq!(Script::connect(&pooler).value("SELECT 'reserve'"), "reserve");
    assert!(started.elapsed() >= Duration::from_millis(900));
    pooler.wait_for_log("taking connection from reserve_pool");
}

#[test]
fn max_db_connections_evicts_another_users_idle_server() {
    let pooler = Pooler::start("max_db_connections = 1");
    assert_eq!(Script::connect(&pooler).value("SELECT current_user"), "postgres");
    let mut alice = Script::connect_with(&pooler, &[("user", "alice")]);
    assert_eq!(alice.value("SELECT current_user"), "alice");
    pooler.wait_for_log("evicted");
    assert_eq!(Script::connect(&pooler).value("SELECT current_user"), "postgres");
}

#[test]
fn the_minimum_is_kept_open() {
    let pooler = Pooler::start("min_pool_size = 3\ndefault_pool_size = 5");
    let _client = Script::connect(&pooler);
    wait_until("three servers are idle", || pool_column(&pooler, 9) == "3");
}

#[test]
fn too_many_clients_are_told_so() {
    let pooler = Pooler::start("max_client_conn = 2");
    let _first = Script::connect(&pooler);
    let _second = Script::connect(&pooler);
    let mut third = Script::open(&pooler);
    let mut out = Vec::new();
    pgwire::startup::startup(&mut out, 0, [("user", "postgres"), ("database", "postgres")]);
    third.send_bytes(&out);
    assert!(third.last_error().contains("no more connections allowed (max_client_conn)"));
}

#[test]
fn failed_dials_leave_no_count_behind() {
    let nowhere = crate::world::free_port();
    let pooler = Pooler::start_with(
        &format!("dead = host=127.0.0.1 port={nowhere}"),
        "server_login_retry = 1\nquery_wait_timeout = 2\nmax_db_connections = 1",
    );
    for _ in 0..3 {
        let mut script = Script::open(&pooler);
        let mut out = Vec::new();
        pgwire::startup::startup(&mut out, 0, [("user", "postgres"), ("database", "dead")]);
        script.send_bytes(&out);
        let error = script.last_error();
        assert!(
            error.contains("server login has been failing") || error.contains("query_wait_timeout"),
            "{error}"
        );
    }
    let databases = pooler.admin("SHOW DATABASES");
    let dead = databases.lines().find(|l| l.starts_with("dead|")).expect("the database is listed");
    assert!(dead.split('|').any(|column| column == "0"), "{dead}");
    assert_eq!(Script::connect(&pooler).value("SELECT 'alive'"), "alive");
}

#[test]
fn query_and_idle_transaction_timeouts_close_client_and_server() {
    let pooler = Pooler::start("query_timeout = 1\nidle_transaction_timeout = 1\ndefault_pool_size = 1");
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("SELECT pg_sleep(60)"));
    assert!(client.last_error().contains("query timeout"));
    let mut client = hold(&pooler);
    assert!(client.last_error().contains("idle transaction timeout"));
    assert_eq!(Script::connect(&pooler).value("SELECT 'next'"), "next");
}

#[test]
fn an_idle_client_is_closed_when_asked_for() {
    let pooler = Pooler::start("client_idle_timeout = 1");
    let mut client = Script::connect(&pooler);
    assert!(client.last_error().contains("client_idle_timeout"));
}

#[test]
fn idle_servers_are_closed_after_their_time() {
    let pooler = Pooler::start("server_idle_timeout = 1");
    let mut client = Script::connect(&pooler);
    let pid = client.value("SELECT pg_backend_pid()");
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    wait_until("the backend is gone", || postgres().query(&count).unwrap() == "0");
    pooler.wait_for_log("server idle timeout");
    assert_ne!(client.value("SELECT pg_backend_pid()"), pid);
}

/// A proof costs a key's derivation or a query: nothing is spent on who cannot come in anyway.
#[test]
fn who_is_one_too_many_is_told_before_it_proves_who_it_is() {
    let pooler = Pooler::start("auth_type = scram-sha-256\nmax_client_conn = 1");
    let _first = Script::open(&pooler);
    wait_until("it is counted", || {
        let mut second = Script::open(&pooler);
        second.send_startup("postgres", &[("user", "alice")]);
        let (kind, body) = second.next();
        kind == b'E' && pgwire::report::Received::parse(&body).unwrap().sqlstate == Some(b"53300")
    });
}

#[test]
fn limits_of_clients_hold_however_many_log_in_at_once() {
    let pooler = Pooler::start("max_user_client_connections = 3");
    let logins: Vec<_> = std::thread::scope(|scope| {
        let login = || {
            let mut script = Script::open(&pooler);
            script.send_startup("postgres", &[]);
            let is_in = script.replies(1).ends_with('Z');
            (script, is_in)
        };
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(login)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(logins.iter().filter(|(_, is_in)| *is_in).count(), 3);
}
