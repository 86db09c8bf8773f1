//! A replica that dies at the worst moment, as a process with `kill -9`: what is committed reaches everybody.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod socket;
mod world;

use std::time::Duration;

use serde_json::json;
use socket::{Socket, offsets};
use sqlx::Executor as _;
use world::World;
use world::process::Process;
use world::programs::until;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_message_whose_replica_dies_between_commit_and_publish_reaches_everybody_once() {
    let world = World::start().await;
    let survivor = world.replica_with("web-2", &[("CHAT_COMPARE_PERIOD", "300")]).await;
    let ann = world.user("ann").await;
    let victim = Process::start(&world, "web-1", &[]).await;
    let made = survivor.client_of(&ann).post("/api/sessions", &json!({"title": "room"})).await;
    let id = made.at("/id").as_str().unwrap().to_owned();
    let path = format!("/api/sessions/{id}/messages");
    let body = json!({"content": "committed and never published", "client_msg_id": "m1"});
    let mut member = Socket::open(&survivor, &id, &ann.token).await;

    // The lock holds the commit back until the replica stands still: nobody can have been told.
    let mut locker = world.postgres.connect(&world.database).await;
    locker.execute("BEGIN; SELECT 1 FROM sessions FOR UPDATE").await.unwrap();
    let (client, unanswered) = (victim.client_of(&ann), (path.clone(), body.clone()));
    let asking = tokio::spawn(async move { client.post(&unanswered.0, &unanswered.1).await });
    let counts = async |sql: &'static str| -> bool {
        sqlx::query_scalar(sql).fetch_one(&mut world.postgres.connect(&world.database).await).await.unwrap()
    };
    until("the message waits for the lock", SOON, async || {
        counts("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')")
            .await
    })
    .await;
    victim.freeze().await;
    locker.execute("COMMIT").await.unwrap();
    until("the message is committed", SOON, async || counts("SELECT EXISTS (SELECT 1 FROM messages)").await)
        .await;
    victim.kill();
    assert!(asking.await.is_err(), "its client gets no answer");

    assert_eq!(offsets(&member.messages(1).await), [1], "found by the comparison of offsets");
    let again = survivor.client_of(&ann).post(&path, &body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, "true"), "{again:?}");
    assert_eq!(again.at("/offset"), 1);
    let next = survivor.client_of(&ann).post(&path, &json!({"content": "the next one"})).await;
    assert_eq!(next.at("/offset"), 2, "no gap");
    assert_eq!(offsets(&member.messages(1).await), [2], "and the first did not come again");
    survivor.stop().await;
}
