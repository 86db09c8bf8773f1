//! Reads over a real standby: routed there, never older than the token of a write, and away from it when it fails.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod world;

use std::time::Duration;

use serde_json::json;
use world::World;

#[tokio::test]
async fn reads_go_to_the_standby_and_never_see_less_than_the_token_says() {
    let world = World::start().await;
    let standby = world.standby().await;
    let port = standby.port.to_string();
    let replica =
        world.replica_with("web-1", &[("DB_READ_HOST", "127.0.0.1"), ("DB_READ_PORT", port.as_str())]).await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let read_from = async || client.get("/api/users").await.header("x-read-from").to_owned();
    world::programs::until("the standby answers reads", Duration::from_secs(10), async || {
        read_from().await == "replica-1"
    })
    .await;

    standby.pause_replay().await;
    let written = client.patch("/api/users/me", &json!({"display_name": "New name"})).await;
    let token = written.header("x-consistency-token").to_owned();
    let with_token = client.clone().with_header("X-Consistency-Token", &token);
    let fresh = with_token.get("/api/users/me").await;
    assert_eq!((fresh.at("/display_name"), fresh.header("x-read-from")), (&json!("New name"), "primary"));
    let by_cookie = client.clone().with_header("Cookie", &format!("a=b; consistency={token}"));
    assert_eq!(by_cookie.get("/api/users/me").await.header("x-read-from"), "primary");
    let stale = client.get("/api/users/me").await;
    assert_eq!((stale.at("/display_name"), stale.header("x-read-from")), (&json!("alice"), "replica-1"));

    standby.resume_replay().await;
    world::programs::until("the standby has caught up", Duration::from_secs(10), async || {
        let answer = with_token.get("/api/users/me").await;
        assert_eq!(answer.at("/display_name"), "New name");
        answer.header("x-read-from") == "replica-1"
    })
    .await;
    client
        .clone()
        .with_header("X-Consistency-Token", "invented")
        .get("/api/users/me")
        .await
        .assert_problem(422, "unprocessable");

    let status = replica.client().get("/status/").await;
    assert_eq!(status.at("/checks/database/read_replica/healthy"), true);
    let connections = replica.client().get("/db/connections/").await;
    assert_eq!(connections.at("/connections/read_replica/port"), &json!(port));

    drop(standby);
    world::programs::until("reads go to the primary", Duration::from_secs(5), async || {
        read_from().await == "primary"
    })
    .await;
    assert_eq!(replica.client().get("/status/").await.at("/checks/database/read_replica/healthy"), false);
    assert_eq!(replica.client().get("/db/connections/").await.status, 200);
    replica.stop().await;
}
