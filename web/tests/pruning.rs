//! What a replica forgets by itself: messages beyond their retention, logins and used tickets that ended long ago.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgConnection;
use world::World;
use world::programs::until;

async fn count(postgres: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(postgres).await.unwrap()
}

#[tokio::test]
async fn a_replica_that_is_ready_removes_what_is_older_than_it_may_be_and_nothing_else() {
    let world = World::start().await;
    let first = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let client = first.client_of(&ann);
    let made = client.post("/api/sessions", &json!({"title": "room"})).await;
    let path = format!("/api/sessions/{}/messages", made.at("/id").as_str().unwrap());
    for number in 0..6 {
        client.post(&path, &json!({"content": format!("{number}")})).await;
    }
    world.user("bob").await;
    let mut postgres = world.postgres.connect(&world.database).await;
    for sql in [
        r#"UPDATE messages SET created_at = now() - interval '31 days' WHERE "offset" <= 3"#,
        r#"UPDATE messages SET created_at = now() - interval '29 days' WHERE "offset" = 4"#,
        "UPDATE logins SET revoked_at = now() - interval '8 days' FROM users WHERE users.id = user_id AND username = 'bob'",
        "INSERT INTO used_tickets VALUES (gen_random_uuid(), gen_random_uuid(), now() - interval '2 hours'),
            (gen_random_uuid(), gen_random_uuid(), now())",
    ] {
        sqlx::query(sql).execute(&mut postgres).await.unwrap();
    }
    let second = world.replica_with("web-2", &[("MESSAGE_RETENTION_DAYS", "30")]).await;
    until("the old messages have gone", Duration::from_secs(20), async || {
        let list = second.client_of(&ann).get(&path).await;
        let offsets: Vec<Value> =
            list.at("/items").as_array().unwrap().iter().map(|item| item["offset"].clone()).collect();
        offsets == [4, 5, 6]
    })
    .await;
    // They went before the messages did.
    assert_eq!(count(&mut postgres, "SELECT count(*) FROM logins").await, 1, "ann's");
    assert_eq!(count(&mut postgres, "SELECT count(*) FROM used_tickets").await, 1, "the one that is young");
    let next = client.post(&path, &json!({"content": "next"})).await;
    assert_eq!(next.at("/offset"), 7, "offsets go on");
    first.stop().await;
    second.stop().await;
}
