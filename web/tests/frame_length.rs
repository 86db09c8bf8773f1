//! No frame of a WebSocket is longer than 64 KiB, in either way, whatever JSON makes of a content.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod endpoint;
mod socket;
mod world;

use endpoint::{Ending, Endpoint};
use serde_json::{Value, json};
use socket::Socket;
use web::logic::frames::FRAME_LEN_MAX;
use world::{World, session};

/// Six bytes of JSON.
const CONTROL: &str = "\u{1}";

fn assert_fits(frame: &Value) {
    let len = frame.to_string().len();
    assert!(len <= FRAME_LEN_MAX, "a frame of {len} bytes");
}

#[tokio::test]
async fn the_api_and_the_socket_accept_the_same_contents_and_those_fit_a_frame() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let (client, path) = (replica.client_of(&ann), format!("/api/sessions/{id}/messages"));
    let mut socket = Socket::open(&replica, &id, &ann.token).await;

    let longest = CONTROL.repeat(10_240);
    socket.send_message("c1", &longest).await;
    assert_eq!(socket.ack("c1").await["offset"], 1);
    let stored = client.post(&path, &json!({"content": longest})).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    for message in socket.messages(2).await {
        assert_eq!(message["content"], longest);
        assert_fits(&message);
    }

    let too_long = CONTROL.repeat(10_241);
    socket.send_message("c2", &too_long).await;
    let error = socket.frame("error").await;
    assert_eq!((&error["code"], &error["client_msg_id"]), (&json!("bad_content"), &json!("c2")));
    for path in [path.as_str(), "/messages/stream/"] {
        let body = json!({"session_id": id, "content": too_long});
        client.post(path, &body).await.assert_problem(422, "unprocessable");
    }
    replica.stop().await;
}

#[tokio::test]
async fn an_endpoints_answer_is_cut_where_it_would_not_fit_a_frame() {
    let world = World::start().await;
    // Two bytes of JSON each.
    let quotes = "\"".repeat(10_000);
    let endpoint = Endpoint::start(&[quotes.as_str(); 6], Ending::Done).await;
    let url = endpoint.url();
    let settings = [("RESPONDER", "openai"), ("RESPONDER_URL", url.as_str())];
    let replica = world.replica_with("web-1", &settings).await;
    let ann = world.user("ann").await;
    let id = session(&replica, &ann).await;
    let mut socket = Socket::open(&replica, &id, &ann.token).await;
    socket.send(&json!({"type": "ask", "client_msg_id": "q1", "content": "Say much"})).await;
    let answer = socket.messages(2).await.remove(1);
    assert_eq!(answer["content"], "\"".repeat(30_720));
    assert_fits(&answer);
    replica.stop().await;
}
