//! Prepared statements over changing servers, named and unnamed.

use crate::script::{Batch, Script};
use crate::world::Pooler;

fn run(name: &str, values: &[&str]) -> Batch {
    Batch::new().bind(name, values).execute(0).sync()
}

/// Holds a server in a transaction, so that others get another one.
fn hold(pooler: &Pooler) -> Script {
    let mut holder = Script::connect(pooler);
    holder.send(Batch::new().query("BEGIN").query("SELECT 1"));
    assert_eq!(holder.replies(2), "C ZT T D C ZT");
    holder
}

#[test]
fn a_named_statement_works_on_every_server() {
    let pooler = Pooler::start("default_pool_size = 3");
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("s", "SELECT $1::text").sync());
    assert_eq!(client.replies(1), "1 Z");
    let mut holders = Vec::new();
    for n in ["1", "2", "3"] {
        client.send(run("s", &[n]));
        assert_eq!(client.column(), [n]);
        if holders.len() < 2 {
            holders.push(hold(&pooler));
        }
    }
}

/// A driver that prepares without a name in one batch and binds in the next: with others the Bind meets a server that
/// has no such statement, or somebody else's.
#[test]
fn an_unnamed_statement_survives_a_change_of_server() {
    let pooler = Pooler::start("default_pool_size = 2");
    let mut client = Script::connect(&pooler);
    let mut other = Script::connect(&pooler);
    client.send(Batch::new().parse("", "SELECT 'client ' || $1").sync());
    assert_eq!(client.replies(1), "1 Z");
    other.send(Batch::new().parse("", "SELECT 'other', $1::int, $2::int").sync());
    assert_eq!(other.replies(1), "1 Z");
    let _holder = hold(&pooler);
    client.send(run("", &["a"]));
    assert_eq!(client.column(), ["client a"]);
    other.send(run("", &["1", "2"]));
    assert_eq!(other.column(), ["other"]);
    client.send(Batch::new().describe("").bind("", &["b"]).execute(0).sync());
    assert_eq!(client.column(), ["client b"]);
}

#[test]
fn a_client_without_an_unnamed_statement_does_not_get_anothers() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut owner = Script::connect(&pooler);
    owner.send(Batch::new().parse("", "SELECT 'private'").sync());
    assert_eq!(owner.replies(1), "1 Z");
    let mut thief = Script::connect(&pooler);
    thief.send(run("", &[]));
    assert_eq!(thief.replies(1), "E26000 Z");
    owner.send(run("", &[]));
    assert_eq!(owner.column(), ["private"]);
    owner.send(Batch::new().query("SELECT 1"));
    assert_eq!(owner.replies(1), "T D C Z");
    owner.send(run("", &[]));
    assert_eq!(owner.replies(1), "E26000 Z", "a simple query drops the unnamed statement");
}

#[test]
fn the_same_text_with_other_types_is_another_statement() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    let parse = |name: &str, oid: u32| {
        let mut body = format!("{name}\0SELECT pg_typeof($1)::text\0").into_bytes();
        body.extend([0, 1]);
        body.extend(oid.to_be_bytes());
        Batch::new().raw(b'P', &body)
    };
    client.send(Batch([parse("a", 23).0, parse("b", 25).0, Batch::new().sync().0].concat()));
    assert_eq!(client.replies(1), "1 1 Z");
    client.send(run("a", &["1"]));
    assert_eq!(client.column(), ["integer"]);
    client.send(run("b", &["1"]));
    assert_eq!(client.column(), ["text"]);
}

#[test]
fn clients_with_one_name_for_different_texts_are_kept_apart() {
    let pooler = Pooler::start("default_pool_size = 1");
    let (mut a, mut b) = (Script::connect(&pooler), Script::connect(&pooler));
    a.send(Batch::new().parse("s1", "SELECT 'a'").sync());
    b.send(Batch::new().parse("s1", "SELECT 'b'").sync());
    assert_eq!((a.replies(1), b.replies(1)), ("1 Z".to_string(), "1 Z".to_string()));
    for _ in 0..3 {
        a.send(run("s1", &[]));
        b.send(run("s1", &[]));
        assert_eq!((a.column(), b.column()), (vec!["a".to_string()], vec!["b".to_string()]));
    }
}

#[test]
fn a_parse_that_fails_is_forgotten() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("s", "SELECT FROM WHERE").sync());
    assert_eq!(client.replies(1), "E42601 Z");
    client.send(Batch::new().parse("s", "SELECT 'good'").bind("s", &[]).execute(0).sync());
    assert_eq!(client.replies(1), "1 2 D C Z");
    client.send(Batch::new().parse("t", "SELECT 1/0 FROM nowhere").parse("u", "SELECT 2").sync());
    assert_eq!(client.replies(1), "E42P01 Z");
    client.send(Batch::new().parse("u", "SELECT 2").bind("u", &[]).execute(0).sync());
    assert_eq!(client.replies(1), "1 2 D C Z");
}

#[test]
fn statements_used_in_a_batch_are_not_evicted_by_it() {
    let pooler = Pooler::start("default_pool_size = 1\nmax_prepared_statements = 2");
    let mut client = Script::connect(&pooler);
    let mut batch = Batch::new();
    for n in 0..6 {
        batch = batch.parse(&format!("s{n}"), &format!("SELECT '{n}'"));
    }
    for n in 0..6 {
        batch = batch.bind(&format!("s{n}"), &[]).execute(0);
    }
    client.send(batch.sync());
    assert_eq!(client.column(), ["0", "1", "2", "3", "4", "5"]);
    for n in [0, 5, 3, 0] {
        client.send(run(&format!("s{n}"), &[]));
        assert_eq!(client.column(), [n.to_string()]);
    }
    client.send(Batch::new().parse("one more", "SELECT 'more'").sync());
    assert_eq!(client.replies(1), "1 Z");
    assert_eq!(client.value("SELECT count(*) FROM pg_prepared_statements"), "2", "the next Parse makes room");
}

#[test]
fn a_name_may_be_used_again_after_close_only() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("s", "SELECT 1").close("s").parse("s", "SELECT 'two'").sync());
    assert_eq!(client.replies(1), "1 3 1 Z");
    client.send(Batch::new().close("never prepared").sync());
    assert_eq!(client.replies(1), "3 Z");
    client.send(Batch::new().parse("s", "SELECT 3").sync());
    assert!(client.last_error().contains("prepared statement 's' was already prepared"));
}

#[test]
fn nobody_closes_a_statement_of_others_by_its_name_on_the_server() {
    let pooler = Pooler::start("default_pool_size = 1");
    let (mut owner, mut other) = (Script::connect(&pooler), Script::connect(&pooler));
    owner.send(Batch::new().parse("s", "SELECT 42").sync());
    assert_eq!(owner.replies(1), "1 Z");
    let name = other.value("SELECT name FROM pg_prepared_statements");
    assert!(name.starts_with("PGBOUNCER_"), "{name}");
    other.send(Batch::new().close(&name).sync());
    assert_eq!(other.replies(1), "3 Z");
    owner.send(run("s", &[]));
    assert_eq!(owner.column(), ["42"]);
}

#[test]
fn a_name_that_nobody_knows_ends_with_26000() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect(&pooler);
    client.send(run("unknown", &[]));
    assert_eq!(client.replies(1), "E26000 closed");
}

#[test]
fn deallocate_all_and_discard_all_clear_both_sides() {
    let pooler = Pooler::start("default_pool_size = 1");
    for sql in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let (mut client, mut other) = (Script::connect(&pooler), Script::connect(&pooler));
        client.send(Batch::new().parse("s", "SELECT 'again'").sync());
        other.send(Batch::new().parse("s", "SELECT 'again'").sync());
        assert_eq!((client.replies(1), other.replies(1)), ("1 Z".to_string(), "1 Z".to_string()));
        client.send(Batch::new().query(sql));
        assert_eq!(client.replies(1), "C Z");
        other.send(run("s", &[]));
        assert_eq!(other.column(), ["again"]);
        client.send(Batch::new().parse("s", "SELECT 'again'").bind("s", &[]).execute(0).sync());
        assert_eq!(client.replies(1), "1 2 D C Z");
    }
}

#[tokio::test]
async fn a_driver_with_named_statements_works_over_few_servers() {
    let pooler = Pooler::start("default_pool_size = 2\nmax_prepared_statements = 3");
    let mut tasks = Vec::new();
    for n in 0..8i32 {
        let client = pooler.client().await;
        tasks.push(tokio::spawn(async move {
            let statements = futures(&client).await;
            for round in 0..20i32 {
                for (factor, statement) in statements.iter().enumerate() {
                    let row = client.query_one(statement, &[&(n * 100 + round)]).await.unwrap();
                    assert_eq!(row.get::<_, i32>(0), (n * 100 + round) * factor as i32);
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn futures(client: &tokio_postgres::Client) -> Vec<tokio_postgres::Statement> {
    let mut statements = Vec::new();
    for factor in 0..5 {
        statements.push(client.prepare(&format!("SELECT $1::int * {factor}")).await.unwrap());
    }
    statements
}
