//! An endpoint that has much to say says it at the pace of whoever takes most of the answer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod endpoint;
mod events;
mod socket;
mod world;

use std::time::Duration;

use endpoint::{Ending, Endpoint};
use events::Events;
use serde_json::json;
use socket::Socket;
use web::logic::lead::AHEAD_MAX;
use web::logic::tokens_out;
use world::programs::until;
use world::{Replica, User, World, session};

const PIECE_LEN: usize = 1024;
const PIECES: usize = 48;
/// Beside each piece: more than the buffers between the endpoint and its reader hold of those that nobody asks for.
const PADDING_LEN: usize = 512 * 1024;
const SOON: Duration = Duration::from_secs(30);

/// Short words: as events they are many times as long, so that a reader's buffers hold few of them.
fn piece() -> String {
    "abc ".repeat(PIECE_LEN / 4)
}

async fn talkative() -> (Endpoint, String) {
    let endpoint = Endpoint::start_padded(&vec![piece().as_str(); PIECES], PADDING_LEN).await;
    let url = endpoint.url();
    (endpoint, url)
}

async fn replica(world: &World, url: &str) -> Replica {
    world.replica_with_small_buffers("web-1", &[("RESPONDER", "openai"), ("RESPONDER_URL", url)]).await
}

async fn ask(replica: &Replica, user: &User, session: &str) -> (Events, String) {
    let body = json!({"session_id": session, "content": "Tell me all", "client_msg_id": "q1"});
    let mut events = Events::post(&replica.client_of(user), "/messages/stream/", &body).await;
    let stream = events.next_of("start").await.data["stream_id"].as_str().unwrap().to_owned();
    (events, stream)
}

fn whole() -> Vec<String> {
    tokens_out::split(&piece().repeat(PIECES))
}

#[tokio::test]
async fn an_endpoint_waits_for_the_only_reader_while_redis_is_frozen() {
    let world = World::start().await;
    let (endpoint, url) = talkative().await;
    let replica = replica(&world, &url).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    world.redis.freeze();
    let (mut events, _) = ask(&replica, &ann, &id).await;
    until("more than the lead is said", SOON, async || endpoint.said() * PIECE_LEN > AHEAD_MAX).await;
    // From here on nobody takes anything.
    let all_said = async || endpoint.said() == PIECES;
    let all = tokio::time::timeout(Duration::from_secs(4), until("all is said", SOON, all_said)).await;
    assert!(all.is_err(), "all was asked for though nobody took it");
    assert_eq!(events.tokens().await, whole());
    assert_eq!(endpoint.said(), PIECES);
    world.redis.thaw();
    replica.stop().await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_up_no_other_and_no_answer() {
    let world = World::start().await;
    let (_endpoint, url) = talkative().await;
    let replica = replica(&world, &url).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    world.redis.freeze();
    let (_takes_nothing, stream) = ask(&replica, &ann, &id).await;
    let path = format!("/messages/stream/{stream}");
    let mut reader = Events::get(&replica.client_of(&ann), &path).await;
    assert_eq!(reader.tokens().await, whole());
    world.redis.thaw();
    replica.stop().await;
}

#[tokio::test]
async fn an_answer_that_redis_records_does_not_wait_for_its_readers() {
    let world = World::start().await;
    let (_endpoint, url) = talkative().await;
    let replica = replica(&world, &url).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let (_takes_nothing, _) = ask(&replica, &ann, &id).await;
    let (client, path) = (replica.client_of(&ann), format!("/api/sessions/{id}/messages"));
    let stored = async || client.get(&path).await.at("/items").as_array().unwrap().len() == 2;
    until("the answer is stored", SOON, stored).await;
    replica.stop().await;
}

#[tokio::test]
async fn an_answer_that_nobody_can_read_before_its_end_is_made_all_the_same() {
    let mut world = World::start().await;
    let endpoint = Endpoint::start(&vec![piece().as_str(); PIECES], Ending::Done).await;
    let replica = replica(&world, &endpoint.url()).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let mut member = Socket::open(&replica, &id, &ann.token).await;
    world.redis_kill().await;
    member.send(&json!({"type": "ask", "client_msg_id": "q1", "content": "Tell me all"})).await;
    member.ack("q1").await;
    assert_eq!(member.messages(2).await[1]["content"], piece().repeat(PIECES));
    replica.stop().await;
}
