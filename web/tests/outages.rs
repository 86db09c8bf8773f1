//! Connections to the database that break, with real Postgres: what can be done again is, and the rest says what happened.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod world;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection as _, Executor as _};
use world::switch::Switch;
use world::{Client, World};

/// Ends every connection of the service from outside, as the death of a pooler does.
async fn break_connections(world: &World) {
    let mut postgres = world.postgres.connect("postgres").await;
    let broken: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1",
    )
    .bind(&world.database)
    .fetch_one(&mut postgres)
    .await
    .unwrap();
    assert!(broken > 0, "there was a connection to break");
}

/// Uses every place of the pool at once, so that all hold a connection a moment old.
async fn fill_pool(client: &Client) {
    let answers = join_all((0..20).map(|_| client.get("/api/users"))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn no_request_fails_because_all_pooled_connections_broke_since_the_last_one() {
    let world = World::start().await;
    let replica = world.direct_replica("web-1", &[]).await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let session = client.post("/api/sessions", &json!({"title": "room"})).await;
    let path = format!("/api/sessions/{}/messages", session.at("/id").as_str().unwrap());
    for round in 0..5 {
        fill_pool(&client).await;
        break_connections(&world).await;
        let body = json!({"content": format!("{round}")});
        let messages = join_all((0..10).map(|_| client.post(&path, &body))).await;
        for message in messages {
            assert_eq!(message.status, 201, "{message:?}");
        }
        fill_pool(&client).await;
        break_connections(&world).await;
        let session = json!({"title": "another", "slug": format!("slug-{round}")});
        let made = client.post("/api/sessions", &session).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    break_connections(&world).await;
    let refreshed = client.post("/api/auth/refresh", &json!({"refresh_token": alice.refresh_token})).await;
    assert_eq!(refreshed.status, 200, "to try again is no second use: {refreshed:?}");
    // Nothing was stored twice, and no offset was left out.
    let list = client.get(&format!("{path}?limit=100")).await;
    let offsets: Vec<i64> =
        list.at("/items").as_array().unwrap().iter().map(|item| item["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, (1..=50).collect::<Vec<_>>());
    replica.stop().await;
}

#[tokio::test]
async fn a_request_in_flight_when_postgres_dies_is_503_and_says_that_the_connection_broke() {
    let world = World::apart().await;
    let replica = world.direct_replica("web-1", &[("DATABASE_POOL_TIMEOUT", "1")]).await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let mut locker = world.postgres.connect(&world.database).await;
    locker.execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.get("/api/users/me").await }
    });
    let mut watcher = world.postgres.connect("postgres").await;
    let mut waits = false;
    while !waits {
        waits = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted)")
            .fetch_one(&mut watcher)
            .await
            .unwrap();
    }
    world.postgres.crash();
    let answer = asking.await.unwrap();
    answer.assert_problem(503, "unavailable");
    let _ = (locker.close().await, watcher.close().await);
    let gone = client.post("/api/sessions", &json!({"title": "room"})).await;
    gone.assert_problem(503, "unavailable");
    replica.stop().await;
}

#[tokio::test]
async fn a_pool_that_is_busy_says_so_and_not_that_the_connection_broke() {
    let world = World::start().await;
    let few = [("DATABASE_POOL_MAX", "1"), ("DATABASE_POOL_TIMEOUT", "1")];
    let replica = world.direct_replica("web-1", &few).await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let mut locker = world.postgres.connect(&world.database).await;
    locker.execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let holding = tokio::spawn({
        let client = client.clone();
        async move { client.get("/api/users/me").await }
    });
    let refused = world::programs::until("somebody waits in vain", Duration::from_secs(10), async || {
        let answer = client.get("/api/sessions").await;
        answer.status == 503 && answer.at("/detail").as_str().unwrap().contains("came free in time")
    });
    refused.await;
    locker.execute("ROLLBACK").await.unwrap();
    assert_eq!(holding.await.unwrap().status, 200);
    replica.stop().await;
}

#[tokio::test]
async fn a_database_that_falls_silent_with_questions_in_flight_is_left_for_the_one_that_answers() {
    let world = World::start().await;
    let switch = Switch::to(world.postgres.port).await;
    let port = switch.port.to_string();
    let settings =
        [("DB_PORT", port.as_str()), ("DATABASE_POOL_MAX", "2"), ("DATABASE_STATEMENT_TIMEOUT", "500")];
    let replica = world.direct_replica("web-1", &settings).await;
    let client = replica.client_of(&world.user("alice").await);
    let session = client.post("/api/sessions", &json!({"title": "room"})).await;
    let path = format!("/api/sessions/{}/messages", session.at("/id").as_str().unwrap());
    for _ in 0..2 {
        fill_pool(&client).await;
        // New connections reach the one that took over.
        switch.silence();
        let body = json!({"content": "hello"});
        for message in join_all((0..10).map(|_| client.post(&path, &body))).await {
            assert_eq!(message.status, 201, "{message:?}");
        }
    }
    replica.stop().await;
}
