//! What a replica logs while it serves a request bears the request's id and its trace, and none of its secrets.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod socket;
mod world;

use serde_json::{Value, json};
use socket::Socket;
use world::locks::run;
use world::process::{Log, Process};
use world::{Client, PASSWORD, User, World};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// From now on a message is refused as one of two that collided, so that it is tried again.
const REFUSE: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '40001'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse()";

async fn register(process: &Process, username: &str) -> User {
    let body = json!({"username": username, "password": PASSWORD});
    User::of(&process.client().post("/api/auth/register", &body).await.json)
}

fn traced(client: Client, id: &str) -> Client {
    client.with_header("x-request-id", id).with_header("traceparent", TRACEPARENT)
}

/// Somebody's line that begins so, and says that it was written for this request.
fn assert_told_of(log: &Log, message: &str, id: &str) {
    let lines = log.lines(message);
    let is_its = |line: &&Value| line["request_id"] == id && line["trace_id"] == TRACE_ID;
    assert!(lines.iter().find(is_its).is_some(), "{message} of {id}:\n{}", log.text());
}

#[tokio::test]
async fn a_line_written_for_a_request_bears_its_id_and_its_trace() {
    let world = World::start().await;
    let (process, log) = Process::start_with_log(&world, "web-1", &[]).await;
    let ann = register(&process, "ann").await;
    let refresh = json!({"refresh_token": ann.refresh_token});
    assert_eq!(process.client().post("/api/auth/refresh", &refresh).await.status, 200);
    let again = traced(process.client(), "again-1").post("/api/auth/refresh", &refresh).await;
    assert_eq!((again.status, again.header("x-request-id")), (401, "again-1"));
    assert_told_of(&log, "a refresh token came a second time", "again-1");
    assert_eq!(log.lines("")[0].get("request_id"), None, "its first words are for nobody");
    assert!(!log.text().contains(&ann.refresh_token) && !log.text().contains(&ann.token), "{}", log.text());
}

#[tokio::test]
async fn what_is_done_for_a_socket_or_in_a_task_of_its_own_bears_the_id_of_the_request_too() {
    let world = World::start().await;
    let settings = [("DATABASE_POOL_TIMEOUT", "1"), ("LOG_LEVEL", "info,web=debug")];
    let (process, log) = Process::start_with_log(&world, "web-1", &settings).await;
    let ann = register(&process, "ann").await;
    let client = process.client_of(&ann);
    let made = client.post("/api/sessions", &json!({"title": "room"})).await;
    let id = made.at("/id").as_str().unwrap();
    let headers = [("x-request-id", "socket-1"), ("traceparent", TRACEPARENT)];
    let mut socket = Socket::open_with(process.addr, id, &ann.token, &headers).await;
    run(&mut world.postgres.connect(&world.database).await, REFUSE).await;
    socket.send_message("c1", "lost").await;
    assert_eq!(socket.frame("error").await["code"], "unavailable");
    assert_told_of(&log, "a message was not stored", "socket-1");
    let path = format!("/api/sessions/{id}/messages");
    let refused = traced(client, "post-1").post(&path, &json!({"content": "lost"})).await;
    refused.assert_problem(503, "unavailable");
    assert_told_of(&log, "a unit of work runs again", "post-1");
    assert_told_of(&log, &format!("{path} failed"), "post-1");
    assert!(!log.text().contains(&ann.token), "{}", log.text());
}
