//! Pipelines and prepared statements: known traps of poolers, each by its number in docs/pooler-traps.md.

use crate::fake::FakePostgres;
use crate::script::{Batch, Script};
use crate::world::{Pooler, postgres, wait_until};

fn narrow() -> Pooler {
    Pooler::start("default_pool_size = 1")
}

fn run(name: &str) -> Batch {
    Batch::new().bind(name, &[]).execute(0).sync()
}

/// Trap 1.
#[test]
fn a_server_with_a_second_query_under_way_is_not_lent_at_the_first_ready() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    let mut other = Script::connect_to(&pooler, "fake", &[]);
    client.send(Batch::new().query("first").query("second"));
    assert_eq!((server.next().1, server.next().1), ("first\0".to_string(), "second\0".to_string()));
    other.send(Batch::new().query("other"));
    server.answer("1");
    assert_eq!(client.column(), ["1"]);
    wait_until("the other waits", || pooler.admin("SHOW CLIENTS").contains("|waiting|"));
    server.answer("2");
    assert_eq!(client.column(), ["2"]);
    assert_eq!(server.next().1, "other\0");
    server.answer("3");
    assert_eq!(other.column(), ["3"]);
}

/// Trap 2.
#[test]
fn an_invented_reply_that_is_owed_comes_before_the_error_and_none_behind_it() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("known", "SELECT 1").sync());
    assert_eq!(client.replies(1), "1 Z");
    let mut other = Script::connect(&pooler);
    other.send(
        Batch::new().parse("a", "SELECT 1").parse("bad", "selec").parse("b", "SELECT 1").close("a").sync(),
    );
    assert_eq!(other.replies(1), "1 E42601 Z");
    other.send(Batch::new().parse("b", "SELECT 1").bind("b", &[]).execute(0).sync());
    assert_eq!(other.replies(1), "1 2 D C Z", "the name behind the error is free");
    client.send(run("known"));
    assert_eq!(client.column(), ["1"]);
}

/// Traps 2 and 4: what a Parse behind an error was to replace is still there, and still its owner's.
#[test]
fn an_unnamed_statement_that_a_failed_batch_did_not_replace_stays_with_its_owner() {
    let pooler = narrow();
    let mut owner = Script::connect(&pooler);
    owner.send(Batch::new().parse("", "SELECT 'private'").sync());
    assert_eq!(owner.replies(1), "1 Z");
    let mut failing = Script::connect(&pooler);
    failing.send(Batch::new().execute(0).parse("", "SELECT 'own'").query("SELECT 1").sync());
    assert_eq!(failing.replies(1), "E34000 Z");
    for mut thief in [failing, Script::connect(&pooler)] {
        thief.send(run(""));
        assert_eq!(thief.replies(1), "E26000 Z");
    }
    owner.send(run(""));
    assert_eq!(owner.column(), ["private"]);
    owner.send(Batch::new().execute(0).parse("", "SELECT 'another'").sync());
    assert_eq!(owner.replies(1), "E34000 Z");
    owner.send(run(""));
    assert_eq!(owner.column(), ["private"], "the one that was never parsed does not count");
}

/// Trap 2: the names of a failed batch are as if it had never been sent.
#[test]
fn a_close_behind_an_error_has_closed_nothing() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("s", "SELECT 'kept'").sync());
    assert_eq!(client.replies(1), "1 Z");
    client.send(Batch::new().execute(0).close("s").parse("s", "SELECT 'new'").sync());
    assert_eq!(client.replies(1), "E34000 Z");
    client.send(run("s"));
    assert_eq!(client.column(), ["kept"]);
}

/// Trap 5: what never reached a server must not be taken for prepared.
#[test]
fn a_parse_of_a_client_that_left_the_queue_is_prepared_for_the_next() {
    let pooler = narrow();
    let mut holder = Script::connect(&pooler);
    holder.send(Batch::new().query("BEGIN"));
    assert_eq!(holder.replies(1), "C ZT");
    let mut leaving = Script::connect(&pooler);
    leaving.send(Batch::new().parse("s", "SELECT 'late'").sync());
    wait_until("it waits", || pooler.admin("SHOW CLIENTS").contains("|waiting|"));
    drop(leaving);
    wait_until("it is gone", || !pooler.admin("SHOW CLIENTS").contains("|waiting|"));
    holder.send(Batch::new().query("COMMIT"));
    assert_eq!(holder.replies(1), "C Z");
    let mut next = Script::connect(&pooler);
    next.send(Batch::new().parse("s", "SELECT 'late'").bind("s", &[]).execute(0).sync());
    assert_eq!(next.column(), ["late"]);
}

/// Trap 5.
#[test]
fn a_client_that_breaks_off_in_its_parse_leaves_no_statement_behind() {
    let pooler = narrow();
    let mut leaving = Script::connect(&pooler);
    let batch = Batch::new().parse("s", "SELECT 'half'").0;
    leaving.send_bytes(&batch[..batch.len() - 3]);
    drop(leaving);
    let mut next = Script::connect(&pooler);
    next.send(Batch::new().parse("s", "SELECT 'half'").bind("s", &[]).execute(0).sync());
    assert_eq!(next.column(), ["half"]);
}

/// Trap 5.
#[test]
fn a_statements_name_may_be_longer_than_any_buffer() {
    let pooler = Pooler::start("default_pool_size = 2");
    let mut client = Script::connect(&pooler);
    let name = "n".repeat(200_000);
    client.send(Batch::new().parse(&name, "SELECT $1::text").sync());
    assert_eq!(client.replies(1), "1 Z");
    client.send(Batch::new().describe(&name).bind(&name, &["value"]).execute(0).sync());
    assert_eq!(client.column(), ["value"]);
    client.send(Batch::new().close(&name).sync());
    assert_eq!(client.replies(1), "3 Z");
}

/// Trap 6: the text is shared, its meaning is not.
#[test]
fn one_text_under_two_search_paths_reads_two_tables() {
    let pooler = narrow();
    for schema in ["left_side", "right_side"] {
        postgres().query(&format!("CREATE SCHEMA {schema}")).unwrap();
        postgres().query(&format!("CREATE TABLE {schema}.side AS SELECT '{schema}'::text AS name")).unwrap();
    }
    let mut left = Script::connect_with(&pooler, &[("options", "-c search_path=left_side")]);
    let mut right = Script::connect_with(&pooler, &[("options", "-c search_path=right_side")]);
    for client in [&mut left, &mut right] {
        client.send(Batch::new().parse("s", "SELECT name FROM side").sync());
        assert_eq!(client.replies(1), "1 Z");
    }
    for _ in 0..2 {
        left.send(run("s"));
        right.send(run("s"));
        assert_eq!((left.column(), right.column()), (vec!["left_side".into()], vec!["right_side".into()]));
    }
}

/// Trap 7.
#[test]
fn deallocate_all_is_seen_among_other_statements_of_a_query() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("s", "SELECT 'first'").sync());
    assert_eq!(client.replies(1), "1 Z");
    client.send(Batch::new().query("SELECT 1; DEALLOCATE ALL; SELECT 2"));
    assert_eq!(client.replies(1), "T D C C T D C Z");
    client.send(Batch::new().parse("s", "SELECT 'second'").bind("s", &[]).execute(0).sync());
    assert_eq!(client.column(), ["second"]);
}

/// Trap 7: in a failed transaction it is not carried out.
#[test]
fn deallocate_all_that_was_refused_changes_nothing() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("s", "SELECT 'kept'").sync().query("BEGIN").query("SELECT 1/0"));
    assert_eq!(client.replies(3), "1 Z C ZT E22012 ZE");
    client.send(Batch::new().query("DEALLOCATE ALL").query("ROLLBACK"));
    assert_eq!(client.replies(2), "E25P02 ZE C Z");
    client.send(run("s"));
    assert_eq!(client.column(), ["kept"]);
}

/// Trap 7: the names of the protocol are ours, those of SQL are Postgres'.
#[test]
fn deallocate_of_one_name_is_answered_by_postgres_and_harms_nobody() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("s", "SELECT 'kept'").sync().query("DEALLOCATE s"));
    assert_eq!(client.replies(2), "1 Z E26000 Z");
    client.send(run("s"));
    assert_eq!(client.column(), ["kept"]);
}

/// Trap 7: a statement whose result changed is an error of Postgres; RECONNECT helps, and others go on.
#[test]
fn a_plan_whose_result_has_changed_is_told_and_cured_by_reconnect() {
    let pooler = narrow();
    postgres().query("CREATE TABLE changing AS SELECT 1 AS a").unwrap();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("s", "SELECT * FROM changing").sync());
    assert_eq!(client.replies(1), "1 Z");
    client.send(run("s"));
    assert_eq!(client.column(), ["1"]);
    postgres().query("ALTER TABLE changing ADD b int DEFAULT 2").unwrap();
    client.send(run("s"));
    assert_eq!(client.replies(1), "E0A000 Z");
    assert_eq!(Script::connect(&pooler).value("SELECT 'mine'"), "mine");
    pooler.admin("RECONNECT");
    client.send(run("s"));
    assert_eq!(client.column(), ["1"]);
}

/// Trap 8.
#[test]
fn a_portal_dies_with_its_transaction() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("", "SELECT n FROM numbers").bind("", &[]).execute(1).sync());
    assert_eq!(client.replies(1), "1 2 D s Z");
    client.send(Batch::new().execute(1).sync());
    assert_eq!(client.replies(1), "E34000 Z");
}

/// Trap 9.
#[test]
fn copy_may_stand_among_the_statements_of_a_query() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("BEGIN; SELECT 1; COPY copied FROM STDIN; SELECT 2; ROLLBACK"));
    assert_eq!(client.some_replies(5), "C T D C G");
    client.send(Batch::new().raw(b'd', b"1\tx\n").raw(b'c', b"").query("SELECT 3"));
    assert_eq!(client.replies(2), "C T D C C Z T D C Z");
    assert_eq!(Script::connect(&pooler).value("SELECT 'mine'"), "mine");
}

/// Trap 12: nobody has asked for what a server says on its own; the next client does not get it.
#[test]
fn what_a_server_says_while_it_is_idle_reaches_nobody() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1\nserver_check_query =");
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    client.send(Batch::new().query("one"));
    assert_eq!(server.next().1, "one\0");
    server.answer("1");
    assert_eq!(client.column(), ["1"]);
    server.send_message(b'N', b"SNOTICE\0C00000\0Mfor nobody\0\0");
    server.send_message(b'A', b"\0\0\0\x07channel\0payload\0");
    server.send_message(b'S', b"TimeZone\0Asia/Tokyo\0");
    wait_until("the pooler has read it", || server.is_read());
    let mut other = Script::connect_to(&pooler, "fake", &[("TimeZone", "UTC")]);
    other.send(Batch::new().query("two"));
    let (_, first) = server.next();
    assert!(first.contains("SET TimeZone"), "the changed zone was noticed and is set back: {first}");
    server.send_message(b'C', b"SET\0");
    server.send_message(b'S', b"TimeZone\0UTC\0");
    server.send_message(b'Z', b"I");
    assert_eq!(server.next().1, "two\0");
    server.answer("2");
    assert_eq!(other.replies(1), "D C Z");
}

/// Trap 12.
#[test]
fn a_notice_in_the_middle_of_a_batch_belongs_to_its_client() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    let raise = "DO $$ BEGIN RAISE NOTICE 'hello'; END $$";
    client.send(Batch::new().parse("", raise).bind("", &[]).execute(0).sync().query("SELECT 1"));
    assert_eq!(client.replies(2), "1 2 N C Z T D C Z");
}

/// News: ReadyForQuery may come to carry more than the status.
#[test]
fn a_ready_for_query_with_more_in_it_passes_and_frees_the_server() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    client.send(Batch::new().query("one"));
    server.next();
    server.send_message(b'C', b"SELECT 0\0");
    server.send_message(b'Z', b"I and more");
    assert_eq!(client.next(), (b'C', b"SELECT 0\0".to_vec()));
    assert_eq!(client.next(), (b'Z', b"I and more".to_vec()));
    let mut other = Script::connect_to(&pooler, "fake", &[]);
    other.send(Batch::new().query("two"));
    assert_eq!(server.next().1, "two\0");
}
