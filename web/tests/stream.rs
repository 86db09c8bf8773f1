//! Streamed answers with real Postgres and Redis: resumed on other replicas, taken over, failed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod endpoint;
mod events;
mod socket;
mod world;

use std::time::Duration;

use endpoint::Endpoint;
use events::Events;
use serde_json::json;
use socket::Socket;
use web::logic::{builtin_answer, tokens_out};
use world::{Replica, User, World, session};

const QUESTION: &str = "What is a lease, and who holds it?";

fn tokens_of(question: &str) -> Vec<String> {
    tokens_out::split(&builtin_answer::answer(question))
}

async fn ask(replica: &Replica, user: &User, session: &str, key: &str) -> Events {
    let body = json!({"session_id": session, "content": QUESTION, "client_msg_id": key});
    Events::post(&replica.client_of(user), "/messages/stream/", &body).await
}

async fn resume(replica: &Replica, user: &User, stream: &str, last: Option<&str>) -> Events {
    let mut client = replica.client_of(user);
    if let Some(last) = last {
        client = client.with_header("Last-Event-ID", last);
    }
    Events::get(&client, &format!("/messages/stream/{stream}")).await
}

#[tokio::test]
async fn a_question_sent_again_under_an_idempotency_key_is_stored_once_and_has_one_answer() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("RESPONDER_PACE", "1")]).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let body = json!({"session_id": id, "content": QUESTION});
    let client = replica.client_of(&ann).with_header("Idempotency-Key", "k1");
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut events = Events::post(&client, "/messages/stream/", &body).await;
        streams.push(events.next_of("start").await.data["stream_id"].clone());
        assert_eq!(events.tokens().await, tokens_of(QUESTION));
    }
    assert_eq!(streams[0], streams[1]);
    let path = format!("/api/sessions/{id}/messages");
    assert_eq!(client.get(&path).await.at("/items").as_array().unwrap().len(), 2, "one question, one answer");
    let other = json!({"session_id": id, "content": QUESTION, "client_msg_id": "k2"});
    let refused = client.post("/messages/stream/", &other).await;
    assert_eq!(refused.status, 422, "two names for one message: {refused:?}");
    replica.stop().await;
}

#[tokio::test]
async fn an_answer_is_sent_as_it_is_made_and_stored_when_it_is_done() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("RESPONDER_PACE", "20")]).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let mut events = ask(&replica, &ann, &id, "q1").await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    assert_eq!(events.header("x-served-by"), "web-1");
    assert!(!events.header("x-consistency-token").is_empty());
    let message = events.next_of("message").await;
    assert_eq!(message.data["content"], QUESTION);
    let start = events.next_of("start").await;
    let stream = start.data["stream_id"].as_str().unwrap().to_owned();
    let first = events.next_of("token").await;
    assert_eq!(first.id, format!("{stream}:0"));
    // The first token is here, and the answer is not stored yet: it is sent as it is made.
    let path = format!("/api/sessions/{id}/messages");
    assert_eq!(replica.client_of(&ann).get(&path).await.at("/items").as_array().unwrap().len(), 1);
    let mut text = vec![first.data["text"].as_str().unwrap().to_owned()];
    let done = loop {
        let event = events.next().await.expect("a stream ends with done");
        match event.name.as_str() {
            "token" => text.push(event.data["text"].as_str().unwrap().to_owned()),
            _ => break event,
        }
    };
    assert_eq!(done.name, "done");
    assert_eq!(text, tokens_of(QUESTION));
    assert_eq!(done.data["content"], text.concat());
    assert_eq!((&done.data["role"], &done.data["offset"]), (&json!("assistant"), &json!(2)));
    assert!(events.next().await.is_none());
    replica.stop().await;
}

#[tokio::test]
async fn a_stream_is_resumed_on_another_replica_without_a_lost_or_repeated_token() {
    let world = World::start().await;
    let settings = &[("RESPONDER_PACE", "20")];
    let (one, two) =
        (world.replica_with("web-1", settings).await, world.replica_with("web-2", settings).await);
    let ann = world.user("ann").await;
    let id = session(&one, &ann).await;
    let mut events = ask(&one, &ann, &id, "q1").await;
    let stream = events.next_of("start").await.data["stream_id"].as_str().unwrap().to_owned();
    let mut tokens = Vec::new();
    let mut last = String::new();
    for _ in 0..5 {
        let token = events.next_of("token").await;
        tokens.push(token.data["text"].as_str().unwrap().to_owned());
        last = token.id;
    }
    // The client goes away in the middle and comes back elsewhere, several times.
    drop(events);
    let mut turn = 0;
    let answer = loop {
        turn += 1;
        let replica = if turn % 2 == 1 { &two } else { &one };
        let mut events = resume(replica, &ann, &stream, Some(&last)).await;
        let mut done = None;
        for _ in 0..7 {
            let event = events.next().await.expect("the stream goes on");
            if event.name == "done" {
                done = Some(event.data);
                break;
            }
            assert_eq!(event.name, "token", "{event:?}");
            assert_eq!(event.data["i"], tokens.len());
            tokens.push(event.data["text"].as_str().unwrap().to_owned());
            last = event.id;
        }
        if let Some(done) = done {
            break done;
        }
    };
    assert_eq!(tokens, tokens_of(QUESTION));
    assert_eq!(answer["content"], tokens.concat());
    // After the end, from the record and from the start.
    let mut again = resume(&two, &ann, &stream, None).await;
    assert_eq!(again.tokens().await, tokens);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn the_answer_is_stored_though_the_client_has_gone_and_asking_again_streams_the_same() {
    let world = World::start().await;
    let settings = &[("RESPONDER_PACE", "5")];
    let (one, two) =
        (world.replica_with("web-1", settings).await, world.replica_with("web-2", settings).await);
    let ann = world.user("ann").await;
    let id = session(&one, &ann).await;
    let mut room = Socket::open(&two, &id, &ann.token).await;
    let mut events = ask(&one, &ann, &id, "q1").await;
    events.next_of("start").await;
    drop(events);
    let done = room.frame("stream.done").await;
    assert_eq!(done["offset"], 2);
    for replica in [&one, &two] {
        let mut again = ask(replica, &ann, &id, "q1").await;
        assert_eq!(again.tokens().await, tokens_of(QUESTION));
    }
    let list = one.client_of(&ann).get(&format!("/api/sessions/{id}/messages")).await;
    assert_eq!(list.at("/items").as_array().unwrap().len(), 2, "one question, one answer");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn without_redis_and_its_record_the_stored_answer_is_resumed_token_by_token() {
    let mut world = World::start().await;
    let settings = &[("RESPONDER_PACE", "5")];
    let (one, two) =
        (world.replica_with("web-1", settings).await, world.replica_with("web-2", settings).await);
    let ann = world.user("ann").await;
    let id = session(&one, &ann).await;
    world.redis_kill().await;
    let mut events = ask(&one, &ann, &id, "q1").await;
    let stream = events.next_of("start").await.data["stream_id"].as_str().unwrap().to_owned();
    let third = {
        events.next_of("token").await;
        events.next_of("token").await;
        events.next_of("token").await.id
    };
    // Made here, read there, nothing between them but Postgres.
    let mut rest = resume(&two, &ann, &stream, Some(&third)).await;
    assert_eq!(rest.tokens().await, tokens_of(QUESTION)[3..]);
    world.redis_restart().await;
    let mut rest = resume(&one, &ann, &stream, Some(&third)).await;
    assert_eq!(rest.tokens().await, tokens_of(QUESTION)[3..]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_stream_on_a_draining_replica_ends_with_what_is_needed_to_resume() {
    let world = World::start().await;
    let slow = &[("RESPONDER_PACE", "400"), ("DRAIN_TIMEOUT", "6")];
    let one = world.replica_with("web-1", slow).await;
    let two = world.replica_with("web-2", &[("RESPONDER_PACE", "1")]).await;
    let ann = world.user("ann").await;
    let id = session(&one, &ann).await;
    let mut events = ask(&one, &ann, &id, "q1").await;
    let stream = events.next_of("start").await.data["stream_id"].as_str().unwrap().to_owned();
    one.begin_stop();
    let mut tokens = Vec::new();
    let mut last = None;
    // It goes on for a while, then ends without done.
    while let Some(event) = events.next().await {
        assert_eq!(event.name, "token");
        tokens.push(event.data["text"].as_str().unwrap().to_owned());
        last = Some(event.id);
    }
    assert!(events.comments.iter().any(|comment| comment.contains("Last-Event-ID")), "{:?}", events.comments);
    assert!(tokens.len() < tokens_of(QUESTION).len());
    // Its maker is cut off at the end of the drain; the other replica takes over and finishes it.
    let mut rest = resume(&two, &ann, &stream, last.as_deref()).await;
    tokens.extend(rest.tokens().await);
    assert_eq!(tokens, tokens_of(QUESTION));
    one.ended().await;
    two.stop().await;
}

#[tokio::test]
async fn a_question_that_reaches_a_draining_replica_is_taken_and_its_answer_goes_on_elsewhere() {
    let world = World::start().await;
    // Others may still ask here for as long as DRAIN_DELAY lasts: the balancer has not noticed yet.
    let drain = &[("RESPONDER_PACE", "400"), ("DRAIN_DELAY", "4"), ("DRAIN_TIMEOUT", "2")];
    let one = world.replica_with("web-1", drain).await;
    let two = world.replica_with("web-2", &[("RESPONDER_PACE", "1")]).await;
    let ann = world.user("ann").await;
    let id = session(&one, &ann).await;
    one.begin_stop();
    let client = one.client();
    world::programs::until("the replica says that it drains", Duration::from_secs(2), async || {
        client.get("/health").await.status == 503
    })
    .await;
    let mut events = ask(&one, &ann, &id, "q1").await;
    assert_eq!(events.header("x-served-by"), "web-1");
    assert_eq!(events.next_of("message").await.data["offset"], 1);
    let stream = events.next_of("start").await.data["stream_id"].as_str().unwrap().to_owned();
    let (mut tokens, mut last) = (Vec::new(), None);
    while let Some(event) = events.next().await {
        assert_eq!(event.name, "token");
        tokens.push(event.data["text"].as_str().unwrap().to_owned());
        last = Some(event.id);
    }
    assert!(!tokens.is_empty() && tokens.len() < tokens_of(QUESTION).len(), "it was begun here: {tokens:?}");
    let mut rest = resume(&two, &ann, &stream, last.as_deref()).await;
    tokens.extend(rest.tokens().await);
    assert_eq!(tokens, tokens_of(QUESTION));
    one.ended().await;
    two.stop().await;
}

#[tokio::test]
async fn what_is_no_stream_is_not_found_and_strangers_are_kept_out() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("STREAM_KEEP", "1"), ("RESPONDER_PACE", "1")]).await;
    let (ann, eve) = (world.user("ann").await, world.user("eve").await);
    let id = session(&replica, &ann).await;
    let client = replica.client_of(&ann);
    client.get("/messages/stream/nonsense").await.assert_problem(404, "not-found");
    let nowhere = "/messages/stream/0198c0de-0000-7000-8000-000000000000";
    client.get(nowhere).await.assert_problem(404, "not-found");
    let plain =
        client.post(&format!("/api/sessions/{id}/messages"), &json!({"content": "no question"})).await;
    let plain = plain.at("/id").as_str().unwrap().to_owned();
    client.get(&format!("/messages/stream/{plain}")).await.assert_problem(404, "not-found");
    replica.client().post("/messages/stream/", &json!({})).await.assert_problem(401, "unauthorized");
    let question = json!({"session_id": id, "content": QUESTION});
    replica.client_of(&eve).post("/messages/stream/", &question).await.assert_problem(403, "forbidden");
    client
        .post("/messages/stream/", &json!({"session_id": id, "content": " "}))
        .await
        .assert_problem(422, "unprocessable");
    client
        .post("/messages/stream/", &json!({"session_id": "none", "content": "x"}))
        .await
        .assert_problem(404, "not-found");
    let mut events = Events::post(&client, "/api/messages/stream/", &question).await;
    let stream = events.next_of("start").await.data["stream_id"].as_str().unwrap().to_owned();
    events.next_of("done").await;
    let path = format!("/messages/stream/{stream}");
    replica.client_of(&eve).get(&path).await.assert_problem(403, "forbidden");
    let bad = client.clone().with_header("Last-Event-ID", "other:1");
    bad.get(&path).await.assert_problem(422, "unprocessable");
    // STREAM_KEEP is one second here.
    world::programs::until("the stream is forgotten", std::time::Duration::from_secs(5), async || {
        client.get(&path).await.status == 404
    })
    .await;
    replica.stop().await;
}

#[tokio::test]
async fn a_silent_stream_sends_comments() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("STREAM_HEARTBEAT", "1"), ("RESPONDER_PACE", "2500")]).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let mut events = ask(&replica, &ann, &id, "q1").await;
    events.next_of("token").await;
    assert!(!events.comments.is_empty());
    drop(events);
    drop(replica);
}

#[tokio::test]
async fn an_openai_endpoint_answers_with_the_history_and_the_key() {
    let world = World::start().await;
    let endpoint = Endpoint::start(&["Hello ", "wor", "ld, how ", "are you?"], endpoint::Ending::Done).await;
    let url = endpoint.url();
    let settings: &[(&str, &str)] = &[
        ("RESPONDER", "openai"),
        ("RESPONDER_URL", &url),
        ("RESPONDER_API_KEY", "sk-test"),
        ("RESPONDER_MODEL", "m1"),
    ];
    let replica = world.replica_with("web-1", settings).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let client = replica.client_of(&ann);
    client.post(&format!("/api/sessions/{id}/messages"), &json!({"content": "before"})).await;
    let mut events = ask(&replica, &ann, &id, "q1").await;
    assert_eq!(events.tokens().await, ["Hello", " world,", " how", " are", " you?"]);
    let request = endpoint.requests().remove(0);
    assert_eq!(request.path, "/v1/chat/completions");
    assert_eq!(request.authorization, "Bearer sk-test");
    assert_eq!((&request.body["model"], &request.body["stream"]), (&json!("m1"), &json!(true)));
    assert_eq!(
        request.body["messages"],
        json!([{"role": "user", "content": "before"}, {"role": "user", "content": QUESTION}])
    );
    replica.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_gives_an_error_event_and_stores_nothing() {
    let world = World::start().await;
    for ending in [endpoint::Ending::BreakOff, endpoint::Ending::Refuse, endpoint::Ending::Silence] {
        let endpoint = Endpoint::start(&["Hel"], ending).await;
        let url = endpoint.url();
        let settings: &[(&str, &str)] =
            &[("RESPONDER", "openai"), ("RESPONDER_URL", &url), ("RESPONDER_TIMEOUT", "1")];
        let replica = world.replica_with("web-1", settings).await;
        let name = format!("{ending:?}").to_lowercase();
        let ann = world.user(&name).await;
        let id = session(&replica, &ann).await;
        let mut events = ask(&replica, &ann, &id, "q1").await;
        let error = events.next_of("error").await;
        assert_eq!(error.data["type"], "urn:arena:problem:responder-failed", "{name}");
        assert!(events.next().await.is_none());
        let list = replica.client_of(&ann).get(&format!("/api/sessions/{id}/messages")).await;
        assert_eq!(list.at("/items").as_array().unwrap().len(), 1, "{name}");
        replica.stop().await;
    }
}
