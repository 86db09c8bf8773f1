//! Reads over a real standby: routed there, never older than the token of a write, and away from it when it fails.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use world::programs::{Standby, until};
use world::switch::Switch;
use world::{Client, Replica, World};

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

const SOON: Duration = Duration::from_secs(10);

/// A replica of the service whose primary is behind `switch` and whose reads go to `standbys`.
async fn replica_over(world: &World, switch: &Switch, standbys: &[&Standby]) -> Replica {
    let port = switch.port.to_string();
    let reads: Vec<(String, String)> = standbys
        .iter()
        .enumerate()
        .map(|(index, standby)| {
            (format!("DB_READ_HOST_{}", index + 1), format!("127.0.0.1:{}", standby.port))
        })
        .collect();
    let mut settings = vec![("DB_PORT", port.as_str()), ("ACTUAL_DB_HOST", "")];
    settings.extend(reads.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    world.replica_with("web-1", &settings).await
}

async fn rename(client: &Client, name: &str) -> String {
    let answer = client.patch("/api/users/me", &json!({"display_name": name})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("x-consistency-token").to_owned()
}

fn bearing(client: &Client, token: &str) -> Client {
    client.clone().with_header("X-Consistency-Token", token)
}

#[tokio::test]
async fn a_write_is_seen_by_every_read_with_its_token_while_two_standbys_lag() {
    const WRITES: usize = 60;
    let world = World::start().await;
    let (prompt, late) = (world.standby().await, world.standby().await);
    late.delay_replay(400).await;
    let switch = Switch::to(world.postgres.port).await;
    let replica = replica_over(&world, &switch, &[&prompt, &late]).await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let from_standby = AtomicUsize::new(0);
    let mut reads = Vec::new();
    for number in 0..WRITES {
        let name = format!("name {number:03}");
        let token = rename(&client, &name).await;
        let (client, from_standby) = (bearing(&client, &token), &from_standby);
        // Read at once, and later, when others have written: never older than the token.
        reads.push(async move {
            for pause_ms in [0, 50, 300, 700] {
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                let seen = client.get("/api/users/me").await;
                assert_eq!(seen.status, 200, "{seen:?}");
                let stale = seen.at("/display_name").as_str().unwrap() < name.as_str();
                assert!(!stale, "{name} was written, {seen:?} was read");
                if seen.header("x-read-from") != "primary" {
                    from_standby.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    join_all(reads).await;
    let from_standby = from_standby.into_inner();
    // A read that comes faster than the log of its write may go to the primary; the others need not.
    assert!(from_standby >= WRITES * 4 * 7 / 10, "only {from_standby} of {} reads", WRITES * 4);
    replica.stop().await;
}

#[tokio::test]
async fn a_standby_that_lags_too_long_gets_no_reads_until_it_has_caught_up() {
    let world = World::start().await;
    let standby = world.standby().await;
    let port = standby.port.to_string();
    let settings = [("DB_READ_HOST", "127.0.0.1"), ("DB_READ_PORT", port.as_str()), ("DB_READ_LAG_MAX", "1")];
    let replica = world.replica_with("web-1", &settings).await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let read_from = async || client.get("/api/users").await.header("x-read-from").to_owned();
    until("the standby answers reads", SOON, async || read_from().await == "replica-1").await;
    standby.pause_replay().await;
    rename(&client, "a write that the standby lacks").await;
    until("the lagging standby is left out", SOON, async || read_from().await == "primary").await;
    let status = replica.client().get("/status/").await;
    assert!(status.at("/checks/database/read_replica/lag_ms").as_f64().unwrap() >= 1000.0, "{status:?}");
    standby.resume_replay().await;
    until("the standby is back", SOON, async || read_from().await == "replica-1").await;
    replica.stop().await;
}

#[tokio::test]
async fn a_standby_that_was_promoted_leaves_within_a_second() {
    let world = World::start().await;
    let (stays, promoted) = (world.standby().await, world.standby().await);
    let switch = Switch::to(world.postgres.port).await;
    let replica = replica_over(&world, &switch, &[&stays, &promoted]).await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let read_from = async || client.get("/api/users").await.header("x-read-from").to_owned();
    until("both standbys answer", SOON, async || read_from().await == "replica-2").await;
    promoted.promote().await;
    // The second is the promise that is tested: it waits for nothing.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..20 {
        assert_ne!(read_from().await, "replica-2");
    }
    until("the other standby answers", SOON, async || read_from().await == "replica-1").await;
    replica.stop().await;
}

#[tokio::test]
async fn after_a_failover_tokens_that_the_new_primary_has_are_honoured() {
    let world = World::apart().await;
    let standby = world.standby().await;
    let switch = Switch::to(world.postgres.port).await;
    let replica = replica_over(&world, &switch, &[]).await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let token = rename(&client, "kept").await;
    standby.catch_up_with(world.postgres).await;
    world.postgres.crash();
    standby.promote().await;
    switch.turn_to(standby.port);
    let with_token = bearing(&client, &token);
    until("the new primary answers", SOON, async || with_token.get("/api/users/me").await.status == 200)
        .await;
    assert_eq!(with_token.get("/api/users/me").await.at("/display_name"), "kept");
    let newer = rename(&with_token, "written after the failover").await;
    assert_ne!(newer, token);
    let seen = bearing(&client, &newer).get("/api/users/me").await;
    assert_eq!(seen.at("/display_name"), "written after the failover");
    replica.stop().await;
}

#[tokio::test]
async fn a_write_that_was_lost_in_a_failover_is_503_and_never_an_old_answer() {
    let world = World::apart().await;
    let standby = world.standby().await;
    let switch = Switch::to(world.postgres.port).await;
    let replica = replica_over(&world, &switch, &[]).await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let kept = rename(&client, "kept").await;
    standby.catch_up_with(world.postgres).await;
    standby.cut_off().await;
    let lost = rename(&client, "lost").await;
    world.postgres.crash();
    standby.promote().await;
    switch.turn_to(standby.port);
    let (with_kept, with_lost) = (bearing(&client, &kept), bearing(&client, &lost));
    until("the new primary answers", SOON, async || with_kept.get("/api/users/me").await.status == 200).await;
    assert_eq!(with_kept.get("/api/users/me").await.at("/display_name"), "kept");
    // Writes go on, and the new log grows past the position of the lost write.
    for number in 0..50 {
        with_lost.get("/api/users/me").await.assert_problem(503, "unavailable");
        rename(&client, &format!("{number} {}", "x".repeat(40))).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn an_account_that_the_standby_does_not_know_yet_is_found_at_the_primary() {
    let world = World::start().await;
    let standby = world.standby().await;
    let port = standby.port.to_string();
    let settings =
        [("DB_READ_HOST", "127.0.0.1"), ("DB_READ_PORT", port.as_str()), ("DB_READ_LAG_MAX", "600000")];
    let replica = world.replica_with("web-1", &settings).await;
    let alice = world.user("alice").await;
    let read_from =
        async || replica.client_of(&alice).get("/api/users").await.header("x-read-from").to_owned();
    until("the standby answers", SOON, async || read_from().await == "replica-1").await;
    standby.pause_replay().await;
    let bob = world.user("bob").await;
    // Without the token of the registration, as a client that keeps none asks.
    let me = replica.client_of(&bob).get("/api/users/me").await;
    assert_eq!((me.status, me.header("x-read-from")), (200, "primary"), "{me:?}");
    standby.resume_replay().await;
    replica.stop().await;
}
