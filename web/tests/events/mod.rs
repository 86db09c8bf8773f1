//! Reads `text/event-stream` answers in tests, one event at a time.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of it; a test that cannot go on fails"
)]

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::world::Client;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: Value,
}

pub struct Events {
    headers: HeaderMap,
    body: BoxStream<'static, Vec<u8>>,
    buffer: Vec<u8>,
    /// Comments that came between the events.
    pub comments: Vec<String>,
}

impl Events {
    pub async fn post(client: &Client, path: &str, body: &Value) -> Self {
        Self::of(client.request(Method::POST, path).json(body)).await
    }

    pub async fn get(client: &Client, path: &str) -> Self {
        Self::of(client.request(Method::GET, path)).await
    }

    async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.expect("the service answers");
        assert_eq!(response.status(), 200, "{:?}", response.text().await);
        let headers = response.headers().clone();
        // A connection that breaks ends the stream like any other.
        let chunks = response.bytes_stream().take_while(|chunk| std::future::ready(chunk.is_ok()));
        let body = chunks.map(|chunk| chunk.unwrap().to_vec()).boxed();
        Self { headers, body, buffer: Vec::new(), comments: Vec::new() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.take() {
                return Some(event);
            }
            let chunk =
                tokio::time::timeout(PATIENCE, self.body.next()).await.expect("the stream goes on")?;
            self.buffer.extend(chunk);
        }
    }

    /// The next event of this name; others are passed over.
    pub async fn next_of(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            if event.name == name {
                return event;
            }
        }
    }

    /// The texts of all tokens up to `done`.
    pub async fn tokens(&mut self) -> Vec<String> {
        let mut tokens = Vec::new();
        loop {
            let event = self.next().await.expect("a stream ends with done");
            match event.name.as_str() {
                "token" => tokens.push(event.data["text"].as_str().unwrap().to_owned()),
                "done" => return tokens,
                "error" => panic!("{event:?}"),
                _ => {}
            }
        }
    }

    /// An event that has come as a whole; blocks of comments alone are put aside.
    fn take(&mut self) -> Option<Event> {
        loop {
            let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
            let block = String::from_utf8(self.buffer.drain(..end + 2).collect()).expect("events are UTF-8");
            let mut event = Event { name: String::new(), id: String::new(), data: Value::Null };
            for line in block.lines() {
                match line.split_once(':') {
                    Some(("", comment)) => self.comments.push(comment.trim().to_owned()),
                    Some(("event", name)) => event.name = name.trim().to_owned(),
                    Some(("id", id)) => event.id = id.trim().to_owned(),
                    Some(("data", data)) => event.data = serde_json::from_str(data).expect("data are JSON"),
                    _ => {}
                }
            }
            if !event.name.is_empty() {
                return Some(event);
            }
        }
    }
}
