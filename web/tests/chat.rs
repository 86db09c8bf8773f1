//! Chat over WebSockets with real Postgres and Redis: several replicas, lost connections, lost publications.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod socket;
mod world;

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use redis::AsyncCommands as _;
use serde_json::json;
use socket::{Socket, offsets};
use web::auth::{Identity, Keys, Purpose};
use web::logic::envelope::{self, Envelope};
use web::logic::frames::ServerFrame;
use web::logic::message::Message;
use world::{Replica, User, World};

/// Offsets are compared often, so that tests of losses are quick.
const EAGER: &[(&str, &str)] = &[("CHAT_COMPARE_PERIOD", "300"), ("RESPONDER_PACE", "2")];

/// A public session that all of `users` are members of; gives its id.
async fn session(replica: &Replica, users: &[&User]) -> String {
    let owner = replica.client_of(users[0]);
    let made = owner.post("/api/sessions", &json!({"title": "room", "visibility": "public"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.at("/id").as_str().unwrap().to_owned();
    for user in &users[1..] {
        let joined = replica.client_of(user).post(&format!("/api/sessions/{id}/join"), &json!({})).await;
        assert!(joined.status < 300, "{joined:?}");
    }
    id
}

#[tokio::test]
async fn a_message_reaches_members_of_every_replica_in_order() {
    let world = World::start().await;
    let (one, two) = (world.replica("web-1").await, world.replica("web-2").await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let id = session(&one, &[&ann, &bob]).await;
    let mut at_one = Socket::open(&one, &id, &ann.token).await;
    let mut at_two = Socket::open(&two, &id, &bob.token).await;
    assert_eq!(at_one.welcome["served_by"], "web-1");
    assert_eq!(at_two.welcome["served_by"], "web-2");
    assert_eq!(at_two.welcome["offset"], 0);

    for n in 0..50 {
        let sender = if n % 2 == 0 { &mut at_one } else { &mut at_two };
        sender.send_message(&format!("c{n}"), &format!("message {n}")).await;
    }
    for socket in [&mut at_one, &mut at_two] {
        let messages = socket.messages(50).await;
        assert_eq!(offsets(&messages), (1..=50).collect::<Vec<_>>());
        assert!(messages[0]["ct"].is_string(), "members read what they saw: {}", messages[0]);
        assert!(messages[0]["author"]["username"].is_string());
    }
    // A message by HTTP comes the same way.
    let path = format!("/api/sessions/{id}/messages");
    let stored = two.client_of(&ann).post(&path, &json!({"content": "by http"})).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    assert_eq!(at_one.messages(1).await[0]["content"], "by http");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_forbids_a_socket_is_said_before_the_upgrade() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let (ann, eve) = (world.user("ann").await, world.user("eve").await);
    let id = session(&replica, &[&ann]).await;
    let path = format!("/ws/chat/session/{id}/");
    let client = replica.client();
    client.get(&path).await.assert_problem(401, "unauthorized");
    client.get(&format!("{path}?token=nonsense")).await.assert_problem(401, "unauthorized");
    client.get(&format!("{path}?token={}", eve.token)).await.assert_problem(403, "forbidden");
    client.get(&format!("/ws/chat/session/none/?token={}", ann.token)).await.assert_problem(404, "not-found");
    client.get(&format!("{path}?token={}&since=-1", ann.token)).await.assert_problem(422, "unprocessable");
    let plain = client.get(&format!("{path}?token={}", ann.token)).await;
    assert!((400..500).contains(&plain.status), "no upgrade was asked for: {plain:?}");
    // A ticket is good once.
    let ticket = replica.client_of(&ann).post("/api/auth/ws-ticket", &json!({})).await;
    let ticket = ticket.at("/ticket").as_str().unwrap().to_owned();
    Socket::open(&replica, &id, &ticket).await.close().await;
    client.get(&format!("{path}?token={ticket}")).await.assert_problem(401, "unauthorized");
    replica.stop().await;
}

#[tokio::test]
async fn bad_frames_get_error_frames_and_the_socket_stays() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let id = session(&replica, &[&ann]).await;
    let mut socket = Socket::open(&replica, &id, &ann.token).await;
    for (sent, code) in [
        ("{", "bad_json"),
        (r#"{"type":"dance"}"#, "unknown_type"),
        (r#"{"type":"message.send","client_msg_id":"c","content":" "}"#, "bad_content"),
        (r#"{"type":"auth.refresh","token":"x"}"#, "unauthorized"),
    ] {
        socket.send_text(sent).await;
        assert_eq!(socket.frame("error").await["code"], code, "{sent}");
    }
    socket.send(&json!({"type": "ping"})).await;
    socket.frame("pong").await;
    socket.send(&json!({"type": "auth.refresh", "token": ann.token})).await;
    socket.send_message("c1", "still here").await;
    assert_eq!(socket.frame("ack").await["offset"], 1);
    // A frame over 64 KiB ends it.
    socket.send_text(&"x".repeat(70_000)).await;
    assert_eq!(socket.closed().await.0, 1009);
    replica.stop().await;
}

#[tokio::test]
async fn the_same_client_msg_id_is_stored_once_and_answered_by_the_first_ack() {
    let world = World::start().await;
    let (one, two) = (world.replica("web-1").await, world.replica("web-2").await);
    let ann = world.user("ann").await;
    let id = session(&one, &[&ann]).await;
    let mut first = Socket::open(&one, &id, &ann.token).await;
    first.send_message("same", "once").await;
    assert_eq!(first.frame("ack").await["offset"], 1);
    let mut second = Socket::open(&two, &id, &ann.token).await;
    second.send_message("same", "once").await;
    assert_eq!(second.frame("ack").await["offset"], 1);
    second.send_message("same", "twice").await;
    let error = second.frame("error").await;
    assert_eq!((&error["code"], &error["client_msg_id"]), (&json!("idempotency-mismatch"), &json!("same")));
    second.send_message("next", "two").await;
    assert_eq!(offsets(&first.messages(2).await), [1, 2]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_member_that_comes_back_with_since_on_another_replica_misses_nothing() {
    let world = World::start().await;
    let (one, two) = (world.replica("web-1").await, world.replica("web-2").await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let id = session(&one, &[&ann, &bob]).await;
    let mut sender = Socket::open(&one, &id, &ann.token).await;
    let mut reader = Socket::open(&one, &id, &bob.token).await;
    sender.send_message("c0", "first").await;
    assert_eq!(offsets(&reader.messages(1).await), [1]);
    reader.close().await;
    // More than one page of the past, and more while it is read.
    let path = format!("/api/sessions/{id}/messages");
    let client = two.client_of(&ann);
    for n in 0..230 {
        client.post(&path, &json!({"content": format!("missed {n}")})).await;
    }
    let mut reader = Socket::open_since(&two, &id, &bob.token, 1).await;
    assert_eq!(reader.welcome["resumed"], true);
    assert_eq!(reader.welcome["offset"], 231);
    for n in 0..20 {
        sender.send_message(&format!("l{n}"), "live").await;
    }
    assert_eq!(offsets(&reader.messages(250).await), (2..=251).collect::<Vec<_>>());
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn redis_killed_and_restarted_empty_loses_nothing() {
    let mut world = World::start().await;
    let (one, two) = (world.replica_with("web-1", EAGER).await, world.replica_with("web-2", EAGER).await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let id = session(&one, &[&ann, &bob]).await;
    let mut at_one = Socket::open(&one, &id, &ann.token).await;
    let mut at_two = Socket::open(&two, &id, &bob.token).await;
    let mut sent = 0;
    let mut send = async |socket: &mut Socket, count: usize| {
        for _ in 0..count {
            sent += 1;
            socket.send_message(&format!("c{sent}"), "x").await;
            socket.ack(&format!("c{sent}")).await;
        }
    };
    send(&mut at_one, 5).await;
    world.redis_kill().await;
    send(&mut at_one, 10).await;
    assert_eq!(offsets(&at_two.messages(15).await), (1..=15).collect::<Vec<_>>(), "without Redis");
    world.redis_restart().await;
    send(&mut at_two, 10).await;
    send(&mut at_one, 10).await;
    assert_eq!(offsets(&at_two.messages(20).await), (16..=35).collect::<Vec<_>>());
    assert_eq!(offsets(&at_one.messages(35).await), (1..=35).collect::<Vec<_>>());
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_frozen_redis_delays_messages_and_loses_none() {
    let world = World::start().await;
    let (one, two) = (world.replica_with("web-1", EAGER).await, world.replica_with("web-2", EAGER).await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let id = session(&one, &[&ann, &bob]).await;
    let mut sender = Socket::open(&one, &id, &ann.token).await;
    let mut reader = Socket::open(&two, &id, &bob.token).await;
    // Connections stay open and nothing is answered: nobody is told that anything is wrong.
    world.redis.freeze();
    for n in 1..=10 {
        sender.send_message(&format!("c{n}"), "x").await;
        sender.ack(&format!("c{n}")).await;
    }
    assert_eq!(offsets(&reader.messages(10).await), (1..=10).collect::<Vec<_>>());
    world.redis.thaw();
    for n in 11..=20 {
        sender.send_message(&format!("c{n}"), "x").await;
    }
    assert_eq!(offsets(&reader.messages(10).await), (11..=20).collect::<Vec<_>>());
    assert_eq!(offsets(&sender.messages(20).await), (1..=20).collect::<Vec<_>>());
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_member_that_is_too_slow_is_closed_with_4408_and_resumes() {
    let world = World::start().await;
    let settings =
        &[("CHAT_QUEUE_BYTES", "65536"), ("CHAT_RATE_BURST", "100000"), ("CHAT_RATE_PER_S", "100000")];
    let replica = world.replica_with("web-1", settings).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let id = session(&replica, &[&ann, &bob]).await;
    let mut slow = Socket::open_with_small_buffers(&replica, &id, &bob.token).await;
    let mut sender = Socket::open(&replica, &id, &ann.token).await;
    // The kernel's buffers take some; 15 KiB each, until the queue overflows. The sender waits for its own copy of each:
    // acks overtake those, and its queue is as short.
    const COUNT: usize = 400;
    let content = "x".repeat(15_000);
    for n in 0..COUNT {
        sender.send_message(&format!("c{n}"), &content).await;
        sender.ack(&format!("c{n}")).await;
        sender.messages(1).await;
    }
    let (messages, code) = slow.rest().await;
    assert_eq!(code, Some(4408));
    let got = offsets(&messages);
    assert_eq!(got, (1..=got.len() as i64).collect::<Vec<_>>(), "what came was without gaps");
    assert!(got.len() < COUNT);
    let mut back = Socket::open_since(&replica, &id, &bob.token, got.len() as i64).await;
    let rest = offsets(&back.messages(COUNT - got.len()).await);
    assert_eq!(rest, (got.len() as i64 + 1..=COUNT as i64).collect::<Vec<_>>());
    replica.stop().await;
}

#[tokio::test]
async fn a_flood_is_refused_and_then_closed_with_4429() {
    let world = World::start().await;
    let settings = &[("CHAT_RATE_BURST", "5"), ("CHAT_RATE_PER_S", "1")];
    let replica = world.replica_with("web-1", settings).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &[&ann]).await;
    let mut socket = Socket::open(&replica, &id, &ann.token).await;
    for _ in 0..100 {
        socket.try_send(&json!({"type": "ping"})).await;
    }
    let first = socket.frame("error").await;
    assert_eq!(first["code"], "rate_limit");
    assert_eq!(socket.closed().await.0, 4429);
    replica.stop().await;
}

#[tokio::test]
async fn a_removed_member_is_closed_with_4403_on_every_replica() {
    let world = World::start().await;
    let (one, two) = (world.replica("web-1").await, world.replica("web-2").await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let id = session(&one, &[&ann, &bob]).await;
    let mut at_one = Socket::open(&one, &id, &bob.token).await;
    let mut at_two = Socket::open(&two, &id, &bob.token).await;
    let mut other = Socket::open(&two, &id, &ann.token).await;
    let path = format!("/api/sessions/{id}/members/{}", bob.id);
    assert_eq!(one.client_of(&ann).delete(&path).await.status, 204);
    assert_eq!(at_one.closed().await.0, 4403);
    assert_eq!(at_two.closed().await.0, 4403);
    other.send(&json!({"type": "ping"})).await;
    other.frame("pong").await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn silence_after_a_ping_closes_and_pongs_keep_open() {
    let world = World::start().await;
    let settings = &[("CHAT_PING_PERIOD", "1"), ("CHAT_PONG_WAIT", "3")];
    let replica = world.replica_with("web-1", settings).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &[&ann]).await;
    let mut silent = Socket::open_raw(&replica, &id, &ann.token).await;
    let mut lively = Socket::open(&replica, &id, &ann.token).await;
    // The raw one reads, but answers no ping; the other answers while it waits for what never comes.
    tokio::select! {
        code = silent.close_code(Duration::from_secs(12)) => assert_eq!(code, Some(1001)),
        frame = lively.frame("never") => panic!("{frame}"),
    }
    lively.send(&json!({"type": "ping"})).await;
    lively.frame("pong").await;
    replica.stop().await;
}

#[tokio::test]
async fn an_expired_token_closes_with_4401_unless_it_was_refreshed() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let id = session(&replica, &[&ann]).await;
    let keys = Keys::new(&world.settings("keys", &[]).auth);
    let identity = keys.check(Purpose::Access, &ann.token, 0).unwrap();
    let expires_at = identity.expires_at - 900 + 3;
    let brief = keys.sign(Purpose::Access, &Identity { expires_at, ..identity });
    let mut refreshed = Socket::open(&replica, &id, &brief).await;
    refreshed.send(&json!({"type": "auth.refresh", "token": ann.token})).await;
    let mut expired = Socket::open(&replica, &id, &brief).await;
    assert_eq!(expired.closed().await.0, 4401);
    refreshed.send(&json!({"type": "ping"})).await;
    refreshed.frame("pong").await;
    replica.stop().await;
}

#[tokio::test]
async fn what_is_no_websocket_frame_is_1002_and_text_that_is_no_utf8_is_1007() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let id = session(&replica, &[&ann]).await;
    // A text frame "hi" without a mask; one whose reserved bits are set; one with a byte that no UTF-8 has.
    for (frame, code) in [
        (&[0x81, 0x02, b'h', b'i'][..], 1002),
        (&[0xf1, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2], 1002),
        (&[0x81, 0x81, 1, 2, 3, 4, 0xff ^ 1], 1007),
    ] {
        let mut socket = Socket::open_raw(&replica, &id, &ann.token).await;
        socket.send(frame).await;
        assert_eq!(socket.close_code(Duration::from_secs(10)).await, Some(code), "{frame:x?}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn the_sockets_of_a_login_that_was_ended_end_with_it() {
    let world = World::start().await;
    let (one, two) = (
        world.replica_with("web-1", &[("CHAT_PING_PERIOD", "1")]).await,
        world.replica_with("web-2", &[("CHAT_PING_PERIOD", "1")]).await,
    );
    let ann = world.user("ann").await;
    let id = session(&one, &[&ann]).await;
    let mut socket = Socket::open(&one, &id, &ann.token).await;
    assert_eq!(two.client_of(&ann).post("/api/auth/logout", &json!({})).await.status, 204);
    assert_eq!(socket.closed().await.0, 4401);
    one.client_of(&ann).get("/api/users/me").await.assert_problem(401, "unauthorized");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn presence_counts_people_over_all_replicas_and_typing_is_shown() {
    let world = World::start().await;
    let (one, two) = (world.replica("web-1").await, world.replica("web-2").await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let id = session(&one, &[&ann, &bob]).await;
    let mut at_one = Socket::open(&one, &id, &ann.token).await;
    assert_eq!(at_one.frame("presence").await["count"], 1);
    let mut at_two = Socket::open(&two, &id, &bob.token).await;
    let news = at_one.frame("presence").await;
    assert_eq!((&news["count"], &news["joined"][0]["username"]), (&json!(2), &json!("bob")));
    at_two.send(&json!({"type": "typing"})).await;
    assert_eq!(at_one.frame("typing").await["author"]["username"], "bob");
    at_two.close().await;
    let news = at_one.frame("presence").await;
    assert_eq!((&news["count"], &news["left"][0]["username"]), (&json!(1), &json!("bob")));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_question_is_stored_and_its_answer_streams_to_the_whole_room() {
    let world = World::start().await;
    let (one, two) = (world.replica_with("web-1", EAGER).await, world.replica_with("web-2", EAGER).await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let id = session(&one, &[&ann, &bob]).await;
    let mut asker = Socket::open(&one, &id, &ann.token).await;
    let mut reader = Socket::open(&two, &id, &bob.token).await;
    asker.send(&json!({"type": "ask", "client_msg_id": "q1", "content": "What is a lease?"})).await;
    assert_eq!(asker.frame("ack").await["offset"], 1);
    let done = reader.frame("stream.done").await;
    assert_eq!(done["offset"], 2);
    let tokens = reader.seen("token");
    let messages = reader.messages(2).await;
    let text: String = tokens.iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(messages[1]["role"], "assistant");
    assert_eq!(messages[1]["content"], text);
    assert_eq!(messages[0]["id"], done["stream_id"], "a stream has the id of its question");
    assert_eq!(
        tokens.iter().map(|token| token["i"].as_u64().unwrap()).collect::<Vec<_>>(),
        (0..tokens.len() as u64).collect::<Vec<_>>()
    );
    // Asked again with the same id: no second answer.
    asker.send(&json!({"type": "ask", "client_msg_id": "q1", "content": "What is a lease?"})).await;
    asker.ack("q1").await;
    asker.send_message("c2", "and now").await;
    assert_eq!(asker.ack("c2").await["offset"], 3);
    one.stop().await;
    two.stop().await;
}

/// What happens to the publication of one message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Published,
    Lost,
    Twice,
}

/// Messages with their fates, in the order in which they are published: any.
fn publications(count: usize) -> impl Strategy<Value = Vec<(usize, Fate)>> {
    let fate = prop_oneof![Just(Fate::Published), Just(Fate::Lost), Just(Fate::Twice)];
    let fates = prop::collection::vec(fate, count);
    fates.prop_map(|fates| fates.into_iter().enumerate().collect::<Vec<_>>()).prop_shuffle()
}

#[tokio::test]
async fn messages_published_in_any_order_twice_or_never_arrive_once_and_in_order() {
    const COUNT: usize = 60;
    let world = World::start().await;
    let (one, two) = (world.replica_with("web-1", EAGER).await, world.replica_with("web-2", EAGER).await);
    // This one stores, but what it publishes reaches nobody.
    let mute = world.replica_with("web-3", &[("REDIS_PORT", "1")]).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let redis = redis::Client::open(format!("redis://127.0.0.1:{}", world.redis.port)).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let mut runner = TestRunner::deterministic();
    for _ in 0..3 {
        let id = session(&one, &[&ann, &bob]).await;
        let mut sockets =
            [Socket::open(&one, &id, &ann.token).await, Socket::open(&two, &id, &bob.token).await];
        let mut stored = Vec::new();
        for n in 0..COUNT {
            let path = format!("/api/sessions/{id}/messages");
            let answer = mute.client_of(&ann).post(&path, &json!({"content": format!("{n}")})).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            stored.push(serde_json::from_value::<Message>(answer.json).unwrap());
        }
        for (index, fate) in publications(COUNT).new_tree(&mut runner).unwrap().current() {
            let message = &stored[index];
            let frame = ServerFrame::Message(message).encode();
            let (session, offset) = (message.session_id, message.offset);
            let text = Envelope::Message { session, offset, frame: &frame }.encode();
            let channel = envelope::channel(envelope::partition(session));
            let times = [Fate::Lost, Fate::Published, Fate::Twice].iter().position(|f| *f == fate).unwrap();
            for _ in 0..times {
                let _: () = redis.publish(&channel, &text).await.unwrap();
            }
        }
        for socket in &mut sockets {
            assert_eq!(offsets(&socket.messages(COUNT).await), (1..=COUNT as i64).collect::<Vec<_>>());
        }
    }
    one.stop().await;
    two.stop().await;
    mute.stop().await;
}
