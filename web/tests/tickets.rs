//! Tickets for WebSockets, also while Redis answers nothing: they work, once, on whichever replica.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod socket;
mod world;

use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use serde_json::json;
use socket::Socket;
use web::auth::Auth;
use web::redis_link::RedisLink;
use web::store::{Db, Store};
use world::{Replica, User, World};

async fn session(replica: &Replica, user: &User) -> String {
    let made = replica.client_of(user).post("/api/sessions", &json!({"title": "room"})).await;
    made.at("/id").as_str().unwrap().to_owned()
}

async fn ticket(replica: &Replica, user: &User) -> String {
    let began = Instant::now();
    let given = replica.client_of(user).post("/api/auth/ws-ticket", &json!({})).await;
    assert_eq!(given.status, 201, "{given:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    given.at("/ticket").as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_ticket_is_good_once_on_any_replica_and_for_sockets_only() {
    let world = World::start().await;
    let (one, two) = (world.replica("web-1").await, world.replica("web-2").await);
    let ann = world.user("ann").await;
    let id = session(&one, &ann).await;
    let used = ticket(&one, &ann).await;
    Socket::open(&two, &id, &used).await.close().await;
    for replica in [&one, &two] {
        let again = replica.client().get(&format!("/ws/chat/session/{id}/?token={used}")).await;
        again.assert_problem(401, "unauthorized");
    }
    let no_access = one.client().with_token(&ticket(&one, &ann).await).get("/api/users/me").await;
    no_access.assert_problem(401, "unauthorized");
    world.redis.freeze();
    let signed = one.client().with_token(&ticket(&one, &ann).await).get("/api/users/me").await;
    signed.assert_problem(401, "unauthorized");
    world.redis.thaw();
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_ticket_of_the_time_without_redis_opens_one_socket_on_any_replica() {
    let mut world = World::start().await;
    let (one, two) = (world.replica("web-1").await, world.replica("web-2").await);
    let ann = world.user("ann").await;
    let id = session(&one, &ann).await;
    world.redis.freeze();
    let (first, second) = (ticket(&one, &ann).await, ticket(&one, &ann).await);
    assert_ne!(first, second, "each is good for itself");
    Socket::open(&two, &id, &first).await.close().await;
    let path = |ticket: &str| format!("/ws/chat/session/{id}/?token={ticket}");
    for replica in [&one, &two] {
        replica.client().get(&path(&first)).await.assert_problem(401, "unauthorized");
    }
    // Nor is it good again when Redis is back, and one that was not used still is.
    world.redis.thaw();
    one.client().get(&path(&first)).await.assert_problem(401, "unauthorized");
    Socket::open(&one, &id, &second).await.close().await;
    world.redis_kill().await;
    let third = ticket(&two, &ann).await;
    Socket::open(&one, &id, &third).await.close().await;
    two.client().get(&path(&third)).await.assert_problem(401, "unauthorized");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_a_ticket_of_the_time_without_redis_opens_lasts_as_long_as_the_access_token() {
    let mut world = World::start().await;
    let settings = world.settings("web-1", &[]);
    let auth = Auth::new(&settings.auth, RedisLink::new(&settings.redis).unwrap());
    let target = &settings.database.primary;
    let store = Store::new(Db::open(target, &settings.database, "test", Histogram::new([1.0])));
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let by_access = auth.access(&ann.token).unwrap();
    for is_redis_there in [true, false] {
        if !is_redis_there {
            world.redis_kill().await;
        }
        let ticket = auth.ticket(&by_access).await;
        assert_eq!(ticket.contains('.'), !is_redis_there);
        assert_eq!(auth.socket_token(&store, &ticket).await.unwrap(), by_access);
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_ticket_that_only_a_frozen_redis_knows_is_503_soon_and_a_new_one_works() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let old = ticket(&replica, &ann).await;
    world.redis.freeze();
    let began = Instant::now();
    let refused = replica.client().get(&format!("/ws/chat/session/{id}/?token={old}")).await;
    refused.assert_problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.at("/detail").as_str().unwrap().contains("new ticket"), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let new = ticket(&replica, &ann).await;
    Socket::open(&replica, &id, &new).await.close().await;
    world.redis.thaw();
    replica.stop().await;
}
