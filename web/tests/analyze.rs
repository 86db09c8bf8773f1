//! analyze-query tells an admin about plans, never about data.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use world::{Answer, Client, World};

const ADMINS: (&str, &str) = ("ADMIN_USERNAMES", "root");

async fn analyze(client: &Client, query: &str, run: bool) -> Answer {
    client.post("/api/v1/monitoring/analyze-query", &json!({"query": query, "analyze": run})).await
}

#[tokio::test]
async fn an_error_of_a_query_that_runs_quotes_no_data() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[ADMINS]).await;
    let root = replica.client_of(&world.user("root").await);
    for (query, run, sqlstate) in [
        ("SELECT (SELECT password_hash FROM users LIMIT 1)::int", true, "22P02"),
        ("SELECT (SELECT password_hash FROM users LIMIT 1)::regclass", true, "42"),
        (
            "SELECT 1 FROM users WHERE length(username) = table_to_xml('users', true, false, '')::text::int",
            false,
            "22P02",
        ),
    ] {
        let answer = analyze(&root, query, run).await;
        answer.assert_problem(422, "unprocessable");
        assert!(!answer.text.contains("argon2"), "{query}: {}", answer.text);
        assert!(answer.text.contains(sqlstate), "{query}: {}", answer.text);
    }
    // What is wrong with the query itself is still told.
    for (query, told) in [("SELECT nothing FROM users", "nothing"), ("SELECT 'five'::int", "five")] {
        let answer = analyze(&root, query, true).await;
        answer.assert_problem(422, "unprocessable");
        assert!(answer.text.contains(told), "{query}: {}", answer.text);
    }
    replica.stop().await;
}

#[tokio::test]
async fn an_analysis_is_given_up_at_its_limit_though_postgres_keeps_silent() {
    let world = World::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_port = silent.local_addr().unwrap().port().to_string();
    let port = world.postgres.port.to_string();
    let settings = [
        ADMINS,
        ("DB_PORT", port.as_str()),
        ("ACTUAL_DB_HOST", "127.0.0.1"),
        ("ACTUAL_DB_PORT", silent_port.as_str()),
    ];
    let replica = world.replica_with("web-1", &settings).await;
    let root = replica.client_of(&world.user("root").await);
    let began = Instant::now();
    let answer = analyze(&root, "SELECT 1", true).await;
    answer.assert_problem(503, "unavailable");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // Nobody stacks up a second one behind it.
    let busy = analyze(&root, "SELECT 1", true).await;
    busy.assert_problem(503, "unavailable");
    assert_ne!(busy.at("/detail"), &Value::Null);
    assert!(busy.text.contains("another statement"), "{}", busy.text);
    replica.kill();
}
