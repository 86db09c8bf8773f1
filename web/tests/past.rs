//! What a member is given of the past of its room: no more than it takes, and not what the database has lost.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod socket;
mod world;

use serde_json::{Value, json};
use socket::{Socket, offsets};
use sqlx::{AssertSqlSafe, Executor as _};
use world::{Replica, User, World, session};

async fn post(replica: &Replica, user: &User, session: &str, content: &str) -> Value {
    let path = format!("/api/sessions/{session}/messages");
    let stored = replica.client_of(user).post(&path, &json!({"content": content})).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    stored.json
}

/// Runs statements past the service.
async fn change(world: &World, sql: String) {
    let mut postgres = world.postgres.connect(&world.database).await;
    postgres.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

/// As a standby that did not have the messages after `last` when it became the primary.
async fn lose_tail(world: &World, session: &str, last: i64) {
    let sql = format!(
        r#"BEGIN; DELETE FROM messages WHERE session_id = '{session}' AND "offset" > {last};
           UPDATE sessions SET last_offset = {last} WHERE id = '{session}'; COMMIT"#
    );
    change(world, sql).await;
}

/// Messages of which each is 60 KB as a frame.
async fn store_bulky(world: &World, session: &str, user: &User, count: usize) {
    let sql = format!(
        r#"INSERT INTO messages (session_id, "offset", id, role, author_id, content, created_at)
           SELECT '{session}', n, gen_random_uuid(), 'user', '{}', repeat(chr(1), 10000), now()
             FROM generate_series(1, {count}) n;
           UPDATE sessions SET last_offset = {count} WHERE id = '{session}'"#,
        user.id
    );
    change(world, sql).await;
}

#[tokio::test]
async fn nothing_of_the_past_is_held_for_a_member_that_does_not_take_it() {
    const COUNT: usize = 320;
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    store_bulky(&world, &id, &ann, COUNT).await;
    let mut slow = Socket::open_with_small_buffers_since(&replica, &id, &ann.token, 0).await;
    let mut seen = slow.messages(1).await;
    // Its past has been read, and it takes no more of it. What is not read again is gone.
    change(&world, format!("DELETE FROM messages WHERE session_id = '{id}'")).await;
    post(&replica, &ann, &id, "the last").await;
    while seen.last().unwrap()["content"] != "the last" {
        seen.extend(slow.messages(1).await);
    }
    // The kernel's buffers and the queue hold some.
    assert!(seen.len() < COUNT * 3 / 4, "{} messages were held for it", seen.len());
    replica.stop().await;
}

#[tokio::test]
async fn a_past_of_bulky_messages_comes_whole_and_in_order() {
    const COUNT: usize = 60;
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("CHAT_QUEUE_BYTES", "65536")]).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    store_bulky(&world, &id, &ann, COUNT).await;
    let mut reader = Socket::open_since(&replica, &id, &ann.token, 0).await;
    assert_eq!(offsets(&reader.messages(COUNT).await), (1..=COUNT as i64).collect::<Vec<_>>());
    post(&replica, &ann, &id, "live").await;
    assert_eq!(reader.messages(1).await[0]["content"], "live");
    replica.stop().await;
}

#[tokio::test]
async fn a_room_whose_tail_the_database_lost_is_begun_anew_by_its_members() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("CHAT_COMPARE_PERIOD", "300")]).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let mut member = Socket::open(&replica, &id, &ann.token).await;
    for n in 1..=10 {
        post(&replica, &ann, &id, &format!("message {n}")).await;
    }
    member.messages(10).await;
    lose_tail(&world, &id, 7).await;
    let (code, reason) = member.closed().await;
    assert!(code == 1012 && reason.contains("retry_after_ms"), "{code} {reason}");
    let mut back = Socket::open_since(&replica, &id, &ann.token, 10).await;
    assert_eq!((&back.welcome["offset"], &back.welcome["resumed"]), (&json!(7), &json!(false)));
    assert_eq!(post(&replica, &ann, &id, "after the failover").await["offset"], 8);
    assert_eq!(back.messages(1).await[0]["content"], "after the failover");
    let mut fresh = Socket::open_since(&replica, &id, &ann.token, 6).await;
    assert_eq!(offsets(&fresh.messages(2).await), [7, 8]);
    replica.stop().await;
}

#[tokio::test]
async fn a_new_message_under_an_offset_that_was_handed_out_shows_that_the_tail_is_lost() {
    let world = World::start().await;
    let rare = &[("CHAT_COMPARE_PERIOD", "600000")];
    let (one, two) = (world.replica_with("web-1", rare).await, world.replica_with("web-2", rare).await);
    let ann = world.user("ann").await;
    let id = session(&one, &ann).await;
    let mut member = Socket::open(&two, &id, &ann.token).await;
    for n in 1..=10 {
        post(&one, &ann, &id, &format!("message {n}")).await;
    }
    member.messages(10).await;
    lose_tail(&world, &id, 7).await;
    assert_eq!(post(&one, &ann, &id, "after the failover").await["offset"], 8);
    assert_eq!(member.closed().await.0, 1012);
    let mut back = Socket::open_since(&two, &id, &ann.token, 7).await;
    assert_eq!(back.messages(1).await[0]["content"], "after the failover");
    one.stop().await;
    two.stop().await;
}
