//! Who is in a room, over all replicas, also when one of them dies without a word.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod socket;
mod world;

use serde_json::{Value, json};
use socket::Socket;
use world::process::Process;
use world::{Replica, User, World};

/// A replica that is silent for three periods is forgotten.
const EAGER: &[(&str, &str)] = &[("CHAT_PRESENCE_PERIOD", "400")];

async fn session(replica: &Replica, users: &[&User]) -> String {
    let owner = replica.client_of(users[0]);
    let made = owner.post("/api/sessions", &json!({"title": "room", "visibility": "public"})).await;
    let id = made.at("/id").as_str().unwrap().to_owned();
    for user in &users[1..] {
        let joined = replica.client_of(user).post(&format!("/api/sessions/{id}/join"), &json!({})).await;
        assert!(joined.status < 300, "{joined:?}");
    }
    id
}

fn names(people: &Value) -> Vec<&str> {
    people.as_array().unwrap().iter().map(|person| person["username"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn members_of_a_replica_that_was_killed_are_announced_as_left() {
    let world = World::start().await;
    let survivor = world.replica_with("web-2", EAGER).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let victim = Process::start(&world, "web-1", EAGER).await;
    let id = session(&survivor, &[&ann, &bob]).await;
    let mut at_survivor = Socket::open(&survivor, &id, &ann.token).await;
    at_survivor.frame("presence").await;
    let _at_victim = Socket::open_to(victim.addr, &id, &bob.token).await;
    let came = at_survivor.frame("presence").await;
    assert_eq!((names(&came["joined"]), &came["count"]), (vec!["bob"], &json!(2)));
    victim.kill();
    // Nobody comes or goes at the survivor: it finds out by itself.
    let went = at_survivor.frame("presence").await;
    assert_eq!((names(&went["left"]), names(&went["joined"])), (vec!["bob"], vec![]));
    assert_eq!(went["count"], 1);
    survivor.stop().await;
}

#[tokio::test]
async fn no_frame_tells_that_nobody_came_or_went_and_each_socket_learns_the_count() {
    let world = World::start().await;
    let (one, two) = (world.replica("web-1").await, world.replica("web-2").await);
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let id = session(&one, &[&ann, &bob]).await;
    let mut first = Socket::open(&one, &id, &ann.token).await;
    first.frame("presence").await;
    // The same person again, here and on the other replica: news for nobody but the new sockets.
    let mut here = Socket::open(&one, &id, &ann.token).await;
    let mut there = Socket::open(&two, &id, &ann.token).await;
    for socket in [&mut here, &mut there] {
        let frame = socket.frame("presence").await;
        assert_eq!((names(&frame["joined"]), &frame["count"]), (vec!["ann"], &json!(1)));
    }
    let last = Socket::open(&two, &id, &bob.token).await;
    let mut frames = vec![];
    while frames.last().is_none_or(|frame: &Value| frame["count"] != 2) {
        frames.push(first.frame("presence").await);
    }
    // One of two sockets closes: its person is still here.
    there.close().await;
    last.close().await;
    while frames.last().is_none_or(|frame: &Value| frame["count"] != 1) {
        frames.push(first.frame("presence").await);
    }
    for frame in &frames {
        assert!(!names(&frame["joined"]).is_empty() || !names(&frame["left"]).is_empty(), "{frames:?}");
    }
    assert_eq!(names(&frames.last().unwrap()["left"]), ["bob"], "{frames:?}");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn the_last_members_of_a_replica_that_drains_are_announced_as_left() {
    let world = World::start().await;
    let (drained, stays) = (world.replica("web-1").await, world.replica("web-2").await);
    let (ann, bob, cid) = (world.user("ann").await, world.user("bob").await, world.user("cid").await);
    let id = session(&stays, &[&ann, &bob, &cid]).await;
    let mut watcher = Socket::open(&stays, &id, &ann.token).await;
    let mut leaving =
        [Socket::open(&drained, &id, &bob.token).await, Socket::open(&drained, &id, &cid.token).await];
    while watcher.frame("presence").await["count"] != 3 {}
    drained.begin_stop();
    for socket in &mut leaving {
        socket.closed().await;
    }
    let mut left = Vec::new();
    while left.len() < 2 {
        left.extend(names(&watcher.frame("presence").await["left"]).into_iter().map(str::to_owned));
    }
    left.sort();
    assert_eq!(left, ["bob", "cid"]);
    drained.ended().await;
    stays.stop().await;
}
