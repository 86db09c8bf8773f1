//! The primary's address leads to a standby that is late, as it may in the middle of a switch-over: what the standby does
//! not know yet is not taken as gone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod socket;
mod world;

use serde_json::json;
use socket::{Socket, offsets};
use sqlx::AssertSqlSafe;
use world::switch::Switch;
use world::{Client, Replica, World};

async fn session(client: &Client) -> String {
    let made = client.post("/api/sessions", &json!({"title": "room", "visibility": "public"})).await;
    made.at("/id").as_str().unwrap().to_owned()
}

async fn say(client: &Client, session: &str, count: usize) {
    for _ in 0..count {
        let said =
            client.post(&format!("/api/sessions/{session}/messages"), &json!({"content": "hello"})).await;
        assert_eq!(said.status, 201, "{said:?}");
    }
}

async fn replica(world: &World, switch: &Switch, compare_ms: &str) -> Replica {
    let port = switch.port.to_string();
    let settings = [("DB_PORT", port.as_str()), ("CHAT_COMPARE_PERIOD", compare_ms)];
    world.direct_replica("web-1", &settings).await
}

/// Turns the switch and ends the connections that lead to the server from before.
async fn turn(world: &World, switch: &Switch, from: u16, to: u16) {
    switch.turn_to(to);
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{}'",
        world.database
    );
    let mut server = world::programs::connect_to(from).await;
    let ended: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut server).await.unwrap();
    assert!(ended > 0, "there was a connection to end");
}

#[tokio::test]
async fn a_member_that_resumes_at_a_late_standby_misses_nothing() {
    let world = World::start().await;
    let standby = world.standby().await;
    let primary = world.postgres.port;
    let switch = Switch::to(primary).await;
    let replica = replica(&world, &switch, "600000").await;
    let ann = world.user("ann").await;
    let client = replica.client_of(&ann);
    let id = session(&client).await;
    let mut stays = Socket::open(&replica, &id, &ann.token).await;
    say(&client, &id, 5).await;
    standby.catch_up_with(world.postgres).await;
    standby.pause_replay().await;
    say(&client, &id, 3).await;
    stays.messages(8).await;

    turn(&world, &switch, primary, standby.port).await;
    let mut resumed = Socket::open_since(&replica, &id, &ann.token, 5).await;
    standby.until_asked("bytes_before").await;
    turn(&world, &switch, standby.port, primary).await;

    assert_eq!(offsets(&resumed.messages(3).await), [6, 7, 8]);
    say(&client, &id, 1).await;
    assert_eq!(offsets(&resumed.messages(1).await), [9]);
    replica.stop().await;
}

#[tokio::test]
async fn members_that_a_late_standby_does_not_know_stay() {
    let world = World::start().await;
    let standby = world.standby().await;
    let primary = world.postgres.port;
    let switch = Switch::to(primary).await;
    let replica = replica(&world, &switch, "100").await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let client = replica.client_of(&ann);
    let old_room = session(&client).await;
    standby.catch_up_with(world.postgres).await;
    standby.pause_replay().await;
    let joined = replica.client_of(&bob).post(&format!("/api/sessions/{old_room}/join"), &json!({})).await;
    assert!(joined.status < 300, "{joined:?}");
    let mut in_old_room = Socket::open(&replica, &old_room, &bob.token).await;
    let new_room = session(&client).await;
    let mut in_new_room = Socket::open(&replica, &new_room, &ann.token).await;

    turn(&world, &switch, primary, standby.port).await;
    standby.until_asked("unnest|last_offset").await;
    // Nor is one who comes told to be no member.
    let path = format!("/ws/chat/session/{old_room}/?token={}", bob.token);
    let refused = replica.client().with_header("Connection", "upgrade").with_header("Upgrade", "websocket");
    refused.with_header("Sec-WebSocket-Version", "13").get(&path).await.assert_problem(503, "unavailable");
    turn(&world, &switch, standby.port, primary).await;

    for (room, member) in [(&old_room, &mut in_old_room), (&new_room, &mut in_new_room)] {
        say(&client, room, 1).await;
        assert_eq!(offsets(&member.messages(1).await), [1]);
    }
    replica.stop().await;
}
