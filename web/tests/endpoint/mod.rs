//! A scripted chat-completions endpoint.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of it; a test that cannot go on fails"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::sync::watch;

/// How the script ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending {
    Done,
    BreakOff,
    Refuse,
    Silence,
    /// The last pieces, so many, come when the gate is opened.
    Gated(usize),
}

#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub authorization: String,
    pub body: Value,
}

#[derive(Clone)]
struct Script {
    pieces: Vec<String>,
    ending: Ending,
    requests: Arc<Mutex<Vec<Request>>>,
    /// Answers that are being sent.
    open: Arc<AtomicUsize>,
    gate: Arc<watch::Sender<bool>>,
    /// Bytes of comment before each piece.
    padding_len: usize,
    /// Pieces that were asked for, by readers or by the buffers before them.
    said: Arc<AtomicUsize>,
}

enum Part {
    Piece(String),
    Done(String),
    Gate(watch::Receiver<bool>),
    Silence,
}

/// Counted down when the answer ends or its reader goes.
struct Sending {
    open: Arc<AtomicUsize>,
    said: Arc<AtomicUsize>,
}

impl Sending {
    fn begin(script: &Script) -> Self {
        script.open.fetch_add(1, Ordering::Relaxed);
        Self { open: Arc::clone(&script.open), said: Arc::clone(&script.said) }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

pub struct Endpoint {
    port: u16,
    script: Script,
}

impl Endpoint {
    pub async fn start(pieces: &[&str], ending: Ending) -> Self {
        Self::start_with(pieces, ending, 0).await
    }

    /// Says all, with so many bytes that mean nothing before each piece; what is not read it does not buffer for long.
    pub async fn start_padded(pieces: &[&str], padding_len: usize) -> Self {
        Self::start_with(pieces, Ending::Done, padding_len).await
    }

    async fn start_with(pieces: &[&str], ending: Ending, padding_len: usize) -> Self {
        let script = Script {
            pieces: pieces.iter().map(ToString::to_string).collect(),
            ending,
            requests: Arc::default(),
            open: Arc::default(),
            gate: Arc::default(),
            padding_len,
            said: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        if padding_len > 0 {
            SockRef::from(&listener).set_send_buffer_size(256 * 1024).unwrap();
        }
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(post(answer)).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, script }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Answers that are being sent and that their reader has not left.
    pub fn open_answers(&self) -> usize {
        self.script.open.load(Ordering::Relaxed)
    }

    /// Lets the pieces behind an [`Ending::Gated`] out.
    pub fn open_gate(&self) {
        self.script.gate.send_replace(true);
    }

    /// Pieces that were asked for so far.
    pub fn said(&self) -> usize {
        self.script.said.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.script.requests.lock().unwrap().clone()
    }
}

async fn answer(State(script): State<Script>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    script.requests.lock().unwrap().push(Request {
        path: uri.path().to_owned(),
        authorization: header("authorization"),
        body: serde_json::from_str(&body).unwrap(),
    });
    if script.ending == Ending::Refuse {
        return (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response();
    }
    let padding = match script.padding_len {
        0 => String::new(),
        len => format!(": {}\n", "x".repeat(len)),
    };
    let chunk =
        |text: &str| format!("{padding}data: {}\n\n", json!({"choices": [{"delta": {"content": text}}]}));
    let mut parts: Vec<Part> = script.pieces.iter().map(|text| Part::Piece(chunk(text))).collect();
    let done = Part::Done("data: [DONE]\n\n".into());
    match script.ending {
        Ending::Done => parts.push(done),
        Ending::Gated(count) => {
            parts.insert(parts.len() - count, Part::Gate(script.gate.subscribe()));
            parts.push(done);
        }
        Ending::Silence => parts.push(Part::Silence),
        Ending::BreakOff | Ending::Refuse => {}
    }
    let sending = Sending::begin(&script);
    let chunks = stream::unfold((parts.into_iter(), sending), |(mut parts, sending)| async {
        let text = match parts.next()? {
            Part::Piece(text) => {
                sending.said.fetch_add(1, Ordering::Relaxed);
                text
            }
            Part::Done(text) => text,
            Part::Gate(mut gate) => {
                gate.wait_for(|is_open| *is_open).await.unwrap();
                String::new()
            }
            Part::Silence => std::future::pending().await,
        };
        Some((Ok::<_, std::convert::Infallible>(text), (parts, sending)))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(chunks)).into_response()
}
