//! A Redis Cluster instead of one Redis: all that the replicas share lies on several masters, one of which may die.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod events;
mod socket;
mod world;

use std::time::Duration;

use events::Events;
use futures_util::future::join_all;
use serde_json::{Value, json};
use socket::{Socket, offsets};
use web::logic::{builtin_answer, tokens_out};
use world::cluster::Cluster;
use world::process::Process;
use world::programs::until;
use world::{Client, PASSWORD, Replica, User, World};

const HEAL_MAX: Duration = Duration::from_secs(30);
const QUESTION: &str = "What is a slot, and who has it?";

/// A world without any other Redis than the cluster's nodes.
async fn start() -> (World, Cluster) {
    let mut world = World::start().await;
    world.redis_kill().await;
    (world, Cluster::start().await)
}

/// A replica whose rooms learn of messages by pub/sub alone.
async fn replica(world: &World, name: &str, places: &str, more: &[(&str, &str)]) -> Replica {
    let settings = [("REDIS_CLUSTER", places), ("CHAT_COMPARE_PERIOD", "60000")];
    let replica = world.replica_with(name, &[&settings, more].concat()).await;
    until_whole(&replica.client(), true).await;
    replica
}

async fn until_whole(client: &Client, whole: bool) {
    until("the replica knows how the cluster is", HEAL_MAX, async || {
        client.get("/status/").await.at("/checks/redis/healthy") == whole
    })
    .await;
}

async fn session(client: &Client) -> String {
    let made = client.post("/api/sessions", &json!({"title": "room", "visibility": "public"})).await;
    made.at("/id").as_str().unwrap().to_owned()
}

async fn ticket(client: &Client) -> String {
    let given = client.post("/api/auth/ws-ticket", &json!({})).await;
    let ticket = given.at("/ticket").as_str().unwrap().to_owned();
    assert!(!ticket.contains('.'), "kept in Redis, not signed for want of it");
    ticket
}

async fn ask(client: &Client, session: &str, key: &str) -> (Events, String) {
    let body = json!({"session_id": session, "content": QUESTION, "client_msg_id": key});
    let mut events = Events::post(client, "/messages/stream/", &body).await;
    let stream = events.next_of("start").await.data["stream_id"].as_str().unwrap().to_owned();
    (events, stream)
}

/// Asks one node, whatever its slots are.
async fn ask_node<T: redis::FromRedisValue>(node: &str, question: &redis::Cmd) -> redis::RedisResult<T> {
    let client = redis::Client::open(format!("redis://{node}"))?;
    question.query_async(&mut client.get_multiplexed_async_connection().await?).await
}

fn text_of(token: &Value) -> String {
    token["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn messages_presence_tickets_and_ended_logins_cross_from_replica_to_replica() {
    let (world, cluster) = start().await;
    let places = cluster.places();
    let one = replica(&world, "web-1", &places, &[]).await;
    let two = replica(&world, "web-2", &places, &[]).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    // Several rooms: they lie in different slots.
    for turn in 0..6 {
        let id = session(&one.client_of(&ann)).await;
        let joined = two.client_of(&bob).post(&format!("/api/sessions/{id}/join"), &json!({})).await;
        assert!(joined.status < 300, "{joined:?}");
        let mut at_one = Socket::open(&one, &id, &ann.token).await;
        assert_eq!(at_one.frame("presence").await["count"], 1);
        // The ticket of one replica is good at the other, once.
        let used = ticket(&one.client_of(&bob)).await;
        let mut at_two = Socket::open(&two, &id, &used).await;
        let again = one.client().get(&format!("/ws/chat/session/{id}/?token={used}")).await;
        again.assert_problem(401, "unauthorized");
        let came = at_one.frame("presence").await;
        assert_eq!((&came["count"], &came["joined"][0]["username"]), (&json!(2), &json!("bob")));
        at_one.send_message(&format!("c{turn}"), "hello").await;
        assert_eq!(offsets(&at_two.messages(1).await), [1]);
        at_two.send_message(&format!("d{turn}"), "you too").await;
        assert_eq!(offsets(&at_one.messages(2).await), [1, 2]);
        at_two.close().await;
        assert_eq!(at_one.frame("presence").await["left"][0]["username"], "bob");
        at_one.close().await;
    }
    until("each replica knows the other", HEAL_MAX, async || {
        let status = one.client().get("/status/").await;
        status.at("/replicas").as_array().is_some_and(|replicas| replicas.len() == 2)
    })
    .await;
    let id = session(&one.client_of(&ann)).await;
    let mut at_one = Socket::open(&one, &id, &ann.token).await;
    assert_eq!(two.client_of(&ann).post("/api/auth/logout", &json!({})).await.status, 204);
    assert_eq!(at_one.closed().await.0, 4401);
    one.client_of(&ann).get("/api/users/me").await.assert_problem(401, "unauthorized");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn rates_and_failed_logins_are_counted_over_both_replicas() {
    let (world, cluster) = start().await;
    let places = cluster.places();
    let limits = [
        ("REDIS_CLUSTER", places.as_str()),
        ("API_RATE_PER_S", "1"),
        ("API_RATE_BURST", "10"),
        ("LOGIN_TRIES_MAX", "3"),
    ];
    // What asks for their status would be counted: one without limits tells that the cluster is whole.
    replica(&world, "web-3", &places, &[("API_RATE_PER_S", "0")]).await.stop().await;
    let (one, two) = (world.replica_with("web-1", &limits).await, world.replica_with("web-2", &limits).await);
    let users = [world.user("ann").await, world.user("bob").await, world.user("eve").await];
    // Their counts lie in different slots.
    for user in &users {
        let (at_one, at_two) = (one.client_of(user), two.client_of(user));
        let began = std::time::Instant::now();
        let crowd = (0..40).map(|turn| if turn % 2 == 0 { &at_one } else { &at_two }.get("/api/users/me"));
        let passed = join_all(crowd).await.iter().filter(|answer| answer.status == 200).count();
        let earned = 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!((10..=10 + earned).contains(&passed), "{passed} of {} passed at both", user.username);
    }
    let log_in = async |replica: &Replica, password: &str| {
        let body = json!({"username": "ann", "password": password});
        replica.client().post("/api/auth/login", &body).await.status
    };
    for (replica, status) in [(&one, 401), (&one, 401), (&two, 401), (&two, 429), (&one, 429)] {
        assert_eq!(log_in(replica, "not her password").await, status);
    }
    assert_eq!(log_in(&one, PASSWORD).await, 429);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn an_answer_is_resumed_at_the_other_replica_and_taken_over_when_its_maker_is_killed() {
    let (world, cluster) = start().await;
    let places = cluster.places();
    let pace = ("RESPONDER_PACE", "60");
    let survivor = replica(&world, "web-2", &places, &[pace]).await;
    let ann = world.user("ann").await;
    let maker = Process::start(&world, "web-1", &[("REDIS_CLUSTER", &places), pace]).await;
    until_whole(&maker.client(), true).await;
    let id = session(&maker.client_of(&ann)).await;
    let mut member = Socket::open(&survivor, &id, &ann.token).await;
    let (mut events, stream) = ask(&maker.client_of(&ann), &id, "q1").await;
    let (mut tokens, mut last) = (Vec::new(), String::new());
    for _ in 0..4 {
        let token = events.next_of("token").await;
        tokens.push(text_of(&token.data));
        last = token.id;
    }
    let client = survivor.client_of(&ann).with_header("Last-Event-ID", &last);
    let mut resumed = Events::get(&client, &format!("/messages/stream/{stream}")).await;
    for _ in 0..4 {
        tokens.push(text_of(&resumed.next_of("token").await.data));
    }
    maker.kill();
    tokens.extend(resumed.tokens().await);
    let whole = tokens_out::split(&builtin_answer::answer(QUESTION));
    assert_eq!(tokens, whole);
    member.frame("stream.done").await;
    let indices: Vec<u64> = member.seen("token").iter().map(|token| token["i"].as_u64().unwrap()).collect();
    assert_eq!(indices, (0..whole.len() as u64).collect::<Vec<u64>>(), "the room saw each token once");
    // The list of those that run lies in another slot than the stream: the end is noted there too.
    until("no stream is left among those that run", HEAL_MAX, async || {
        cluster.ask::<usize>(redis::cmd("ZCARD").arg("arena:streams:running")).await == 0
    })
    .await;
    survivor.stop().await;
}

#[tokio::test]
async fn an_entry_among_the_running_that_a_dead_maker_left_behind_its_end_is_taken_away() {
    let (world, cluster) = start().await;
    let only = replica(&world, "web-1", &cluster.places(), &[("RESPONDER_PACE", "1")]).await;
    let ann = world.user("ann").await;
    let id = session(&only.client_of(&ann)).await;
    let (mut done, done_stream) = ask(&only.client_of(&ann), &id, "q1").await;
    done.tokens().await;
    // One that failed: as the record of a question that has no answer says.
    let posted = only
        .client_of(&ann)
        .post(&format!("/api/sessions/{id}/messages"), &json!({"client_msg_id": "q2", "content": QUESTION}))
        .await;
    let failed_stream = posted.at("/id").as_str().unwrap().to_owned();
    let mut failed = redis::cmd("HSET");
    failed
        .arg(format!("arena:{{{failed_stream}}}:meta"))
        .arg("state")
        .arg("failed")
        .arg("code")
        .arg("timeout");
    let _: i64 = cluster.ask(&failed).await;
    for stream in [&done_stream, &failed_stream] {
        let _: i64 = cluster.ask(redis::cmd("ZADD").arg("arena:streams:running").arg(1).arg(stream)).await;
    }
    until("the sweep has taken both away", HEAL_MAX, async || {
        cluster.ask::<usize>(redis::cmd("ZCARD").arg("arena:streams:running")).await == 0
    })
    .await;
    let list = only.client_of(&ann).get(&format!("/api/sessions/{id}/messages")).await;
    assert_eq!(
        list.at("/items").as_array().unwrap().len(),
        3,
        "what had failed is not answered by the sweep"
    );
    only.stop().await;
}

#[tokio::test]
async fn a_master_dies_and_chat_goes_on_with_nothing_lost() {
    let (world, mut cluster) = start().await;
    // The others they learn from this one, which will be gone.
    let place = cluster.first_place();
    let one = replica(&world, "web-1", &place, &[]).await;
    let two = replica(&world, "web-2", &place, &[]).await;
    let ann = world.user("ann").await;
    let id = session(&one.client_of(&ann)).await;
    let mut at_one = Socket::open(&one, &id, &ann.token).await;
    let mut at_two = Socket::open(&two, &id, &ann.token).await;
    at_one.send_message("before", "before").await;
    assert_eq!(offsets(&at_two.messages(1).await), [1]);
    cluster.kill_first().await;
    until_whole(&one.client(), false).await;
    for turn in 0..20 {
        at_one.send_message(&format!("during-{turn}"), "during").await;
        at_one.ack(&format!("during-{turn}")).await;
    }
    cluster.wait_until_the_replica_is_master().await;
    for replica in [&one, &two] {
        until_whole(&replica.client(), true).await;
    }
    at_two.send_message("after", "after").await;
    let all: Vec<i64> = (2..=22).collect();
    assert_eq!(offsets(&at_two.messages(21).await), all, "nothing is lost and nothing comes twice");
    assert_eq!(offsets(&at_one.messages(22).await)[1..], all);
    // Whatever its slot: several streams and tickets.
    let whole = tokens_out::split(&builtin_answer::answer(QUESTION));
    for turn in 0..6 {
        let (mut events, stream) = ask(&one.client_of(&ann), &id, &format!("q{turn}")).await;
        let mut elsewhere = Events::get(&two.client_of(&ann), &format!("/messages/stream/{stream}")).await;
        assert_eq!(elsewhere.tokens().await, whole);
        assert_eq!(events.tokens().await, whole);
        let ticket = ticket(&one.client_of(&ann)).await;
        Socket::open(&two, &id, &ticket).await.close().await;
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_master_that_is_gone_is_seen_and_the_rooms_of_the_others_are_refreshed() {
    let (world, cluster) = start().await;
    let places = cluster.places();
    let settings = [("REDIS_CLUSTER", places.as_str()), ("CHAT_PRESENCE_PERIOD", "1000")];
    let one = replica(&world, "web-1", &places, &settings[1..]).await;
    let ann = world.user("ann").await;
    let mut members = Vec::new();
    for _ in 0..24 {
        let id = session(&one.client_of(&ann)).await;
        let mut member = Socket::open(&one, &id, &ann.token).await;
        member.frame("presence").await;
        members.push((format!("arena:{{{id}}}:presence"), member));
    }
    let nodes: Vec<&str> = places.split(',').collect();
    for node in &nodes {
        let mut alone = redis::cmd("CONFIG");
        alone.arg("SET").arg("cluster-require-full-coverage").arg("no");
        let _: redis::Value = ask_node(node, &alone).await.unwrap();
    }
    // The second has no replica: its slots remain without a master.
    let _: Result<redis::Value, _> = ask_node(nodes[1], redis::cmd("SHUTDOWN").arg("NOSAVE")).await;
    let late = world.replica_with("web-2", &settings).await;
    for turn in 0..20 {
        for replica in [&one, &late] {
            if turn == 0 {
                until_whole(&replica.client(), false).await;
            }
            assert_eq!(replica.client().get("/status/").await.at("/checks/redis/healthy"), false);
        }
    }
    let mut living = Vec::new();
    for (key, _) in &members {
        let slot: u16 = ask_node(nodes[0], redis::cmd("CLUSTER").arg("KEYSLOT").arg(key)).await.unwrap();
        if !(5461..=10_922).contains(&slot) {
            living.push(key);
        }
    }
    assert!((1..members.len()).contains(&living.len()), "of 24 rooms some are here and some there");
    for key in &living {
        let _: usize = cluster.ask(redis::cmd("DEL").arg(key)).await;
    }
    for key in &living {
        until("the room is entered anew", HEAL_MAX, async || {
            cluster.ask::<usize>(redis::cmd("ZCARD").arg(key)).await == 1
        })
        .await;
    }
    one.stop().await;
    late.stop().await;
}

#[tokio::test]
async fn a_cluster_that_is_away_at_the_start_or_later_keeps_nobody_from_serving() {
    let (world, cluster) = start().await;
    let places = cluster.places();
    let settings = [("REDIS_CLUSTER", places.as_str()), ("CHAT_COMPARE_PERIOD", "60000")];
    cluster.freeze();
    let one = world.replica_with("web-1", &settings).await;
    let two = world.replica_with("web-2", &settings).await;
    let ann: User = world.user("ann").await;
    let id = session(&one.client_of(&ann)).await;
    let mut at_two = Socket::open(&two, &id, &ann.token).await;
    for (turn, offset) in [(0, 1), (1, 3)] {
        until_whole(&one.client(), false).await;
        let began = std::time::Instant::now();
        let body = json!({"client_msg_id": format!("away-{turn}"), "content": "away"});
        let sent = one.client_of(&ann).post(&format!("/api/sessions/{id}/messages"), &body).await;
        assert!(sent.status < 300 && began.elapsed() < Duration::from_secs(5), "{sent:?}");
        assert_eq!(offsets(&at_two.messages(1).await), [offset], "without Redis the offsets are compared");
        cluster.thaw();
        for replica in [&one, &two] {
            until_whole(&replica.client(), true).await;
        }
        let body = json!({"client_msg_id": format!("back-{turn}"), "content": "back"});
        one.client_of(&ann).post(&format!("/api/sessions/{id}/messages"), &body).await;
        assert_eq!(offsets(&at_two.messages(1).await), [offset + 1]);
        cluster.freeze();
    }
    cluster.thaw();
    one.stop().await;
    two.stop().await;
}
