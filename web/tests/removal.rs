//! Who may not read any more is cut off: removed members, whatever Redis loses.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod socket;
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use socket::Socket;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use world::{Client, User, World};

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
