//! Who may not read any more is cut off: removed members, whatever Redis loses, and the sockets and streams of ended logins.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod events;
mod socket;
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use events::Events;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use socket::Socket;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use world::{Client, PASSWORD, Replica, User, World};

/// So long that only what is done at once can be seen in a test.
const NEVER: [(&str, &str); 2] = [("CHAT_COMPARE_PERIOD", "600000"), ("CHAT_PING_PERIOD", "600")];

async fn private_session(owner: &Client, guest: &User) -> String {
    let made = owner.post("/api/sessions", &json!({"title": "room", "visibility": "private"})).await;
    let id = made.at("/id").as_str().unwrap().to_owned();
    add(owner, &id, guest).await;
    id
}

async fn add(owner: &Client, id: &str, guest: &User) {
    let added =
        owner.post(&format!("/api/sessions/{id}/members"), &json!({"username": guest.username})).await;
    assert_eq!(added.status, 201, "{added:?}");
}

async fn remove(owner: &Client, id: &str, guest: &User) {
    assert_eq!(owner.delete(&format!("/api/sessions/{id}/members/{}", guest.id)).await.status, 204);
}

async fn removed_without_redis(world: &mut World, silence: impl AsyncFnOnce(&mut World)) {
    let (one, two) = (world.replica("web-1").await, world.replica("web-2").await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let owner = one.client_of(&ann);
    let id = private_session(&owner, &bob).await;
    let mut at_one = Socket::open(&one, &id, &bob.token).await;
    let mut at_two = Socket::open(&two, &id, &bob.token).await;
    let mut stays = Socket::open(&two, &id, &ann.token).await;
    silence(world).await;
    remove(&owner, &id, &bob).await;
    assert_eq!(at_one.closed().await.0, 4403);
    assert_eq!(at_two.closed().await.0, 4403);
    let secret = owner.post(&format!("/api/sessions/{id}/messages"), &json!({"content": "secret"})).await;
    assert_eq!(secret.status, 201);
    assert_eq!(stays.messages(1).await[0]["content"], "secret", "who is a member still is one");
    for gone in [&mut at_one, &mut at_two] {
        assert_eq!(gone.seen("message"), Vec::<Value>::new());
    }
    one.kill();
    two.kill();
}

#[tokio::test]
async fn a_removal_that_a_frozen_redis_does_not_tell_closes_the_sockets_of_all_replicas() {
    let mut world = World::start().await;
    removed_without_redis(&mut world, async |world| world.redis.freeze()).await;
    world.redis.thaw();
}

#[tokio::test]
async fn a_removal_that_a_dead_redis_does_not_tell_closes_the_sockets_of_all_replicas() {
    let mut world = World::start().await;
    removed_without_redis(&mut world, async |world| world.redis_kill().await).await;
}

#[tokio::test]
async fn a_removal_that_nobody_told_is_found_by_the_comparison() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("CHAT_COMPARE_PERIOD", "200")]).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let id = private_session(&replica.client_of(&ann), &bob).await;
    let mut guest = Socket::open(&replica, &id, &bob.token).await;
    let mut database = world.postgres.connect(&world.database).await;
    sqlx::query("DELETE FROM members WHERE user_id = $1::uuid")
        .bind(&bob.id)
        .execute(&mut database)
        .await
        .unwrap();
    assert_eq!(guest.closed().await.0, 4403);
    replica.stop().await;
}

/// How a socket ended that may have been refused: `None` for that.
async fn end_of(addr: SocketAddr, id: &str, token: &str) -> Option<u16> {
    let tcp = TcpStream::connect(addr).await.unwrap();
    let url = format!("ws://{addr}/ws/chat/session/{id}/?token={token}");
    let (mut stream, _) = tokio_tungstenite::client_async(url, tcp).await.ok()?;
    let end = async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Close(Some(close)))) => return Some(close.code.into()),
                Some(Ok(_)) => {}
                other => panic!("a close frame, not {other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), end)
        .await
        .expect("the socket of a removed member is closed")
}

#[tokio::test]
async fn a_socket_that_is_opened_while_its_member_is_removed_does_not_stay() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &NEVER).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let owner = replica.client_of(&ann);
    let id = private_session(&owner, &bob).await;
    for _ in 0..20 {
        let opening = join_all((0..16).map(|_| end_of(replica.addr, &id, &bob.token)));
        let (ends, ()) = tokio::join!(opening, remove(&owner, &id, &bob));
        assert!(ends.iter().flatten().all(|code| *code == 4403), "{ends:?}");
        add(&owner, &id, &bob).await;
    }
    // Who was removed once and is a member again is let in.
    Socket::open(&replica, &id, &bob.token).await.close().await;
    replica.stop().await;
}

async fn log_in(replica: &Replica, username: &str) -> User {
    let body = json!({"username": username, "password": PASSWORD});
    let answer = replica.client().post("/api/auth/login", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    User::of(&answer.json)
}

#[tokio::test]
async fn the_sockets_of_an_ended_login_are_closed_at_once_on_every_replica() {
    let world = World::start().await;
    let (one, two) = (world.replica_with("web-1", &NEVER).await, world.replica_with("web-2", &NEVER).await);
    let ann = world.user("ann").await;
    let id = &room_of(&one.client_of(&ann)).await;
    let other = log_in(&one, "ann").await;
    let mut keeps = Socket::open(&one, id, &ann.token).await;
    let mut at_one = Socket::open(&one, id, &other.token).await;
    let mut at_two = Socket::open(&two, id, &other.token).await;
    let passwords = json!({"old": PASSWORD, "new": "another horse battery"});
    assert_eq!(one.client_of(&ann).post("/api/users/me/password", &passwords).await.status, 204);
    assert_eq!(at_one.closed().await.0, 4401);
    assert_eq!(at_two.closed().await.0, 4401);
    keeps.send_message("c1", "still here").await;
    keeps.ack("c1").await;
    assert_eq!(two.client_of(&ann).post("/api/auth/logout", &json!({})).await.status, 204);
    assert_eq!(keeps.closed().await.0, 4401);
    one.stop().await;
    two.stop().await;
}

/// A session of this client's own.
async fn room_of(client: &Client) -> String {
    let made = client.post("/api/sessions", &json!({"title": "room"})).await;
    made.at("/id").as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_socket_belongs_to_the_login_of_its_newest_token() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &NEVER).await;
    let ann = world.user("ann").await;
    let client = replica.client_of(&ann);
    let id = &room_of(&client).await;
    let mut socket = Socket::open(&replica, id, &ann.token).await;
    let other = log_in(&replica, "ann").await;
    socket.send(&json!({"type": "auth.refresh", "token": other.token})).await;
    socket.send(&json!({"type": "ping"})).await;
    socket.frame("pong").await;
    assert_eq!(client.post("/api/auth/logout", &json!({})).await.status, 204);
    socket.send(&json!({"type": "ping"})).await;
    socket.frame("pong").await;
    assert_eq!(replica.client_of(&other).delete("/api/users/me").await.status, 204);
    assert_eq!(socket.closed().await.0, 4401);
    replica.stop().await;
}

#[tokio::test]
async fn an_ended_login_that_only_redis_remembers_closes_its_sockets() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &NEVER).await;
    let ann = world.user("ann").await;
    let client = replica.client_of(&ann);
    let id = &room_of(&client).await;
    let mut socket = Socket::open(&replica, id, &ann.token).await;
    let login = client.get("/api/auth/logins").await.at("/items/0/id").as_str().unwrap().to_owned();
    let redis = redis::Client::open(format!("redis://127.0.0.1:{}", world.redis.port)).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    // As if the message of its end had been lost.
    let _: () =
        redis::cmd("ZADD").arg("arena:revoked").arg(now).arg(login).query_async(&mut redis).await.unwrap();
    assert_eq!(socket.closed().await.0, 4401);
    replica.stop().await;
}

#[tokio::test]
async fn an_answer_that_streams_to_an_ended_login_ends_with_the_next_token() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("RESPONDER_PACE", "100")]).await;
    let ann = world.user("ann").await;
    let client = replica.client_of(&ann);
    let made = client.post("/api/sessions", &json!({"title": "room"})).await;
    let question = json!({"session_id": made.at("/id"), "content": "a question whose answer has many words"});
    let mut events = Events::post(&client, "/messages/stream/", &question).await;
    events.next_of("token").await;
    assert_eq!(client.post("/api/auth/logout", &json!({})).await.status, 204);
    while let Some(event) = events.next().await {
        assert_eq!(event.name, "token", "the stream ends before its answer does");
    }
    replica.kill();
}

#[tokio::test]
async fn an_answer_that_streams_to_a_removed_member_ends_with_the_next_token() {
    let world = World::start().await;
    let slow = [("RESPONDER_PACE", "100"), ("CHAT_COMPARE_PERIOD", "600000")];
    let (one, two) = (world.replica_with("web-1", &slow).await, world.replica_with("web-2", &slow).await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let owner = one.client_of(&ann);
    let id = private_session(&owner, &bob).await;
    let guest = two.client_of(&bob);
    let content = "a question whose answer has many words";
    let question = json!({"session_id": id, "content": content, "client_msg_id": "k1"});
    let mut events = Events::post(&guest, "/messages/stream/", &question).await;
    let start = events.next_of("start").await;
    events.next_of("token").await;
    remove(&owner, &id, &bob).await;
    while let Some(event) = events.next().await {
        assert_eq!(event.name, "token", "the stream ends before its answer does");
    }
    let path = format!("/messages/stream/{}", start.data["stream_id"].as_str().unwrap());
    assert_eq!(guest.get(&path).await.status, 403);
    // Nor does the same question, sent again under its key, bring the answer.
    let again = guest.post("/messages/stream/", &question).await;
    assert_eq!(again.status, 403, "{again:?}");
    one.kill();
    two.kill();
}
