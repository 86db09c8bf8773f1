//! Modes, deaths, cancels, signals.

use crate::script::{Batch, Script};
use crate::world::{Pooler, postgres, wait_until};

#[test]
fn session_mode_keeps_the_server_and_cleans_it_for_the_next() {
    let pooler = Pooler::start("pool_mode = session\ndefault_pool_size = 1");
    let mut first = Script::connect(&pooler);
    first.send(
        Batch::new()
            .query("CREATE TEMP TABLE mine ()")
            .query("SET work_mem = '7MB'")
            .query("PREPARE p AS SELECT 1"),
    );
    assert_eq!(first.replies(3), "C Z C Z C Z");
    let pid = first.value("SELECT pg_backend_pid()");
    assert_eq!(first.value("SHOW work_mem"), "7MB");
    drop(first);
    let mut second = Script::connect(&pooler);
    assert_eq!(second.value("SELECT pg_backend_pid()"), pid, "the same server");
    assert_eq!(second.value("SELECT count(*) FROM pg_prepared_statements"), "0");
    assert_ne!(second.value("SHOW work_mem"), "7MB");
    assert_eq!(second.value("SELECT to_regclass('mine') IS NULL"), "t");
}

#[test]
fn statement_mode_refuses_transactions() {
    let pooler = Pooler::start("pool_mode = statement");
    let mut client = Script::connect(&pooler);
    assert_eq!(client.value("SELECT 1"), "1");
    client.send(Batch::new().query("BEGIN"));
    assert_eq!(
        client.replies(1),
        "C E08P01 closed",
        "and no ReadyForQuery, after which the client would go on"
    );
}

#[test]
fn a_client_that_dies_in_a_transaction_rolls_it_back() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("BEGIN").query("CREATE TABLE half_done ()"));
    assert_eq!(client.replies(2), "C ZT C ZT");
    drop(client);
    let gone = "SELECT to_regclass('half_done') IS NULL";
    assert_eq!(Script::connect(&pooler).value(gone), "t");
}

#[test]
fn a_server_killed_in_a_transaction_tells_the_client_why() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    let pid = client.value("SELECT pg_backend_pid()");
    client.send(Batch::new().query("BEGIN"));
    assert_eq!(client.replies(1), "C ZT");
    postgres().query(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    assert_eq!(client.replies(1), "E57P01 closed");
    assert_eq!(Script::connect(&pooler).value("SELECT 'next'"), "next");
}

#[test]
fn a_server_that_dies_while_idle_is_replaced_unnoticed() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    let pid = client.value("SELECT pg_backend_pid()");
    postgres().query(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    wait_until("the backend is gone", || postgres().query(&gone).unwrap() == "0");
    assert_ne!(client.value("SELECT pg_backend_pid()"), pid);
}

/// The server is not lent on while a cancel request for its last query may still arrive.
#[test]
fn a_cancel_hits_the_query_of_its_client_and_no_other() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    let key = client.key.clone().expect("the greeting has a cancel key");
    let cancel = || {
        let mut script = Script::open(&pooler);
        let mut out = Vec::new();
        pgwire::startup::cancel_request(&mut out, &key);
        script.send_bytes(&out);
        assert!(script.try_next().is_none(), "a cancel request is never answered");
    };
    client.send(Batch::new().query("SELECT pg_sleep(60)"));
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
    wait_until("the query runs", || postgres().query(running).unwrap() != "0");
    cancel();
    assert_eq!(client.replies(1), "T E57014 Z");
    let mut other = Script::connect(&pooler);
    for _ in 0..50 {
        cancel();
        assert_eq!(other.value("SELECT 'not cancelled'"), "not cancelled");
    }
}

#[test]
fn a_query_in_the_queue_is_cancelled_by_us() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut holder = Script::connect(&pooler);
    holder.send(Batch::new().query("BEGIN"));
    assert_eq!(holder.replies(1), "C ZT");
    let mut waiting = Script::connect(&pooler);
    waiting.send(Batch::new().query("SELECT 1"));
    wait_until("it waits", || pooler.admin("SHOW CLIENTS").contains("waiting"));
    let mut script = Script::open(&pooler);
    let mut out = Vec::new();
    pgwire::startup::cancel_request(&mut out, waiting.key.as_ref().unwrap());
    script.send_bytes(&out);
    assert!(waiting.last_error().contains("canceling statement due to user request"));
}

#[test]
fn pause_waits_and_resume_goes_on() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    assert_eq!(client.value("SELECT 1"), "1");
    pooler.admin("PAUSE");
    client.send(Batch::new().query("SELECT 'after'"));
    wait_until("it waits", || pooler.admin("SHOW CLIENTS").contains("waiting"));
    pooler.admin("RESUME");
    assert_eq!(client.column(), ["after"]);
}

#[test]
fn reload_closes_servers_of_a_changed_database_between_transactions() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    let pid = client.value("SELECT pg_backend_pid()");
    pooler.admin("RECONNECT");
    assert_ne!(client.value("SELECT pg_backend_pid()"), pid);
    pooler.admin("SET default_pool_size = 3");
    assert!(pooler.admin("SHOW CONFIG").contains("default_pool_size|3|"));
    pooler.signal("HUP");
    wait_until("the file counts again", || pooler.admin("SHOW CONFIG").contains("default_pool_size|1|"));
}

#[test]
fn sigterm_waits_for_clients_and_a_second_one_does_not() {
    let mut pooler = Pooler::start("");
    let mut client = Script::connect(&pooler);
    pooler.signal("TERM");
    pooler.wait_for_log("got SIGTERM");
    assert_eq!(client.value("SELECT 'still served'"), "still served");
    assert!(pooler.is_running());
    drop(client);
    pooler.wait_end();

    let mut pooler = Pooler::start("");
    let _client = Script::connect(&pooler);
    pooler.signal("TERM");
    pooler.wait_for_log("got SIGTERM");
    pooler.signal("TERM");
    pooler.wait_end();
}

#[test]
fn sigint_lets_transactions_end() {
    let mut pooler = Pooler::start("");
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("BEGIN"));
    assert_eq!(client.replies(1), "C ZT");
    pooler.signal("INT");
    pooler.wait_for_log("got SIGINT");
    client.send(Batch::new().query("COMMIT"));
    assert!(client.replies(1).starts_with("C Z"));
    pooler.wait_end();
}

#[test]
fn sigquit_ends_at_once() {
    let mut pooler = Pooler::start("");
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("BEGIN"));
    assert_eq!(client.replies(1), "C ZT");
    pooler.signal("QUIT");
    pooler.wait_end();
}
