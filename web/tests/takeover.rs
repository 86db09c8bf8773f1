//! Answers whose maker is killed in the middle, as a process with `kill -9`: another replica goes on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod endpoint;
mod events;
mod socket;
mod world;

use std::time::{Duration, Instant};

use endpoint::{Ending, Endpoint};
use events::Events;
use futures_util::future::join_all;
use serde_json::json;
use socket::{Socket, offsets};
use sqlx::Executor as _;
use web::logic::{builtin_answer, tokens_out};
use world::process::Process;
use world::programs::until;
use world::{Client, World};

const QUESTION: &str = "What is a lease, and who holds it?";
/// What the issue allows from the death of the maker to the next token.
const TAKEOVER_MAX: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(20);

async fn session(client: &Client) -> String {
    let made = client.post("/api/sessions", &json!({"title": "room"})).await;
    made.at("/id").as_str().unwrap().to_owned()
}

async fn ask(client: &Client, session: &str) -> (Events, String) {
    let body = json!({"session_id": session, "content": QUESTION, "client_msg_id": "q1"});
    let mut events = Events::post(client, "/messages/stream/", &body).await;
    let stream = events.next_of("start").await.data["stream_id"].as_str().unwrap().to_owned();
    (events, stream)
}

#[tokio::test]
async fn another_replica_takes_over_within_three_seconds_and_no_token_is_lost_or_comes_twice() {
    let world = World::start().await;
    let pace = &[("RESPONDER_PACE", "60")];
    let survivor = world.replica_with("web-2", pace).await;
    let ann = world.user("ann").await;
    let maker = Process::start(&world, "web-1", pace).await;
    let id = session(&maker.client_of(&ann)).await;
    let (mut events, stream) = ask(&maker.client_of(&ann), &id).await;
    let path = format!("/messages/stream/{stream}");
    let mut elsewhere = Events::get(&survivor.client_of(&ann), &path).await;
    let (mut tokens, mut last) = (Vec::new(), String::new());
    for _ in 0..4 {
        let token = events.next_of("token").await;
        tokens.push(token.data["text"].as_str().unwrap().to_owned());
        last = token.id;
    }
    maker.kill();
    let killed = Instant::now();
    assert!(events.next().await.is_none_or(|event| event.name == "token"), "the connection breaks");
    // The client that was cut off resumes elsewhere; the one that reads there waits.
    let client = survivor.client_of(&ann).with_header("Last-Event-ID", &last);
    let mut resumed = Events::get(&client, &path).await;
    let next = loop {
        // What the maker had recorded comes at once; what it had not is made anew.
        let token = resumed.next_of("token").await;
        tokens.push(token.data["text"].as_str().unwrap().to_owned());
        if token.data["i"].as_u64().unwrap() >= 8 {
            break killed.elapsed();
        }
    };
    tokens.extend(resumed.tokens().await);
    let whole = tokens_out::split(&builtin_answer::answer(QUESTION));
    assert_eq!(tokens, whole);
    assert_eq!(elsewhere.tokens().await, whole);
    // Some tokens at 60 ms each are in that time.
    assert!(next <= TAKEOVER_MAX + Duration::from_millis(600), "{next:?}");
    let list = survivor.client_of(&ann).get(&format!("/api/sessions/{id}/messages")).await;
    assert_eq!(list.at("/items").as_array().unwrap().len(), 2, "one question, one answer");
    survivor.stop().await;
}

#[tokio::test]
async fn a_question_that_was_acknowledged_is_answered_though_its_replica_is_killed_at_once() {
    let world = World::start().await;
    let pace = &[("RESPONDER_PACE", "60")];
    let survivor = world.replica_with("web-2", pace).await;
    let ann = world.user("ann").await;
    let maker = Process::start(&world, "web-1", pace).await;
    let id = session(&maker.client_of(&ann)).await;
    let mut member = Socket::open(&survivor, &id, &ann.token).await;
    let mut asker = Socket::open_to(maker.addr, &id, &ann.token).await;
    // The answer cannot be entered at once: the question is stored, and nobody else knows that it is one.
    world.redis.pause(Duration::from_millis(400)).await;
    asker.send(&json!({"type": "ask", "client_msg_id": "q1", "content": QUESTION})).await;
    asker.ack("q1").await;
    maker.kill();
    assert_eq!(member.messages(2).await[1]["content"], builtin_answer::answer(QUESTION));
    survivor.stop().await;
}

#[tokio::test]
async fn a_question_is_acknowledged_and_answered_while_redis_is_frozen() {
    let world = World::start().await;
    let settings = &[("RESPONDER_PACE", "1"), ("CHAT_COMPARE_PERIOD", "500")];
    let replica = world.replica_with("web-1", settings).await;
    let ann = world.user("ann").await;
    let id = session(&replica.client_of(&ann)).await;
    let mut asker = Socket::open(&replica, &id, &ann.token).await;
    world.redis.freeze();
    asker.send(&json!({"type": "ask", "client_msg_id": "q1", "content": QUESTION})).await;
    assert_eq!(asker.ack("q1").await["offset"], 1);
    assert_eq!(asker.messages(2).await[1]["content"], builtin_answer::answer(QUESTION));
    world.redis.thaw();
    replica.stop().await;
}

#[tokio::test]
async fn a_stream_that_redis_lost_is_found_once_its_maker_has_entered_it_again() {
    let world = World::start().await;
    let pace = &[("RESPONDER_PACE", "60")];
    let other = world.replica_with("web-2", pace).await;
    let ann = world.user("ann").await;
    let maker = Process::start(&world, "web-1", pace).await;
    let id = session(&maker.client_of(&ann)).await;
    let (mut events, stream) = ask(&maker.client_of(&ann), &id).await;
    events.next_of("token").await;
    // Its maker lives and has not noticed yet.
    maker.freeze().await;
    world.redis.lose_all().await;
    let looks = world.redis.calls("hgetall").await;
    let (client, path) = (other.client_of(&ann), format!("/messages/stream/{stream}"));
    let (mut resumed, ()) = tokio::join!(Events::get(&client, &path), async {
        until("the record is looked for", SOON, async || world.redis.calls("hgetall").await > looks).await;
        maker.thaw();
    });
    assert_eq!(resumed.tokens().await, tokens_out::split(&builtin_answer::answer(QUESTION)));
    other.stop().await;
}

#[tokio::test]
async fn many_answers_of_one_maker_that_was_killed_are_all_ended_once() {
    const COUNT: i64 = 60;
    let world = World::start().await;
    let pace = &[("RESPONDER_PACE", "100")];
    let survivor = world.replica_with("web-2", pace).await;
    let ann = world.user("ann").await;
    let maker = Process::start(&world, "web-1", pace).await;
    let client = maker.client_of(&ann);
    let id = session(&client).await;
    let asked = (0..COUNT).map(|number| {
        let body = json!({"session_id": id, "content": QUESTION, "client_msg_id": format!("q{number}")});
        let client = &client;
        async move {
            let mut events = Events::post(client, "/messages/stream/", &body).await;
            events.next_of("token").await;
            events
        }
    });
    let events = join_all(asked).await;
    maker.kill();
    drop(events);
    let sql = "SELECT count(*), count(DISTINCT client_msg_id) FILTER (WHERE content = $1)
                 FROM messages WHERE role = 'assistant'";
    until("every question has a whole answer of its own", SOON, async || {
        let mut database = world.postgres.connect(&world.database).await;
        let found = sqlx::query_as(sql).bind(builtin_answer::answer(QUESTION)).fetch_one(&mut database);
        let (all, whole): (i64, i64) = found.await.unwrap();
        (all, whole) == (COUNT, COUNT)
    })
    .await;
    survivor.stop().await;
}

#[tokio::test]
async fn a_maker_that_stood_still_and_comes_back_shows_the_room_no_token_again() {
    let world = World::start().await;
    let pace = &[("RESPONDER_PACE", "60")];
    let other = world.replica_with("web-2", pace).await;
    let ann = world.user("ann").await;
    let maker = Process::start(&world, "web-1", pace).await;
    let id = session(&maker.client_of(&ann)).await;
    let mut member = Socket::open(&other, &id, &ann.token).await;
    let (mut events, _) = ask(&maker.client_of(&ann), &id).await;
    let mut indices = Vec::new();
    while indices.len() < 4 {
        indices.push(member.frame("token").await["i"].as_u64().unwrap());
    }
    maker.freeze().await;
    // What was under way, and then what the other replica makes.
    while indices.last().is_none_or(|last| *last < 20) {
        indices.push(member.frame("token").await["i"].as_u64().unwrap());
    }
    maker.thaw();
    member.frame("stream.done").await;
    events.next_of("done").await;
    indices.extend(member.seen("token").iter().map(|token| token["i"].as_u64().unwrap()));
    let whole = tokens_out::split(&builtin_answer::answer(QUESTION)).len() as u64;
    assert_eq!(indices, (0..whole).collect::<Vec<u64>>());
    other.stop().await;
}

#[tokio::test]
async fn the_room_hears_once_of_an_answer_whose_maker_stood_still_when_it_was_stored() {
    let world = World::start().await;
    let other = world.replica_with("web-2", &[("CHAT_COMPARE_PERIOD", "60000")]).await;
    let ann = world.user("ann").await;
    let maker = Process::start(&world, "web-1", &[("RESPONDER_PACE", "60")]).await;
    let id = session(&maker.client_of(&ann)).await;
    let mut member = Socket::open(&other, &id, &ann.token).await;
    let (mut events, _) = ask(&maker.client_of(&ann), &id).await;
    member.frame("token").await;
    // The lock holds the answer's commit back until its maker stands still.
    let mut locker = world.postgres.connect(&world.database).await;
    locker.execute("BEGIN; SELECT 1 FROM sessions FOR UPDATE").await.unwrap();
    let holds = async |sql: &'static str| -> bool {
        sqlx::query_scalar(sql).fetch_one(&mut world.postgres.connect(&world.database).await).await.unwrap()
    };
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')";
    until("the answer waits for the lock", SOON, async || holds(waits).await).await;
    maker.freeze().await;
    locker.execute("COMMIT").await.unwrap();
    assert_eq!(member.frame("stream.done").await["offset"], 2, "told by the replica that took over");
    assert_eq!(offsets(&member.messages(2).await), [1, 2]);
    maker.thaw();
    events.next_of("done").await;
    let path = format!("/api/sessions/{id}/messages");
    maker.client_of(&ann).post(&path, &json!({"content": "and now?"})).await;
    assert_eq!(offsets(&member.messages(1).await), [3]);
    assert_eq!(member.seen("stream.done").len(), 0, "not a second time by the maker");
    other.stop().await;
}

#[tokio::test]
async fn an_endpoints_answer_whose_maker_was_killed_ends_with_an_error_and_asking_again_gives_a_whole_one() {
    let world = World::start().await;
    let silent = Endpoint::start(&["one ", "two ", "thr"], Ending::Silence).await;
    let whole = Endpoint::start(&["one ", "two ", "three"], Ending::Done).await;
    let (silent_url, whole_url) = (silent.url(), whole.url());
    let survivor =
        world.replica_with("web-2", &[("RESPONDER", "openai"), ("RESPONDER_URL", &whole_url)]).await;
    let ann = world.user("ann").await;
    let settings = [("RESPONDER", "openai"), ("RESPONDER_URL", silent_url.as_str())];
    let maker = Process::start(&world, "web-1", &settings).await;
    let id = session(&maker.client_of(&ann)).await;
    let (mut events, stream) = ask(&maker.client_of(&ann), &id).await;
    events.next_of("token").await;
    let path = format!("/messages/stream/{stream}");
    let mut elsewhere = Events::get(&survivor.client_of(&ann), &path).await;
    elsewhere.next_of("token").await;
    maker.kill();
    let killed = Instant::now();
    let error = elsewhere.next_of("error").await;
    assert!(killed.elapsed() <= TAKEOVER_MAX + Duration::from_millis(500), "{:?}", killed.elapsed());
    assert!(error.data["detail"].as_str().unwrap().contains("ask again"), "{error:?}");
    // The same question again: answered anew, from the first token, on every replica.
    let (mut again, _) = ask(&survivor.client_of(&ann), &id).await;
    assert_eq!(again.tokens().await, ["one", " two", " three"]);
    let mut resumed = Events::get(&survivor.client_of(&ann), &path).await;
    assert_eq!(resumed.tokens().await, ["one", " two", " three"]);
    survivor.stop().await;
}

#[tokio::test]
async fn an_endpoints_answer_is_cut_off_when_nobody_listens_any_more_but_not_before() {
    let world = World::start().await;
    let endpoint = Endpoint::start(&["one ", "two ", "three "], Ending::Silence).await;
    let url = endpoint.url();
    let settings = [("RESPONDER", "openai"), ("RESPONDER_URL", url.as_str()), ("STREAM_UNHEARD_MAX", "1")];
    let (one, two) =
        (world.replica_with("web-1", &settings).await, world.replica_with("web-2", &settings).await);
    let ann = world.user("ann").await;
    let id = session(&one.client_of(&ann)).await;
    let (events, stream) = ask(&one.client_of(&ann), &id).await;
    let path = format!("/messages/stream/{stream}");
    let mut elsewhere = Events::get(&two.client_of(&ann), &path).await;
    elsewhere.next_of("token").await;
    drop(events);
    // Longer than the limit: the reader on the other replica counts.
    let silence = tokio::time::timeout(Duration::from_secs(4), elsewhere.next_of("error")).await;
    assert!(silence.is_err(), "it is cut off though somebody listens: {silence:?}");
    assert_eq!(endpoint.open_answers(), 1);
    drop(elsewhere);
    until("the endpoint is left alone", Duration::from_secs(15), async || endpoint.open_answers() == 0).await;
    let list = one.client_of(&ann).get(&format!("/api/sessions/{id}/messages")).await;
    assert_eq!(list.at("/items").as_array().unwrap().len(), 1, "half an answer is not stored");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_maker_that_lost_its_lease_before_its_first_token_mixes_nothing_into_the_other_ones_answer() {
    let world = World::start().await;
    let late = Endpoint::start(&["y0 ", "y1 ", "y2 ", "y3 ", "y4"], Ending::Gated(5)).await;
    let prompt = Endpoint::start(&["x0 ", "x1 ", "x2 ", "x", "3"], Ending::Gated(1)).await;
    let (late_url, prompt_url) = (late.url(), prompt.url());
    let settings = [("RESPONDER", "openai"), ("RESPONDER_URL", prompt_url.as_str())];
    let other = world.replica_with("web-2", &settings).await;
    let ann = world.user("ann").await;
    let settings = [("RESPONDER", "openai"), ("RESPONDER_URL", late_url.as_str())];
    let maker = Process::start(&world, "web-1", &settings).await;
    let id = session(&maker.client_of(&ann)).await;
    let (mut events, stream) = ask(&maker.client_of(&ann), &id).await;
    until("the endpoint is asked", SOON, async || late.requests().len() == 1).await;
    maker.freeze().await;
    let mut elsewhere = Events::get(&other.client_of(&ann), &format!("/messages/stream/{stream}")).await;
    let mut tokens = Vec::new();
    while tokens.len() < 3 {
        tokens.push(elsewhere.next_of("token").await.data["text"].as_str().unwrap().to_owned());
    }
    late.open_gate();
    maker.thaw();
    // Who reads there follows the other maker now; who had been given a token by then is told to ask again.
    loop {
        let event = events.next().await.expect("a stream says how it ends");
        let is_last = event.data["text"] == " x2";
        if is_last || event.name == "error" || event.name == "done" {
            assert_ne!(event.name, "done");
            break;
        }
    }
    prompt.open_gate();
    tokens.extend(elsewhere.tokens().await);
    assert_eq!(tokens, ["x0", " x1", " x2", " x3"]);
    let list = other.client_of(&ann).get(&format!("/api/sessions/{id}/messages")).await;
    assert_eq!(list.at("/items/1/content"), "x0 x1 x2 x3");
    other.stop().await;
}

#[tokio::test]
async fn a_question_that_was_sent_again_elsewhere_while_its_first_replica_stood_still_is_answered_once() {
    let world = World::start().await;
    let late = Endpoint::start(&["y0 ", "y1"], Ending::Done).await;
    let prompt = Endpoint::start(&["x0 ", "x1 ", "x", "2"], Ending::Gated(1)).await;
    let (late_url, prompt_url) = (late.url(), prompt.url());
    let settings = [("RESPONDER", "openai"), ("RESPONDER_URL", prompt_url.as_str())];
    let other = world.replica_with("web-2", &settings).await;
    let ann = world.user("ann").await;
    let settings = [("RESPONDER", "openai"), ("RESPONDER_URL", late_url.as_str())];
    let first = Process::start(&world, "web-1", &settings).await;
    let id = session(&first.client_of(&ann)).await;
    // The lock holds the question back until its replica stands still: it is stored, and nobody begins an answer.
    let mut locker = world.postgres.connect(&world.database).await;
    locker.execute("BEGIN; SELECT 1 FROM sessions FOR UPDATE").await.unwrap();
    let asking = tokio::spawn({
        let (client, id) = (first.client_of(&ann), id.clone());
        async move { ask(&client, &id).await }
    });
    let holds = async |sql: &'static str| -> bool {
        sqlx::query_scalar(sql).fetch_one(&mut world.postgres.connect(&world.database).await).await.unwrap()
    };
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')";
    until("the question waits for the lock", SOON, async || holds(waits).await).await;
    first.freeze().await;
    locker.execute("COMMIT").await.unwrap();
    let stored = "SELECT EXISTS (SELECT 1 FROM messages)";
    until("the question is stored", SOON, async || holds(stored).await).await;
    let (mut again, _) = ask(&other.client_of(&ann), &id).await;
    again.next_of("token").await;
    first.thaw();
    let (mut events, _) = asking.await.unwrap();
    events.next_of("token").await;
    prompt.open_gate();
    assert_eq!(again.tokens().await, [" x1", " x2"]);
    assert_eq!(events.tokens().await, [" x1", " x2"]);
    assert_eq!((late.requests().len(), prompt.requests().len()), (0, 1));
    other.stop().await;
}
