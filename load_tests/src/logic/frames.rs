//! The text frames of the chat socket, both ways.

use crate::logic::fault::Fault;
use crate::logic::shape::{self, Message};
use serde::Deserialize;
use serde_json::{Value, json};

/// A frame from the server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type")]
pub enum Frame {
    #[serde(rename = "welcome")]
    Welcome(Welcome),
    #[serde(rename = "message")]
    Message(Message),
    #[serde(rename = "ack")]
    Ack { client_msg_id: String, offset: i64 },
    #[serde(rename = "error")]
    Error { code: Value, detail: String },
    #[serde(rename = "presence")]
    Presence { count: u64 },
    #[serde(rename = "typing")]
    Typing {},
    #[serde(rename = "token")]
    Token { stream_id: String, i: u64, text: String },
    #[serde(rename = "stream.done")]
    StreamDone { stream_id: String, offset: i64 },
    #[serde(rename = "pong")]
    Pong {},
}

/// The first frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Welcome {
    pub session_id: String,
    pub offset: i64,
    pub served_by: String,
}

impl Frame {
    pub fn parse(text: &str) -> Result<Self, Fault> {
        shape::decode(text.as_bytes())
    }
}

/// `message.send`
pub fn send(client_msg_id: &str, content: &str) -> String {
    json!({"type": "message.send", "client_msg_id": client_msg_id, "content": content}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_frame_of_the_contract_is_read() {
        let message = r#"{"type":"message","id":"m","session_id":"s","offset":3,"role":"user","author":{"id":"u","username":"a",
            "display_name":"A"},"content":"x","created_at":"2026-01-01T00:00:00Z","client_msg_id":"k","ct":"t"}"#;
        assert!(matches!(Frame::parse(message), Ok(Frame::Message(Message { offset: 3, .. }))));
        let welcome = r#"{"type":"welcome","session_id":"s","offset":0,"served_by":"web-1","resumed":false}"#;
        assert!(
            matches!(Frame::parse(welcome), Ok(Frame::Welcome(Welcome { served_by, .. })) if served_by == "web-1")
        );
        for text in [
            r#"{"type":"ack","client_msg_id":"k","offset":3,"ct":"t"}"#,
            r#"{"type":"presence","joined":[],"left":[],"count":2}"#,
            r#"{"type":"typing","author":{"username":"a"}}"#,
            r#"{"type":"token","stream_id":"s","i":0,"text":"a"}"#,
            r#"{"type":"stream.done","stream_id":"s","offset":4}"#,
            r#"{"type":"error","code":"bad_frame","detail":"no"}"#,
            r#"{"type":"pong"}"#,
        ] {
            assert!(Frame::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_frame_outside_the_contract_is_a_fault() {
        assert!(Frame::parse(r#"{"type":"hello"}"#).is_err());
        assert!(Frame::parse(r#"{"type":"ack","offset":3}"#).is_err());
    }

    proptest! {
        #[test]
        fn what_is_sent_keeps_key_and_text(key in "[!-~]{1,20}", content in ".{1,40}") {
            let sent: Value = serde_json::from_str(&send(&key, &content)).expect("JSON");
            prop_assert_eq!(sent["client_msg_id"].as_str(), Some(key.as_str()));
            prop_assert_eq!(sent["content"].as_str(), Some(content.as_str()));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") { let _ = Frame::parse(&text); }
    }
}
