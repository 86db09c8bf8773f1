//! Redis where operators have it: behind Sentinels that fail it over, and with TLS and an ACL user, either of them.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod socket;
mod world;

use std::time::Duration;

use serde_json::json;
use socket::{Socket, offsets};
use world::World;
use world::programs::{free_port, until};
use world::redis::{Redis, Sentinel};

const FAILOVER_MAX: Duration = Duration::from_secs(30);

#[tokio::test]
async fn chat_goes_on_when_the_sentinels_name_another_master() {
    let mut world = World::start().await;
    let follower = Redis::follow(world.redis.port).await;
    let sentinel = Sentinel::watch(world.redis.port).await;
    let place = format!("127.0.0.1:{}", sentinel.port);
    let settings = [("REDIS_SENTINELS", place.as_str()), ("CHAT_COMPARE_PERIOD", "60000")];
    let (one, two) =
        (world.replica_with("web-1", &settings).await, world.replica_with("web-2", &settings).await);
    let ann = world.user("ann").await;
    let made = one.client_of(&ann).post("/api/sessions", &json!({"title": "room"})).await;
    let id = made.at("/id").as_str().unwrap();
    let mut at_one = Socket::open(&one, id, &ann.token).await;
    let mut at_two = Socket::open(&two, id, &ann.token).await;
    at_one.send_message("c1", "before").await;
    assert_eq!(offsets(&at_two.messages(1).await), [1]);
    world.redis_kill().await;
    until("both replicas have found the new master", FAILOVER_MAX, async || {
        let up = async |replica: &world::Replica| {
            replica.client().get("/status/").await.at("/checks/redis/healthy") == true
        };
        up(&one).await && up(&two).await
    })
    .await;
    at_one.send_message("c2", "after").await;
    assert_eq!(offsets(&at_two.messages(1).await), [2]);
    // Tickets are kept in Redis: they work at once, on either replica.
    let ticket = one.client_of(&ann).post("/api/auth/ws-ticket", &json!({})).await;
    let ticket = ticket.at("/ticket").as_str().unwrap().to_owned();
    assert!(!ticket.contains('.'), "kept in Redis, not signed for want of it");
    Socket::open(&two, id, &ticket).await;
    drop((follower, sentinel));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn redis_is_spoken_to_with_tls_as_an_acl_user_and_a_foreign_certificate_is_refused() {
    let world = World::start().await;
    let (redis, ca) = Redis::with_tls_and_user("chat", "chat-password").await;
    let port = redis.port.to_string();
    let settings = [
        ("REDIS_PORT", port.as_str()),
        ("REDIS_TLS", "true"),
        ("REDIS_USER", "chat"),
        ("REDIS_PASSWORD", "chat-password"),
    ];
    let trusted = world.replica_with("web-1", &[&settings[..], &[("REDIS_TLS_CA", &ca)]].concat()).await;
    let status = trusted.client().get("/status/").await;
    assert_eq!(status.at("/checks/redis/healthy"), true, "{status:?}");
    let distrusted = world.replica_with("web-2", &settings).await;
    let status = distrusted.client().get("/status/").await;
    assert_eq!(status.at("/checks/redis/healthy"), false, "a certificate that nobody vouches for");
    trusted.stop().await;
    distrusted.stop().await;
}

/// A replica that has these settings beside the Sentinel at `place`, and knows of Redis by it alone, finds Redis.
async fn finds_redis_by(place: &str, more: &[(&str, &str)], world: &World) {
    let nobody = free_port().to_string();
    let settings = [&[("REDIS_PORT", nobody.as_str()), ("REDIS_SENTINELS", place)], more].concat();
    let replica = world.replica_with("web-1", &settings).await;
    until("the replica has found Redis", FAILOVER_MAX, async || {
        replica.client().get("/status/").await.at("/checks/redis/healthy") == true
    })
    .await;
    replica.stop().await;
}

#[tokio::test]
async fn sentinels_are_asked_with_tls_as_an_acl_user_of_their_own() {
    let world = World::start().await;
    let login = "user default off\nuser asker on >asker-password ~* &* +@all";
    let (sentinel, ca) = Sentinel::guarded(world.redis.port, login).await;
    let settings = [
        ("REDIS_SENTINEL_USER", "asker"),
        ("REDIS_SENTINEL_PASSWORD", "asker-password"),
        ("REDIS_SENTINEL_TLS", "on"),
        ("REDIS_TLS_CA", ca.as_str()),
    ];
    finds_redis_by(&format!("127.0.0.1:{}", sentinel.port), &settings, &world).await;
}

#[tokio::test]
async fn sentinels_with_a_password_are_asked_with_tls_where_redis_is() {
    let world = World::start().await;
    let (redis, ca) = Redis::with_tls_and_user("chat", "chat-password").await;
    let (sentinel, ca_of_sentinel) = Sentinel::guarded(redis.port, "requirepass sentinel-password").await;
    let both = format!("{ca}{ca_of_sentinel}");
    let settings = [
        ("REDIS_TLS", "true"),
        ("REDIS_USER", "chat"),
        ("REDIS_PASSWORD", "chat-password"),
        ("REDIS_SENTINEL_PASSWORD", "sentinel-password"),
        ("REDIS_TLS_CA", both.as_str()),
    ];
    finds_redis_by(&format!("127.0.0.1:{}", sentinel.port), &settings, &world).await;
}
