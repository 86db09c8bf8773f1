//! COPY in and out, and its failures.

use crate::script::{Batch, Script};
use crate::world::Pooler;

fn narrow() -> Pooler {
    Pooler::start("default_pool_size = 1")
}

fn copy_data(rows: &str) -> Batch {
    Batch::new().raw(b'd', rows.as_bytes())
}

fn assert_clean(pooler: &Pooler) {
    let mut other = Script::connect(pooler);
    assert_eq!(other.value("SELECT 'mine'"), "mine");
}

#[test]
fn copy_in_and_out_pass() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("BEGIN").query("COPY copied FROM STDIN"));
    assert_eq!(client.some_replies(3), "C ZT G");
    for n in 0..1000 {
        client.send(copy_data(&format!("{n}\ttext\n")));
    }
    client.send(Batch::new().raw(b'c', b""));
    assert_eq!(client.replies(1), "C ZT");
    client.send(Batch::new().query("COPY (SELECT n FROM copied WHERE n < 3) TO STDOUT"));
    assert_eq!(client.replies(1), "H d d d c C ZT");
    client.send(Batch::new().query("ROLLBACK"));
    assert_eq!(client.replies(1), "C Z");
    assert_clean(&pooler);
}

/// The server fails at the first bad row, says so and is free; what the client still sends belongs to nobody.
#[test]
fn copy_data_behind_an_error_never_reaches_the_next_client() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("COPY copied FROM STDIN"));
    assert_eq!(client.some_replies(1), "G");
    client.send(copy_data("not a number\ttext\n"));
    assert_eq!(client.replies(1), "E22P02 Z");
    let mut other = Script::connect(&pooler);
    other.send(Batch::new().query("BEGIN"));
    assert_eq!(other.replies(1), "C ZT");
    client.send(copy_data("1\tlate\n"));
    client.send(Batch::new().raw(b'c', b""));
    client.send(Batch::new().query("SELECT 'after'"));
    other.send(Batch::new().query("SELECT 'inside'").query("COMMIT"));
    assert_eq!(other.replies(2), "T D C ZT C Z");
    assert_eq!(client.replies(1), "T D C Z");
    assert_clean(&pooler);
}

#[test]
fn copy_by_extended_query_takes_the_early_sync_as_postgres_does() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("", "COPY copied FROM STDIN").bind("", &[]).execute(0).sync());
    assert_eq!(client.some_replies(3), "1 2 G");
    client.send(copy_data("1\ta\n"));
    client.send(Batch::new().raw(b'c', b"").sync());
    assert_eq!(client.replies(1), "C Z");
    client.send(Batch::new().query("TRUNCATE copied"));
    assert_eq!(client.replies(1), "C Z");
    assert_clean(&pooler);
}

#[test]
fn a_failed_copy_by_extended_query_ends_at_its_sync() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("", "COPY copied FROM STDIN").bind("", &[]).execute(0).sync());
    assert_eq!(client.some_replies(3), "1 2 G");
    client.send(copy_data("x\n"));
    client.send(Batch::new().raw(b'c', b"").sync());
    assert_eq!(client.replies(1), "E22P02 Z");
    assert_clean(&pooler);
}

#[test]
fn copy_fail_is_passed_on() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("COPY copied FROM STDIN"));
    assert_eq!(client.some_replies(1), "G");
    client.send(Batch::new().raw(b'f', b"changed my mind\0"));
    assert_eq!(client.replies(1), "E57014 Z");
    assert_clean(&pooler);
}

#[test]
fn a_client_gone_in_the_middle_of_copy_takes_its_server_with_it() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("COPY copied FROM STDIN"));
    assert_eq!(client.some_replies(1), "G");
    client.send(copy_data("1\ta\n"));
    drop(client);
    assert_clean(&pooler);
    assert_eq!(crate::world::postgres().query("SELECT count(*) FROM copied WHERE n = 1").unwrap(), "0");
}
