//! Servers that die, refuse or break the protocol: traps by their number in docs/pooler-traps.md.

use crate::fake::FakePostgres;
use crate::script::{Batch, Script};
use crate::world::{Pooler, postgres, wait_until};

/// Trap 20.
#[test]
fn a_transaction_that_postgres_ends_for_idleness_is_told_with_its_cause() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("SET idle_in_transaction_session_timeout = 200").query("BEGIN"));
    assert_eq!(client.replies(2), "C Z C ZT");
    assert_eq!(client.replies(1), "E25P03 closed");
    assert_eq!(Script::connect(&pooler).value("SELECT 'next'"), "next");
}

/// Trap 20.
#[test]
fn a_server_that_dies_in_the_middle_of_a_row_ends_its_client_with_an_error() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    client.send(Batch::new().query("one"));
    server.next();
    let row = Batch::new().raw(b'D', &[0; 1000]).0;
    server.send(&row[..500]);
    drop(server);
    // What came of the row cannot be taken back: the client sees the connection end within it.
    let got = crate::world::drain(&mut client.stream);
    assert_eq!(&got[..500], &row[..500]);
    pooler.wait_for_log("server conn crashed?");
}

/// Trap 20.
#[test]
fn a_server_that_dies_between_rows_ends_its_client_with_an_error() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    client.send(Batch::new().query("one"));
    server.next();
    server.send_message(b'D', &[0, 0]);
    drop(server);
    assert_eq!(client.replies(1), "D E08006 closed");
}

/// Trap 20: no fault of the parameters, and a driver that may ask again knows it by the code.
#[test]
fn a_server_that_ends_while_it_takes_parameters_is_told_with_its_own_code() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
    let (mut client, mut server) = fake.meet(&pooler, &[("application_name", "x")]);
    client.send(Batch::new().query("one"));
    assert!(server.next().1.starts_with("SET "));
    server.send_message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0");
    assert_eq!(client.replies(1), "E57P01 closed");
}

/// Trap 20: "the database system is starting up" is no reason to send clients away.
#[test]
fn clients_wait_while_postgres_is_starting_up() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "server_login_retry = 1");
    let mut client = Script::open(&pooler);
    client.send_startup("fake", &[]);
    let mut server = fake.accept();
    server.read_startup();
    server.send_message(b'E', b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0");
    drop(server);
    let mut server = fake.accept();
    server.read_startup();
    server.greet();
    assert!(client.replies(1).ends_with('Z'), "the login goes on with the second server");
    client.send(Batch::new().query("one"));
    assert_eq!(server.next().1, "one\0");
    server.answer("served");
    assert_eq!(client.column(), ["served"]);
}

/// Trap 21: what is still to come belongs to a client that was told of an error.
#[test]
fn a_server_whose_query_was_timed_out_is_never_lent_again() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1\nquery_timeout = 1");
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    client.send(Batch::new().query("slow"));
    assert_eq!(server.next().1, "slow\0");
    assert!(client.last_error().contains("query timeout"));
    assert!(matches!(server.try_next(), None | Some((b'X', _))), "closed, with or without a goodbye");
    let mut next = Script::connect_to(&pooler, "fake", &[]);
    next.send(Batch::new().query("next"));
    let mut fresh = fake.accept();
    fresh.read_startup();
    fresh.greet();
    assert_eq!(fresh.next().1, "next\0");
    fresh.answer("next");
    assert_eq!(next.column(), ["next"]);
}

/// Trap 22.
#[test]
fn statement_mode_refuses_a_transaction_that_is_opened_by_a_batch() {
    let pooler = Pooler::start("pool_mode = statement\ndefault_pool_size = 1");
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("", "BEGIN").bind("", &[]).execute(0).sync());
    assert_eq!(client.replies(1), "1 2 C E08P01 closed");
    let mut next = Script::connect(&pooler);
    assert_eq!(next.value("SELECT pg_current_xact_id_if_assigned() IS NULL"), "t");
}

/// Traps 1 and 21: what nobody asked for is never passed to whoever comes next.
#[test]
fn a_server_that_answers_more_than_it_was_asked_is_closed() {
    let fake = FakePostgres::start();
    for extra in [&b"Z\0\0\0\x05I"[..], b"C\0\0\0\x0dSELECT 1\0", b"D\0\0\0\x06\0\0", b"?\0\0\0\x04"] {
        let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
        let (mut client, mut server) = fake.meet(&pooler, &[]);
        client.send(Batch::new().query("one"));
        server.next();
        server.answer("1");
        assert_eq!(client.column(), ["1"]);
        server.send(extra);
        assert!(matches!(server.try_next(), None | Some((b'X', _))), "{extra:?}");
    }
}

/// CVE-2026-6666: an ErrorResponse without its fields.
#[test]
fn an_error_without_a_code_harms_nobody() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1\nserver_login_retry = 1");
    for body in [&b"\0"[..], b"", b"Mno code\0\0", b"M", b"C\0\0"] {
        let mut client = Script::open(&pooler);
        client.send_startup("fake", &[]);
        let mut server = fake.accept();
        server.read_startup();
        server.send_message(b'E', body);
        drop(server);
        drop(client);
        wait_until("the failure is over", || !pooler.admin("SHOW SERVERS").contains("|fake|"));
    }
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    client.send(Batch::new().query("one"));
    server.next();
    server.send_message(b'E', b"\0");
    server.send_message(b'Z', b"I");
    assert_eq!(client.replies(1), "E Z");
    assert_eq!(Script::connect(&pooler).value("SELECT 'fine'"), "fine");
}

/// Trap 15, from the other side.
#[test]
fn a_server_that_breaks_the_protocol_is_closed_and_its_client_told() {
    let fake = FakePostgres::start();
    for bytes in [&b"T\0\0\0\x03"[..], b"D\xff\xff\xff\xff", b"Z\0\0\0\x04", b"Z\0\0\0\x05?", b"1\0\0\0\x04"]
    {
        let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
        let (mut client, mut server) = fake.meet(&pooler, &[]);
        client.send(Batch::new().query("one"));
        server.next();
        server.send(bytes);
        assert!(client.last_error().contains("FATAL"), "{bytes:?}");
        assert!(matches!(server.try_next(), None | Some((b'X', _))), "{bytes:?}");
    }
}

/// Trap 19.
#[test]
fn a_failed_transaction_of_a_client_that_left_is_not_left_to_the_next() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("BEGIN").query("CREATE TABLE left_behind ()").query("SELECT 1/0"));
    assert_eq!(client.replies(3), "C ZT C ZT E22012 ZE");
    drop(client);
    assert_eq!(Script::connect(&pooler).value("SELECT to_regclass('left_behind') IS NULL"), "t");
    assert_eq!(postgres().query("SELECT to_regclass('left_behind') IS NULL").unwrap(), "t");
}
