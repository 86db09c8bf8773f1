//! One WebSocket on the wire: whole frames in order however slowly it is read, pings and closes answered in between.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod socket;
mod world;

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use redis::AsyncCommands as _;
use serde_json::json;
use socket::{Socket, offsets};
use sqlx::Executor as _;
use web::auth::{Identity, Keys, Purpose};
use world::programs::until;
use world::{Client, User, World, session};

/// Final text, ping and close frames of a client, masked with zeros.
const PING: &[u8] = &[0x89, 0x82, 0, 0, 0, 0, b'h', b'i'];
const PONG: &[u8] = &[0x8a, 0x02, b'h', b'i'];
const CLOSE: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

#[tokio::test]
async fn a_member_that_reads_late_gets_whole_frames_in_order_and_its_pongs_between_them() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("CHAT_QUEUE_BYTES", "4000000")]).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let mut late = Socket::open_with_small_buffers(&replica, &id, &ann.token).await;
    let client = replica.client_of(&ann);
    let path = format!("/api/sessions/{id}/messages");
    let content = "much ".repeat(2_000);
    for n in 0..100 {
        assert_eq!(client.post(&path, &json!({"content": content})).await.status, 201);
        if n % 10 == 0 {
            // Answered by its own task, while the writers have its queue.
            late.send(&json!({"type": "ping"})).await;
        }
    }
    let messages = late.messages(100).await;
    assert_eq!(offsets(&messages), (1..=100).collect::<Vec<_>>());
    assert!(messages.iter().all(|message| message["content"] == content));
    for _ in 0..10 {
        late.frame("pong").await;
    }
    // The socket is not the worse for having been full: the next message comes at once.
    client.post(&path, &json!({"content": "next"})).await;
    assert_eq!(late.messages(1).await[0]["content"], "next");
    replica.stop().await;
}

#[tokio::test]
async fn a_token_that_ends_while_nobody_reads_closes_the_socket() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("CHAT_QUEUE_BYTES", "4000000")]).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let keys = Keys::new(&world.settings("keys", &[]).auth);
    let identity = keys.check(Purpose::Access, &ann.token, 0).unwrap();
    let client = replica.client_of(&ann);
    // More than all buffers of the kernel take.
    let (path, body) = (format!("/api/sessions/{id}/messages"), json!({"content": "x".repeat(15_000)}));
    for _ in 0..40 {
        let stored = join_all((0..10).map(|_| client.post(&path, &body))).await;
        assert!(stored.iter().all(|answer| answer.status == 201), "{stored:?}");
    }
    let now_s = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed();
    let brief = keys.sign(Purpose::Access, &Identity { expires_at: now_s + 4, ..identity });
    let mut late = Socket::open_with_small_buffers_since(&replica, &id, &brief, 0).await;
    let ops = Client::new(replica.ops_addr);
    until("the socket is closed for its token", Duration::from_secs(10), async || {
        ops.get("/metrics").await.text.contains(r#"chat_closes_total{code="4401"} 1"#)
    })
    .await;
    // What had been queued still comes to one who reads on.
    let (messages, code) = late.rest().await;
    assert_eq!(offsets(&messages), (1..=messages.len().try_into().unwrap()).collect::<Vec<_>>());
    assert_eq!(code, Some(4401));
    replica.stop().await;
}

#[tokio::test]
async fn a_ping_of_the_protocol_is_answered_and_so_is_a_close() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let mut socket = Socket::open_raw(&replica, &id, &ann.token).await;
    socket.send(PING).await;
    assert!(socket.hears(PONG, Duration::from_secs(5)).await);
    socket.send(CLOSE).await;
    assert_eq!(socket.close_code(Duration::from_secs(5)).await, Some(1000));
    replica.stop().await;
}

#[tokio::test]
async fn a_member_whose_message_takes_long_to_be_stored_is_not_taken_for_silent() {
    let world = World::start().await;
    let settings = &[("CHAT_PING_PERIOD", "1"), ("CHAT_PONG_WAIT", "2")];
    let replica = world.replica_with("web-1", settings).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let mut socket = Socket::open(&replica, &id, &ann.token).await;
    let mut locker = world.postgres.connect(&world.database).await;
    locker.execute("BEGIN; SELECT 1 FROM sessions FOR UPDATE").await.unwrap();
    socket.send_message("c1", "held back").await;
    // It answers the pings meanwhile, longer than silence may last.
    let early = tokio::time::timeout(Duration::from_secs(5), socket.frame("ack")).await;
    assert!(early.is_err(), "{early:?}");
    locker.execute("COMMIT").await.unwrap();
    assert_eq!(socket.frame("ack").await["offset"], 1);
    // And it still does once its frames are read again.
    let never = tokio::time::timeout(Duration::from_secs(4), socket.frame("never")).await;
    assert!(never.is_err(), "{never:?}");
    replica.stop().await;
}

#[tokio::test]
async fn a_bad_query_is_422_and_who_may_not_connect_is_told_that_first() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let path = format!("/ws/chat/session/{id}/?token={}", ann.token);
    let client = replica.client();
    client.get(&format!("{path}&since=1&since=2")).await.assert_problem(422, "unprocessable");
    client.get(&format!("{path}&since=x")).await.assert_problem(422, "unprocessable");
    let stranger = format!("/ws/chat/session/{id}/?token=nonsense&since=x");
    client.get(&stranger).await.assert_problem(401, "unauthorized");
    replica.stop().await;
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_told_what_to_do() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let path = format!("/ws/chat/session/{id}/?token={}", ann.token);
    let plain = replica.client().get(&path).await;
    plain.assert_problem(426, "upgrade-required");
    assert_eq!((plain.header("upgrade"), plain.header("sec-websocket-version")), ("websocket", "13"));
    let old = replica.client().with_header("Connection", "upgrade").with_header("Upgrade", "websocket");
    let old = old.with_header("Sec-WebSocket-Version", "8").get(&path).await;
    old.assert_problem(426, "upgrade-required");
    replica.stop().await;
}

#[tokio::test]
async fn a_socket_whose_login_was_ended_sends_nothing_more() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let mut socket = Socket::open(&replica, &id, &ann.token).await;
    assert_eq!(replica.client_of(&ann).post("/api/auth/logout", &json!({})).await.status, 204);
    socket.send_message("late", "from nobody").await;
    assert_eq!(socket.closed().await.0, 4401);
    replica.stop().await;
}

#[tokio::test]
async fn an_ended_login_stays_ended_when_redis_and_all_replicas_are_new() {
    let mut world = World::start().await;
    let one = world.replica("web-1").await;
    let ann = world.user("ann").await;
    assert_eq!(one.client_of(&ann).post("/api/auth/logout", &json!({})).await.status, 204);
    one.stop().await;
    world.redis_kill().await;
    world.redis_restart().await;
    let two = world.replica("web-2").await;
    two.client_of(&ann).get("/api/users/me").await.assert_problem(401, "unauthorized");
    two.stop().await;
}

#[tokio::test]
async fn an_ended_login_is_told_to_the_other_replicas_at_once() {
    let world = World::start().await;
    let (one, two) = (world.replica("web-1").await, world.replica("web-2").await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let login = async |user: &User| -> String {
        let logins = one.client_of(user).get("/api/auth/logins").await;
        logins.at("/items/0/id").as_str().unwrap().to_owned()
    };
    let redis = redis::Client::open(format!("redis://127.0.0.1:{}", world.redis.port)).unwrap();
    let mut heard = redis.get_async_pubsub().await.unwrap();
    heard.subscribe("arena:ended").await.unwrap();
    let of_ann = login(&ann).await;
    assert_eq!(two.client_of(&ann).post("/api/auth/logout", &json!({})).await.status, 204);
    let told: String = heard.on_message().next().await.unwrap().get_payload().unwrap();
    assert!(told.starts_with(&of_ann), "{told}");
    // Said once and written down nowhere: only who listens can know it.
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let _: () = redis.publish("arena:ended", format!("{} {now}", login(&bob).await)).await.unwrap();
    for replica in [&one, &two] {
        until("the replica has heard of it", Duration::from_secs(10), async || {
            replica.client_of(&bob).get("/api/users/me").await.status == 401
        })
        .await;
    }
    one.stop().await;
    two.stop().await;
}
