//! Session state over changing servers, and the size of things: traps by their number in docs/pooler-traps.md.

use crate::fake::FakePostgres;
use crate::script::{Batch, Script};
use crate::world::{Pooler, postgres};

fn narrow() -> Pooler {
    Pooler::start("default_pool_size = 1")
}

fn copy_data(len: usize) -> Batch {
    Batch::new().raw(b'd', &vec![b'x'; len])
}

/// Trap 16.
#[test]
fn a_value_with_quotes_and_backslashes_is_set_as_it_is() {
    let pooler = narrow();
    for name in ["it's", "back\\slash'", "a\"b", "$$; DROP TABLE numbers; --"] {
        let mut client = Script::connect_with(&pooler, &[("application_name", name)]);
        let mut other = Script::connect_with(&pooler, &[("application_name", "other")]);
        assert_eq!(other.value("SHOW application_name"), "other");
        assert_eq!(client.value("SHOW application_name"), name);
    }
}

/// Trap 16.
#[test]
fn an_empty_application_name_is_a_value_too() {
    let pooler = narrow();
    let mut named = Script::connect_with(&pooler, &[("application_name", "named")]);
    let mut empty = Script::connect_with(&pooler, &[("application_name", "")]);
    for _ in 0..2 {
        assert_eq!(named.value("SHOW application_name"), "named");
        assert_eq!(empty.value("SHOW application_name"), "");
    }
}

/// Trap 16: Postgres reports the change and the way back.
#[test]
fn a_local_setting_ends_with_its_transaction_on_both_sides() {
    let pooler = narrow();
    let mut client = Script::connect_with(&pooler, &[("TimeZone", "UTC")]);
    for end in ["COMMIT", "ROLLBACK"] {
        client.send(Batch::new().query("BEGIN").query("SET LOCAL TimeZone = 'Asia/Tokyo'").query(end));
        assert_eq!(client.replies(3).matches('S').count(), 2, "there and back");
        assert_eq!(client.value("SHOW TimeZone"), "UTC");
    }
    client.send(Batch::new().query("BEGIN").query("SET TimeZone = 'Asia/Tokyo'").query("ROLLBACK"));
    client.replies(3);
    assert_eq!(client.value("SHOW TimeZone"), "UTC");
    let mut other = Script::connect_with(&pooler, &[("TimeZone", "Europe/Berlin")]);
    assert_eq!(other.value("SHOW TimeZone"), "Europe/Berlin");
    assert_eq!(client.value("SHOW TimeZone"), "UTC");
}

/// Trap 17: what SQL sets and Postgres does not report stays on the server; this key cleans it up each time.
#[test]
fn with_server_reset_query_always_nothing_of_a_client_stays_on_its_server() {
    let pooler = Pooler::start("default_pool_size = 1\nserver_reset_query_always = 1");
    let mut first = Script::connect(&pooler);
    let pid = first.value("SELECT pg_backend_pid()");
    let dirt = [
        "SET work_mem = '7MB'",
        "SELECT set_config('search_path', '', false)",
        "CREATE TEMP TABLE mine ()",
        "LISTEN news",
        "SELECT pg_advisory_lock(42)",
        "PREPARE p AS SELECT 1",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SET ROLE alice",
    ];
    let mut second = Script::connect(&pooler);
    for sql in dirt {
        first.send(Batch::new().query(sql));
        assert!(first.replies(1).ends_with('Z'), "{sql}");
        assert_eq!(second.value("SELECT pg_backend_pid()"), pid);
    }
    assert_ne!(second.value("SHOW work_mem"), "7MB");
    assert_ne!(second.value("SHOW search_path"), "");
    for empty in ["pg_listening_channels()", "pg_prepared_statements", "pg_cursors"] {
        assert_eq!(second.value(&format!("SELECT count(*) FROM {empty}")), "0", "{empty}");
    }
    assert_eq!(second.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0");
    assert_eq!(second.value("SELECT current_user || coalesce(to_regclass('mine')::text, '')"), "postgres");
}

/// Trap 17: a setting that a client asked for at login is given again, whatever another has set by SQL since.
#[test]
fn a_search_path_set_by_sql_does_not_stay_with_a_client_that_asked_for_its_own() {
    let pooler = narrow();
    let mut asked = Script::connect_with(&pooler, &[("options", "-c search_path=pg_catalog")]);
    assert_eq!(asked.value("SHOW search_path"), "pg_catalog");
    let mut setter = Script::connect(&pooler);
    setter.send(Batch::new().query("SET search_path = public"));
    assert_eq!(setter.replies(1), "C Z");
    assert_eq!(asked.value("SHOW search_path"), "pg_catalog");
}

/// Trap 18.
#[test]
fn a_server_whose_reset_fails_is_closed() {
    let pooler = Pooler::start("pool_mode = session\ndefault_pool_size = 1\nserver_reset_query = SELECT 1/0");
    let mut first = Script::connect(&pooler);
    let pid = first.value("SELECT pg_backend_pid()");
    drop(first);
    assert_ne!(Script::connect(&pooler).value("SELECT pg_backend_pid()"), pid);
    pooler.wait_for_log("reset query failed");
}

/// Trap 13: what a big message needs is given back.
#[test]
fn big_messages_pass_without_being_held_whole() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    assert_eq!(client.value("SELECT 1"), "1");
    let before = resident_kib(&pooler);
    let writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let mut writer = writer;
        let mut batch = Batch::new().parse("", "SELECT length($1)::text, $1");
        let big = "y".repeat(64 << 20);
        batch = batch.bind("", &[&big]).execute(0).sync();
        crate::world::write(&mut writer, &batch.0);
    });
    assert_eq!(client.column(), [(64 << 20).to_string()]);
    sender.join().unwrap();
    let grown = resident_kib(&pooler).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more than before");
}

fn resident_kib(pooler: &Pooler) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pooler.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Trap 13.
#[test]
fn a_client_gone_in_the_middle_of_a_big_message_leaves_no_rest_of_it_behind() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    let batch = Batch::new().parse("", "SELECT $1::text").bind("", &[&"y".repeat(1 << 20)]).0;
    client.send_bytes(&batch[..batch.len() / 2]);
    drop(client);
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("COPY copied FROM STDIN"));
    assert_eq!(client.some_replies(1), "G");
    let data = copy_data(1 << 20).0;
    client.send_bytes(&data[..data.len() / 2]);
    drop(client);
    assert_eq!(Script::connect(&pooler).value("SELECT 'mine'"), "mine");
}

/// Trap 13.
#[test]
fn a_client_gone_in_the_middle_of_a_big_result_leaves_no_rest_of_it_behind() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("SELECT repeat('z', 1000) FROM generate_series(1, 100000)"));
    assert_eq!(client.some_replies(2), "T D");
    drop(client);
    assert_eq!(Script::connect(&pooler).value("SELECT 'mine'"), "mine");
}

/// Trap 13.
#[test]
fn many_tiny_messages_in_one_read_are_each_answered() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    let one = Batch::new().sync().0;
    client.send_bytes(&one.repeat(5000));
    assert_eq!(client.replies(5000).matches('Z').count(), 5000);
    client.send_bytes(&Batch::new().query(";").0.repeat(2000));
    assert_eq!(client.replies(2000).matches('I').count(), 2000);
    assert_eq!(postgres().query("SELECT 'fine'").unwrap(), "fine");
}

/// Trap 23: a BEGIN that is kept back until the next message would date the transaction, and its snapshot, too late.
#[test]
fn a_begin_goes_to_the_server_as_it_comes() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    client.send(Batch::new().query("BEGIN"));
    assert_eq!(server.next().1, "BEGIN\0");
    server.send(&Batch::new().raw(b'C', b"BEGIN\0").raw(b'Z', b"T").0);
    assert_eq!(client.replies(1), "C ZT");
    client.send(Batch::new().parse("", "COMMIT").bind("", &[]).execute(0).sync());
    assert_eq!(server.next().0, b'P');
}
