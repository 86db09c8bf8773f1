//! A responder behind an OpenAI-compatible chat-completions endpoint, streamed. Nothing is read beyond the piece that is
//! asked for but what the connection buffers: who asks for none slows the endpoint (`logic/lead.rs` says when), and
//! dropping the stream closes the connection.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::json;

use super::{Pieces, Prompt, Respond, ResponderError};
use crate::logic::sse_in::{Piece, SseReader};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the endpoint is.
pub struct Endpoint<'a> {
    /// The base, such as `https://host/v1`, or the whole address up to `/chat/completions`.
    pub url: &'a str,
    pub key: Option<&'a str>,
    pub model: &'a str,
    /// The longest silence before the first and between two pieces.
    pub idle_timeout: Duration,
}

#[derive(Clone)]
pub struct OpenAi {
    client: reqwest::Client,
    url: String,
    model: String,
    idle_timeout: Duration,
}

/// One answer under way.
struct Reading {
    body: BoxStream<'static, Result<bytes::Bytes, reqwest::Error>>,
    reader: SseReader,
    pieces: VecDeque<Piece>,
}

enum State {
    Asking(Box<reqwest::RequestBuilder>),
    Reading(Box<Reading>),
}

impl OpenAi {
    /// # Errors
    /// A sentence that names the setting; it never repeats the key.
    pub fn new(endpoint: Endpoint<'_>) -> Result<Self, String> {
        // reqwest takes the process's provider; whoever installed one first has installed ring too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(key) = endpoint.key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| "RESPONDER_API_KEY: holds characters that no HTTP header may have".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let client = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| format!("the responder's HTTP client cannot be made: {error}"))?;
        let base = endpoint.url.trim_end_matches('/');
        let url = match base.ends_with("/chat/completions") {
            true => base.to_owned(),
            false => format!("{base}/chat/completions"),
        };
        Ok(Self { client, url, model: endpoint.model.to_owned(), idle_timeout: endpoint.idle_timeout })
    }
}

impl Respond for OpenAi {
    fn answer(&self, prompt: Prompt) -> Pieces {
        let messages: Vec<_> = prompt
            .turns
            .iter()
            .map(|turn| json!({ "role": turn.role.as_str(), "content": turn.content }))
            .collect();
        let body = json!({ "model": self.model, "messages": messages, "stream": true });
        let state = State::Asking(Box::new(self.client.post(&self.url).json(&body)));
        let idle_timeout = self.idle_timeout;
        stream::try_unfold(state, move |state| async move {
            tokio::time::timeout(idle_timeout, next_piece(state))
                .await
                .unwrap_or(Err(ResponderError::TimedOut))
        })
        .boxed()
    }

    fn is_repeatable(&self) -> bool {
        false
    }
}

async fn next_piece(state: State) -> Result<Option<(String, State)>, ResponderError> {
    let mut reading = match state {
        State::Reading(reading) => reading,
        State::Asking(request) => Box::new(ask(*request).await?),
    };
    loop {
        match reading.pieces.pop_front() {
            Some(Piece::Text(text)) => return Ok(Some((text, State::Reading(reading)))),
            Some(Piece::Done) => return Ok(None),
            None => {}
        }
        match reading.body.next().await {
            Some(Ok(bytes)) => reading.pieces.extend(reading.reader.on_bytes(&bytes)?),
            Some(Err(error)) => return Err(ResponderError::BrokenOff(without_url(error))),
            None => return Err(ResponderError::BrokenOff("it ended without [DONE]".into())),
        }
    }
}

async fn ask(request: reqwest::RequestBuilder) -> Result<Reading, ResponderError> {
    let response = request.send().await.map_err(|error| ResponderError::Unreachable(without_url(error)))?;
    if !response.status().is_success() {
        return Err(ResponderError::Refused(response.status().as_u16()));
    }
    Ok(Reading {
        body: response.bytes_stream().boxed(),
        reader: SseReader::default(),
        pieces: VecDeque::new(),
    })
}

/// An operator may have put a secret into the URL.
fn without_url(error: reqwest::Error) -> String {
    error.without_url().to_string()
}
