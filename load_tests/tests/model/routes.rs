//! The JSON routes of the model.

use super::chat;
use super::{Face, Flaw, Session, Stored};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::broadcast;

pub fn router(face: Face) -> Router {
    Router::new()
        .route("/api/auth/register", post(register))
        .route("/api/auth/login", post(login))
        .route("/api/users", get(users))
        .route("/api/users/me", get(me))
        .route("/api/sessions", get(sessions).post(create_session))
        .route("/api/sessions/{id}/join", post(async || Json(json!({}))))
        .route("/api/sessions/{id}/messages", get(messages).post(post_message))
        .route_layer(middleware::from_fn_with_state(face.clone(), now_and_then_500))
        .route("/messages/stream/", post(chat::ask))
        .route("/messages/stream/{id}", get(chat::resume))
        .route("/ws/chat/session/{id}/", get(chat::upgrade))
        .route("/db/connections/", get(db_connections))
        .layer(middleware::from_fn(with_token))
        .with_state(face)
}

/// The consistency token of every write: nothing is ever stale here but by a flaw.
pub const TOKEN: &str = "t";

async fn with_token(request: Request, next: Next) -> Response {
    let is_write = request.method() != Method::GET;
    let mut response = next.run(request).await;
    if is_write && response.status().is_success() {
        let cookie = HeaderValue::from_static("consistency=t; Path=/; HttpOnly");
        response.headers_mut().insert("x-consistency-token", HeaderValue::from_static(TOKEN));
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

async fn now_and_then_500(State(face): State<Face>, request: Request, next: Next) -> Response {
    static TURN: AtomicU64 = AtomicU64::new(0);
    let is_auth = request.uri().path().starts_with("/api/auth/");
    if face.shared.flaw == Flaw::Error500 && !is_auth && TURN.fetch_add(1, Ordering::Relaxed) % 10 == 9 {
        let problem = json!({"title": "Internal error", "status": 500});
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(problem)).into_response();
    }
    next.run(request).await
}

fn login_answer(username: &str) -> Value {
    // The model's token is the name: whoever bears it is that user.
    json!({"user": person(username), "access_token": username, "expires_in": 900, "refresh_token": "r"})
}

fn person(username: &str) -> Value {
    json!({"id": format!("id-{username}"), "username": username, "display_name": username})
}

pub fn bearer(headers: &HeaderMap) -> String {
    let value = headers.get("authorization").and_then(|value| value.to_str().ok());
    value.and_then(|value| value.strip_prefix("Bearer ")).expect("the generator sends its token").to_owned()
}

async fn register(State(face): State<Face>, Json(body): Json<Value>) -> impl IntoResponse {
    let username = body["username"].as_str().expect("a username").to_owned();
    let mut state = face.shared.state();
    if state.users.contains(&username) {
        return (StatusCode::CONFLICT, Json(json!({"title": "Conflict", "detail": "taken"})));
    }
    let answer = login_answer(&username);
    state.users.push(username);
    (StatusCode::CREATED, Json(answer))
}

async fn login(Json(body): Json<Value>) -> Json<Value> {
    Json(login_answer(body["username"].as_str().expect("a username")))
}

#[derive(Deserialize)]
struct Paging {
    limit: usize,
    #[serde(default)]
    after: i64,
}

fn page(items: Vec<Value>, has_more: bool) -> Json<Value> {
    Json(json!({"items": items, "has_more": has_more, "next": has_more.then_some("x")}))
}

async fn users(State(face): State<Face>, Query(paging): Query<Paging>) -> impl IntoResponse {
    let state = face.shared.state();
    let items = state.users.iter().take(paging.limit).map(|name| person(name)).collect();
    let more = state.users.len() > paging.limit;
    drop(state);
    ([("x-served-by", face.served_by())], page(items, more))
}

async fn me(headers: HeaderMap) -> Json<Value> {
    Json(person(&bearer(&headers)))
}

fn session_json(id: &str, session: &Session) -> Value {
    json!({"id": id, "title": session.title, "visibility": session.visibility})
}

async fn sessions(State(face): State<Face>, Query(paging): Query<Paging>, headers: HeaderMap) -> Json<Value> {
    let owner = bearer(&headers);
    let state = face.shared.state();
    let own: Vec<Value> = state
        .sessions
        .iter()
        .filter(|(_, session)| session.owner == owner)
        .map(|(id, session)| session_json(id, session))
        .collect();
    let more = own.len() > paging.limit;
    page(own.into_iter().take(paging.limit).collect(), more)
}

async fn create_session(
    State(face): State<Face>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> impl IntoResponse {
    let id = uuid::Uuid::new_v4().to_string();
    let text = |key: &str| body[key].as_str().expect("a string").to_owned();
    let session = Session {
        title: text("title"),
        visibility: text("visibility"),
        owner: bearer(&headers),
        messages: Vec::new(),
        keys: HashMap::new(),
        members: broadcast::channel(1000).0,
    };
    let answer = session_json(&id, &session);
    face.shared.state().sessions.insert(id, session);
    (StatusCode::CREATED, Json(answer))
}

/// Stores a message, or finds it stored; true for a replay.
pub fn store(face: &Face, id: &str, role: &str, key: Option<&str>, content: &str) -> (bool, Stored) {
    let mut state = face.shared.state();
    let session = state.sessions.get_mut(id).expect("a session that was created");
    let known = key.and_then(|key| session.keys.get(key)).filter(|_| face.shared.flaw != Flaw::StoresTwice);
    if let Some(index) = known {
        return (true, session.messages[*index].clone());
    }
    let mut offset = session.messages.last().map_or(0, |message| message.offset) + 1;
    if face.shared.flaw == Flaw::OffsetGap && offset == 3 {
        offset += 1;
    }
    let json = json!({"id": format!("{id}-{offset}"), "session_id": id, "offset": offset, "role": role,
        "author": {"username": "x"}, "content": content, "created_at": "2026-01-01T00:00:00Z", "client_msg_id": key});
    let stored = Stored { offset, json };
    session.messages.push(stored.clone());
    if let Some(key) = key {
        session.keys.insert(key.to_owned(), session.messages.len() - 1);
    }
    // No member yet is no error.
    let _ = session.members.send(stored.clone());
    (false, stored)
}

async fn post_message(
    State(face): State<Face>,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> impl IntoResponse {
    let key = body["client_msg_id"].as_str();
    let (replayed, stored) = store(&face, &id, "user", key, body["content"].as_str().expect("content"));
    let status = if replayed { StatusCode::OK } else { StatusCode::CREATED };
    let told = if replayed { "true" } else { "false" };
    (status, [("idempotency-replayed", told)], Json(stored.json))
}

async fn messages(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
) -> Json<Value> {
    let state = face.shared.state();
    let session = state.sessions.get(&id).expect("a session that was created");
    let hidden = usize::from(face.shared.flaw == Flaw::StaleRead);
    let seen = session.messages.len().saturating_sub(hidden);
    let after: Vec<&Stored> =
        session.messages[..seen].iter().filter(|message| message.offset > paging.after).collect();
    let more = after.len() > paging.limit;
    page(after.into_iter().take(paging.limit).map(|message| message.json.clone()).collect(), more)
}

async fn db_connections(State(face): State<Face>) -> Json<Value> {
    let pooled = face.shared.flaw != Flaw::NoPooler;
    Json(json!({"container": face.served_by(), "timestamp": 1.5, "connections": {"default": {
        "total_connections": 9, "active_connections": 2, "idle_connections": 7, "conn_max_age": 600,
        "using_pgbouncer": pooled, "host": "pgbouncer", "port": "6432"}},
        "pgbouncer": {"enabled": pooled}, "recommendations": ["Connection pool looks healthy."]}))
}
