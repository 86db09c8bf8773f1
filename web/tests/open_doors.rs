//! What anybody may ask without a token costs the databases little, however often it is asked.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use std::time::Instant;

use futures_util::future::join_all;
use sqlx::PgConnection;
use world::World;

/// How often this test's database was asked for its connections.
async fn looks(database: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
           JOIN pg_database ON pg_database.oid = dbid AND datname = current_database()
          WHERE query LIKE '%AS active%pg_stat_activity%'",
    )
    .fetch_one(database)
    .await
    .unwrap()
}

#[tokio::test]
async fn those_who_ask_at_the_same_time_share_one_look_at_the_database() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let mut database = world.postgres.connect(&world.database).await;
    let client = replica.client();
    let (before, began) = (looks(&mut database).await, Instant::now());
    for path in ["/db/connections/", "/status/", "/health/ready"] {
        let answers = join_all((0..30).map(|_| client.get(path))).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{path}");
    }
    let periods = began.elapsed().as_millis() / 500;
    let looked = looks(&mut database).await - before;
    assert!((1..=i64::try_from(periods).unwrap() + 2).contains(&looked), "{looked} in {:?}", began.elapsed());
    replica.stop().await;
}

#[tokio::test]
async fn who_looks_at_the_stack_is_not_counted_and_who_monitors_it_is() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("API_RATE_PER_S", "1"), ("API_RATE_BURST", "10")]).await;
    let client = replica.client();
    let path = "/api/v1/monitoring/pool-stats";
    let answers = join_all((0..40).map(|_| client.get(path))).await;
    let refused = answers.iter().find(|answer| answer.status == 429).expect("40 are too many");
    refused.assert_problem(429, "too-many");
    for path in ["/status/", "/db/connections/", "/health", "/health/live", "/health/ready"] {
        let answers = join_all((0..40).map(|_| client.get(path))).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{path}");
    }
    replica.stop().await;
}
