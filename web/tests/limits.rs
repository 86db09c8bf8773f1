//! Limits that keep clients and kinds of work apart, over several replicas with real Redis and without it.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod events;
mod socket;
mod world;

use std::time::Duration;

use events::Events;
use futures_util::future::join_all;
use serde_json::json;
use socket::Socket;
use world::World;
use world::programs::until;

#[tokio::test]
async fn a_users_requests_are_counted_over_all_replicas_and_nobody_elses() {
    let world = World::start().await;
    let limits = [("API_RATE_PER_S", "1"), ("API_RATE_BURST", "10")];
    let (one, two) = (world.replica_with("web-1", &limits).await, world.replica_with("web-2", &limits).await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let (at_one, at_two) = (one.client_of(&ann), two.client_of(&ann));
    let began = std::time::Instant::now();
    let crowd = (0..40).map(|turn| if turn % 2 == 0 { &at_one } else { &at_two }.get("/api/users/me"));
    let answers = join_all(crowd).await;
    let (passed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    // The burst, and what was earned since: on one replica alone it would be twice as many.
    let earned = 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((10..=10 + earned).contains(&passed.len()), "{} passed", passed.len());
    assert!(answers.iter().all(|answer| answer.header("ratelimit-policy") == "\"api\";q=10;w=10"));
    let left = |answer: &world::Answer| answer.header("ratelimit").split(';').nth(1).unwrap().to_owned();
    assert!(passed.iter().any(|answer| left(answer) == "r=9"), "the first of a burst of ten leaves nine");
    for answer in refused {
        assert_eq!(left(answer), "r=0");
        answer.assert_problem(429, "too-many");
        assert!((1..=40).contains(&answer.header("retry-after").parse::<u64>().unwrap()), "{answer:?}");
    }
    assert_eq!(two.client_of(&bob).get("/api/users/me").await.status, 200);
    assert_eq!(one.client().get("/health").await.status, 200, "health is not counted");
    until("time heals", Duration::from_secs(20), async || {
        one.client_of(&ann).get("/api/users/me").await.status == 200
    })
    .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn without_redis_each_replica_counts_by_itself_and_is_not_slowed() {
    let mut world = World::start().await;
    let limits = [("API_RATE_PER_S", "1"), ("API_RATE_BURST", "5")];
    let replica = world.replica_with("web-1", &limits).await;
    let ann = world.user("ann").await;
    // A frozen Redis is worse than a dead one: it takes questions and answers none.
    world.redis.freeze();
    let client = replica.client_of(&ann);
    let began = std::time::Instant::now();
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(client.get("/api/users/me").await.status);
    }
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    world.redis.thaw();
    world.redis_kill().await;
    replica.stop().await;
}

#[tokio::test]
async fn while_redis_is_dead_each_replica_has_a_count_of_its_own_and_then_they_share_one_again() {
    let mut world = World::start().await;
    let limits = [("API_RATE_PER_S", "1"), ("API_RATE_BURST", "10")];
    let (one, two) = (world.replica_with("web-1", &limits).await, world.replica_with("web-2", &limits).await);
    let (ann, bob, eve) = (world.user("ann").await, world.user("bob").await, world.user("eve").await);
    world.redis_kill().await;
    let began = std::time::Instant::now();
    for replica in [&one, &two] {
        let client = replica.client_of(&ann);
        let mut passed = 0;
        for _ in 0..20 {
            let answer = client.get("/api/users/me").await;
            assert_eq!(answer.header("ratelimit-policy"), "\"api\";q=10;w=10");
            if answer.status == 200 {
                passed += 1;
            } else {
                answer.assert_problem(429, "too-many");
                assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1, "{answer:?}");
            }
        }
        let earned = 1 + began.elapsed().as_secs();
        assert!((10..=10 + earned).contains(&passed), "{passed} passed at {}", replica.name);
    }

    world.redis_restart().await;
    let redis = redis::Client::open(format!("redis://127.0.0.1:{}", world.redis.port)).unwrap();
    let redis = redis.get_multiplexed_async_connection().await.unwrap();
    for replica in [&one, &two] {
        until("the replica counts in Redis again", Duration::from_secs(20), async || {
            let _: () = redis::cmd("FLUSHALL").query_async(&mut redis.clone()).await.unwrap();
            replica.client_of(&eve).get("/api/users/me").await;
            let key = format!("arena:rate:api:*{}*", eve.id);
            let keys: Vec<String> =
                redis::cmd("KEYS").arg(key).query_async(&mut redis.clone()).await.unwrap();
            !keys.is_empty()
        })
        .await;
    }
    let (at_one, at_two) = (one.client_of(&bob), two.client_of(&bob));
    let began = std::time::Instant::now();
    let crowd = (0..40).map(|turn| if turn % 2 == 0 { &at_one } else { &at_two }.get("/api/users/me"));
    let passed = join_all(crowd).await.iter().filter(|answer| answer.status == 200).count();
    let earned = 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((10..=10 + earned).contains(&passed), "{passed} passed at both");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn full_streams_leave_room_for_requests_and_health() {
    let world = World::start().await;
    let settings = [("STREAMS_MAX", "1"), ("RESPONDER_PACE", "500")];
    let replica = world.replica_with("web-1", &settings).await;
    let ann = world.user("ann").await;
    let client = replica.client_of(&ann);
    let made = client.post("/api/sessions", &json!({"title": "room"})).await;
    let id = made.at("/id").as_str().unwrap();
    let question = |key: &str| json!({"session_id": id, "content": "a long answer?", "client_msg_id": key});
    let mut first = Events::post(&client, "/messages/stream/", &question("q1")).await;
    first.next_of("token").await;
    let refused = client.post("/messages/stream/", &question("q2")).await;
    refused.assert_problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(client.get("/api/users/me").await.status, 200);
    assert_eq!(replica.client().get("/health").await.status, 200);
    drop(first);
    until("the place is free when its client has gone", Duration::from_secs(10), async || {
        client.get("/messages/stream/0198c0de-0000-7000-8000-000000000000").await.status == 404
    })
    .await;
    replica.stop().await;
}

#[tokio::test]
async fn a_replica_that_holds_as_many_sockets_as_it_can_sends_others_elsewhere() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("CHAT_CONNECTIONS_MAX", "1")]).await;
    let ann = world.user("ann").await;
    let client = replica.client_of(&ann);
    let made = client.post("/api/sessions", &json!({"title": "room"})).await;
    let id = made.at("/id").as_str().unwrap().to_owned();
    let socket = Socket::open(&replica, &id, &ann.token).await;
    let path = format!("/ws/chat/session/{id}/?token={}", ann.token);
    let refused = client.get(&path).await;
    refused.assert_problem(503, "unavailable");
    socket.close().await;
    until("there is room again", Duration::from_secs(5), async || client.get(&path).await.status != 503)
        .await;
    replica.stop().await;
}

#[tokio::test]
async fn pages_of_named_origins_may_use_the_api_and_sockets_and_others_may_not() {
    let world = World::start().await;
    let settings =
        [("CORS_ALLOWED_ORIGINS", "https://app.example"), ("ALLOWED_HOSTS", "127.0.0.1,arena.example")];
    let replica = world.replica_with("web-1", &settings).await;
    let ann = world.user("ann").await;
    let from = |origin: &str| replica.client_of(&ann).with_header("Origin", origin);
    let named = from("https://app.example").get("/api/users/me").await;
    assert_eq!(named.header("access-control-allow-origin"), "https://app.example");
    assert!(named.header("access-control-expose-headers").contains("x-consistency-token"));
    let other = from("https://evil.example").get("/api/users/me").await;
    assert_eq!(other.header("access-control-allow-origin"), "");
    let preflight = from("https://app.example").with_header("Access-Control-Request-Method", "PATCH");
    let asked = preflight.send(preflight.request(reqwest::Method::OPTIONS, "/api/users/me")).await;
    assert_eq!(asked.status, 200);
    assert!(asked.header("access-control-allow-methods").contains("PATCH"));

    let made = replica.client_of(&ann).post("/api/sessions", &json!({"title": "room"})).await;
    let path = format!("/ws/chat/session/{}/?token={}", made.at("/id").as_str().unwrap(), ann.token);
    from("https://evil.example").get(&path).await.assert_problem(403, "forbidden");
    for origin in ["https://app.example", "https://arena.example:8443"] {
        assert_ne!(from(origin).get(&path).await.status, 403, "{origin}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn every_answer_bears_the_headers_that_keep_browsers_from_harm() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    for path in ["/", "/ops", "/docs", "/api/users", "/health", "/openapi.json", "/nowhere"] {
        let answer = replica.client().get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert!(!answer.header("referrer-policy").is_empty(), "{path}");
    }
    let login = replica.client().post("/api/auth/login", &json!({})).await;
    assert_eq!(login.header("cache-control"), "no-store");
    replica.stop().await;
}
