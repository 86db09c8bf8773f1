//! The model's streams and sockets.

use super::routes::{TOKEN, store};
use super::{Face, Flaw, Stored};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Path, Query, State, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;

const TOKENS: usize = 12;
const PACE: Duration = Duration::from_millis(15);

fn event(name: &str, data: &Value, id: Option<String>) -> Bytes {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("event: {name}\n{id}data: {data}\n\n").into()
}

fn sse(events: mpsc::Receiver<Bytes>) -> Response {
    let stream = futures_util::stream::unfold(events, |mut events| async move {
        let bytes = events.recv().await?;
        Some((Ok::<_, Infallible>(bytes), events))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
}

pub async fn ask(State(face): State<Face>, Json(body): Json<Value>) -> Response {
    let session = body["session_id"].as_str().expect("a session").to_owned();
    let key = body["client_msg_id"].as_str();
    let (_, question) = store(&face, &session, "user", key, body["content"].as_str().expect("content"));
    let stream_id = uuid::Uuid::new_v4().to_string();
    let tokens: Vec<String> = (0..TOKENS).map(|i| format!("word{i} ")).collect();
    let mut text = tokens.concat();
    if face.shared.flaw == Flaw::StoresOtherAnswer {
        text.push('!');
    }
    let (_, answer) = store(&face, &session, "assistant", None, &text);
    face.shared.state().streams.insert(stream_id.clone(), (tokens, answer.json));
    let (sender, events) = mpsc::channel(100);
    let first =
        vec![event("message", &question.json, None), event("start", &json!({"stream_id": stream_id}), None)];
    tokio::spawn(tell(face, stream_id, 0, sender, first));
    sse(events)
}

pub async fn resume(State(face): State<Face>, Path(stream_id): Path<String>, headers: HeaderMap) -> Response {
    let last =
        headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.rsplit_once(':'));
    let mut from = last.and_then(|(_, i)| i.parse::<usize>().ok()).map_or(0, |i| i + 1);
    if face.shared.flaw == Flaw::RepeatsToken {
        from -= 1;
    }
    let (sender, events) = mpsc::channel(100);
    tokio::spawn(tell(face, stream_id, from, sender, Vec::new()));
    sse(events)
}

async fn tell(face: Face, stream_id: String, from: usize, events: mpsc::Sender<Bytes>, first: Vec<Bytes>) {
    let (tokens, answer) = face.shared.state().streams[&stream_id].clone();
    let flaw = face.shared.flaw;
    for bytes in first {
        // A client that went away resumes elsewhere.
        let _ = events.send(bytes).await;
    }
    if flaw == Flaw::BuffersStream {
        tokio::time::sleep(PACE * TOKENS as u32).await;
    }
    for (i, text) in tokens.iter().enumerate().skip(from) {
        if flaw == Flaw::LosesToken && i == 2 {
            continue;
        }
        if flaw != Flaw::BuffersStream {
            tokio::time::sleep(PACE).await;
        }
        let _ = events
            .send(event("token", &json!({"i": i, "text": text}), Some(format!("{stream_id}:{i}"))))
            .await;
    }
    let _ = events.send(event("done", &answer, None)).await;
}

#[derive(Deserialize)]
pub struct Resumption {
    since: Option<i64>,
}

pub async fn upgrade(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(resumption): Query<Resumption>,
    socket: WebSocketUpgrade,
) -> Response {
    socket.on_upgrade(move |socket| serve(face, id, resumption.since, socket))
}

/// What a member gets, by the model's flaw.
async fn deliver(socket: &mut WebSocket, flaw: Flaw, stored: &Stored) {
    let copies = match (flaw, stored.offset) {
        (Flaw::LosesDelivery, 5) => 0,
        (Flaw::DeliversTwice, 5) => 2,
        _ => 1,
    };
    let mut json = stored.json.clone();
    json["type"] = "message".into();
    json["ct"] = TOKEN.into();
    for _ in 0..copies {
        let _ = socket.send(Message::text(json.to_string())).await;
    }
}

async fn serve(face: Face, id: String, since: Option<i64>, mut socket: WebSocket) {
    let flaw = face.shared.flaw;
    let (mut live, stored) = {
        let state = face.shared.state();
        let session = &state.sessions[&id];
        (session.members.subscribe(), session.messages.clone())
    };
    let offset = stored.last().map_or(0, |message| message.offset);
    let welcome = json!({"type": "welcome", "session_id": id, "offset": offset, "served_by": face.kept_by(),
        "resumed": since.is_some()});
    let _ = socket.send(Message::text(welcome.to_string())).await;
    let missed = stored.iter().filter(|message| since.is_some_and(|since| message.offset > since));
    for message in missed.filter(|_| flaw != Flaw::ForgetsOnResume) {
        deliver(&mut socket, flaw, message).await;
    }
    loop {
        tokio::select! {
            message = live.recv() => deliver(&mut socket, flaw, &message.expect("no member lags by a thousand")).await,
            frame = socket.recv() => {
                let Some(Ok(Message::Text(text))) = frame else { return };
                let frame: Value = serde_json::from_str(&text).expect("the generator sends JSON");
                let key = frame["client_msg_id"].as_str().expect("a key");
                let (_, stored) = store(&face, &id, "user", Some(key), frame["content"].as_str().expect("content"));
                let offset = stored.offset + i64::from(flaw == Flaw::WrongAck);
                let ack = json!({"type": "ack", "client_msg_id": key, "offset": offset, "ct": TOKEN});
                let _ = socket.send(Message::text(ack.to_string())).await;
            }
        }
    }
}
