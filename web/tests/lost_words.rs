//! What a commit must bring about elsewhere comes about though the word of it is lost: Redis is away, or the client was.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod socket;
mod world;

use std::time::Duration;

use serde_json::{Value, json};
use socket::Socket;
use sqlx::PgConnection;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use world::locks::{is_waited_for, run};
use world::programs::until;
use world::{Client, PASSWORD, Replica, User, World};

/// So long that only what is done at once can be seen in a test.
const NEVER: [(&str, &str); 1] = [("CHAT_COMPARE_PERIOD", "600000")];
const SOON: Duration = Duration::from_secs(15);

async fn session(client: &Client) -> String {
    let made = client.post("/api/sessions", &json!({"title": "room", "visibility": "public"})).await;
    made.at("/id").as_str().unwrap().to_owned()
}

async fn log_in(replica: &Replica, username: &str) -> User {
    let body = json!({"username": username, "password": PASSWORD});
    User::of(&replica.client().post("/api/auth/login", &body).await.json)
}

/// The newest login of the user.
async fn login_id(client: &Client) -> String {
    client.get("/api/auth/logins").await.at("/items/0/id").as_str().unwrap().to_owned()
}

async fn until_ended(what: &str, client: &Client) {
    until(what, SOON, async || client.get("/api/users/me").await.status == 401).await;
}

/// As if the replica that ended it had been killed before it could tell anybody.
async fn end_unheard(database: &mut PgConnection, login: &str) {
    sqlx::query("UPDATE logins SET revoked_at = now() WHERE id = $1::uuid")
        .bind(login)
        .execute(database)
        .await
        .unwrap();
}

async fn until_somebody_waits_for_a_lock(database: &mut PgConnection) {
    while !is_waited_for(&mut *database).await {}
}

#[tokio::test]
async fn a_login_that_ends_while_redis_is_frozen_ends_on_every_replica() {
    let world = World::start().await;
    let (one, two) = (world.replica_with("web-1", &NEVER).await, world.replica_with("web-2", &NEVER).await);
    let ann = world.user("ann").await;
    let id = session(&one.client_of(&ann)).await;
    let mut socket = Socket::open(&two, &id, &ann.token).await;
    world.redis.freeze();
    assert_eq!(one.client_of(&ann).post("/api/auth/logout", &json!({})).await.status, 204);
    until_ended("the other replica knows without Redis", &two.client_of(&ann)).await;
    assert_eq!(socket.closed().await.0, 4401);
    world.redis.thaw();
    one.kill();
    two.kill();
}

#[tokio::test]
async fn an_end_of_a_login_that_nobody_told_is_found_in_the_database() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &NEVER).await;
    let client = replica.client_of(&world.user("ann").await);
    let login = login_id(&client).await;
    end_unheard(&mut world.postgres.connect(&world.database).await, &login).await;
    until_ended("the replica has read it", &client).await;
    replica.stop().await;
}

#[tokio::test]
async fn ending_a_login_a_second_time_tells_of_its_end_again() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &NEVER).await;
    let here = world.user("ann").await;
    let there = log_in(&replica, "ann").await;
    let login = login_id(&replica.client_of(&there)).await;
    end_unheard(&mut world.postgres.connect(&world.database).await, &login).await;
    let again = replica.client_of(&here).delete(&format!("/api/auth/logins/{login}")).await;
    again.assert_problem(404, "not-found");
    replica.client_of(&there).get("/api/users/me").await.assert_problem(401, "unauthorized");
    let bob = world.user("bob").await;
    let others = login_id(&replica.client_of(&bob)).await;
    let refused = replica.client_of(&here).delete(&format!("/api/auth/logins/{others}")).await;
    refused.assert_problem(404, "not-found");
    assert_eq!(replica.client_of(&bob).get("/api/users/me").await.status, 200, "whose login it is counts");
    replica.stop().await;
}

/// Sends a message and goes away while it waits for the session's lock; comes back when the replica has noticed.
async fn say_and_go(replica: &Replica, user: &User, path: &str, lock: &mut PgConnection) {
    let body = json!({"content": "hello", "client_msg_id": "k1"}).to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: arena\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        user.token,
        body.len()
    );
    let mut client = TcpStream::connect(replica.addr).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    until_somebody_waits_for_a_lock(lock).await;
    drop(client);
    let ops = Client::new(replica.ops_addr);
    until("the request has ended", SOON, async || {
        ops.get("/metrics").await.text.lines().any(|line| line == "web_http_requests_in_flight 0")
    })
    .await;
}

#[tokio::test]
async fn a_message_whose_sender_went_away_while_it_was_stored_reaches_the_members() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &NEVER).await;
    let ann = world.user("ann").await;
    let id = session(&replica.client_of(&ann)).await;
    let mut member = Socket::open(&replica, &id, &ann.token).await;
    let mut lock = world.postgres.connect(&world.database).await;
    run(&mut lock, "BEGIN; SELECT FROM sessions FOR UPDATE").await;
    say_and_go(&replica, &ann, &format!("/api/sessions/{id}/messages"), &mut lock).await;
    run(&mut lock, "COMMIT").await;
    assert_eq!(member.messages(1).await[0]["content"], "hello");
    replica.stop().await;
}

#[tokio::test]
async fn a_message_that_is_sent_again_is_told_again() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &NEVER).await;
    let ann = world.user("ann").await;
    let client = replica.client_of(&ann);
    let id = session(&client).await;
    let mut member = Socket::open(&replica, &id, &ann.token).await;
    let mut database = world.postgres.connect(&world.database).await;
    // Stored, and its publication lost.
    sqlx::query(
        r#"WITH place AS (UPDATE sessions SET last_offset = 1 WHERE id = $1::uuid RETURNING id)
           INSERT INTO messages (session_id, "offset", id, role, author_id, content, client_msg_id, created_at)
           SELECT id, 1, gen_random_uuid(), 'user', $2::uuid, 'hello', 'k1', now() FROM place"#,
    )
    .bind(&id)
    .bind(&ann.id)
    .execute(&mut database)
    .await
    .unwrap();
    let body = json!({"content": "hello", "client_msg_id": "k1"});
    let again = client.post(&format!("/api/sessions/{id}/messages"), &body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, "true"));
    assert_eq!(member.messages(1).await[0]["offset"], 1);
    // A room that has it ignores the second.
    client.post(&format!("/api/sessions/{id}/messages"), &body).await;
    member.send_message("k2", "more").await;
    assert_eq!(member.messages(1).await[0]["offset"], 2);
    assert_eq!(member.seen("message"), Vec::<Value>::new());
    replica.stop().await;
}
