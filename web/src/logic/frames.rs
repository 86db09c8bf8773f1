//! The frames of the WebSocket, `arena.v1`: what a client may say, and how the server's words are encoded.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::logic::message::{self, Author, Message, Offset};

/// The name that a client may ask for as subprotocol.
pub const SUBPROTOCOL: &str = "arena.v1";
/// The longest frame, in bytes, of a client and of the server.
pub const FRAME_LEN_MAX: usize = 64 * 1024;
/// People of one `presence` frame: with the longest names they fit.
const PEOPLE_MAX: usize = 128;

/// What a client says, checked.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub enum ClientFrame {
    Send(Draft),
    /// Store the question, stream the answer to the room.
    Ask(Draft),
    Typing,
    Ping,
    AuthRefresh {
        token: String,
    },
}

/// A message that is not stored yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub client_msg_id: String,
    pub content: String,
}

/// Why a frame was not understood. Sent back as an `error` frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub detail: String,
    pub client_msg_id: Option<String>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_msg_id: Option<String>,
    content: Option<String>,
    token: Option<String>,
}

impl ClientFrame {
    /// Reads one text frame.
    pub fn parse(text: &str) -> Result<ClientFrame, Refusal> {
        // serde would take an array too, field by field, and would repeat a text of any length.
        if !text.trim_start().starts_with('{') {
            return Err(Refusal::new("bad_json", "a frame is a JSON object".into()));
        }
        let raw: Raw = serde_json::from_str(text).map_err(|error| {
            Refusal::new("bad_json", format!("the frame is not the JSON that is expected: {error}"))
        })?;
        match raw.kind.as_deref() {
            Some("message.send") => Ok(ClientFrame::Send(raw.into_draft()?)),
            Some("ask") => Ok(ClientFrame::Ask(raw.into_draft()?)),
            Some("typing") => Ok(ClientFrame::Typing),
            Some("ping") => Ok(ClientFrame::Ping),
            Some("auth.refresh") => {
                let token = raw
                    .token
                    .ok_or_else(|| Refusal::new("missing_field", "auth.refresh needs `token`".into()))?;
                Ok(ClientFrame::AuthRefresh { token })
            }
            Some(_) => Err(Refusal {
                client_msg_id: raw.client_msg_id.filter(|id| message::check_client_msg_id(id).is_ok()),
                ..Refusal::new(
                    "unknown_type",
                    "type must be message.send, ask, typing, ping or auth.refresh".into(),
                )
            }),
            None => Err(Refusal::new("missing_field", "the frame needs a string `type`".into())),
        }
    }
}

impl Raw {
    fn into_draft(self) -> Result<Draft, Refusal> {
        let Some(client_msg_id) = self.client_msg_id else {
            return Err(Refusal::new(
                "missing_field",
                "the frame needs `client_msg_id`; a UUID is a good choice".into(),
            ));
        };
        if let Err(advice) = message::check_client_msg_id(&client_msg_id) {
            return Err(Refusal::new("bad_client_msg_id", advice.into()));
        }
        let refuse = |code, detail: &str| Refusal {
            code,
            detail: detail.into(),
            client_msg_id: Some(client_msg_id.clone()),
        };
        let Some(content) = self.content else {
            return Err(refuse("missing_field", "the frame needs `content`"));
        };
        if let Err(advice) = message::check_content(&content) {
            return Err(refuse("bad_content", advice));
        }
        Ok(Draft { client_msg_id, content })
    }
}

impl Refusal {
    pub fn new(code: &'static str, detail: String) -> Self {
        Self { code, detail, client_msg_id: None }
    }
}

/// What the server says.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type")]
pub enum ServerFrame<'a> {
    #[serde(rename = "welcome")]
    Welcome { session_id: Uuid, offset: Offset, served_by: &'a str, resumed: bool },
    #[serde(rename = "message")]
    Message(&'a Message),
    #[serde(rename = "ack")]
    Ack {
        client_msg_id: &'a str,
        offset: Offset,
        #[serde(skip_serializing_if = "Option::is_none")]
        ct: Option<&'a str>,
    },
    #[serde(rename = "presence")]
    Presence { joined: &'a [Author], left: &'a [Author], count: u64 },
    #[serde(rename = "typing")]
    Typing { author: &'a Author },
    #[serde(rename = "token")]
    Token { stream_id: Uuid, i: usize, text: &'a str },
    #[serde(rename = "stream.done")]
    StreamDone { stream_id: Uuid, offset: Offset },
    #[serde(rename = "error")]
    Error {
        code: &'a str,
        detail: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_msg_id: Option<&'a str>,
    },
    #[serde(rename = "pong")]
    Pong,
}

impl ServerFrame<'_> {
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("frames are plain data with string keys")
    }
}

/// Who came and went, in as many `presence` frames as it takes: a crowd does not fit one. None where nobody did.
pub fn presence<'a>(
    joined: &'a [Author],
    left: &'a [Author],
    count: u64,
) -> impl Iterator<Item = ServerFrame<'a>> {
    const HALF: usize = PEOPLE_MAX / 2;
    let part = |people: &'a [Author], at: usize| people.chunks(HALF).nth(at).unwrap_or_default();
    let frames = joined.len().max(left.len()).div_ceil(HALF);
    (0..frames).map(move |at| ServerFrame::Presence { joined: part(joined, at), left: part(left, at), count })
}

impl<'a> From<&'a Refusal> for ServerFrame<'a> {
    fn from(refusal: &'a Refusal) -> Self {
        ServerFrame::Error {
            code: refusal.code,
            detail: &refusal.detail,
            client_msg_id: refusal.client_msg_id.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;

    use super::*;
    use crate::logic::accounts;
    use crate::logic::message::Role;

    fn refusal(text: &str) -> Refusal {
        ClientFrame::parse(text).expect_err("this frame is bad")
    }

    #[test]
    fn each_frame_of_the_contract_is_understood() {
        let draft = Draft { client_msg_id: "c1".into(), content: "hi".into() };
        let parse = |text| ClientFrame::parse(text).expect("a frame of the contract");
        let send = r#"{"type":"message.send","client_msg_id":"c1","content":"hi"}"#;
        assert_eq!(parse(send), ClientFrame::Send(draft.clone()));
        assert_eq!(parse(r#"{"type":"ask","client_msg_id":"c1","content":"hi"}"#), ClientFrame::Ask(draft));
        assert_eq!(parse(r#"{"type":"typing"}"#), ClientFrame::Typing);
        assert_eq!(parse(r#"{"type":"ping","later":1}"#), ClientFrame::Ping);
        assert_eq!(refusal(r#" ["message.send","c1","hi",null]"#).code, "bad_json");
        let refresh = ClientFrame::AuthRefresh { token: "t".into() };
        assert_eq!(parse(r#"{"type":"auth.refresh","token":"t"}"#), refresh);
    }

    #[test]
    fn a_bad_frame_says_what_is_wrong_and_for_which_message() {
        assert_eq!(refusal("{").code, "bad_json");
        assert_eq!(refusal("[]").code, "bad_json");
        assert_eq!(refusal("{}").code, "missing_field");
        assert_eq!(refusal("\"text\"").code, "bad_json");
        assert_eq!(refusal(r#"{"type":"dance","client_msg_id":"c"}"#).client_msg_id.as_deref(), Some("c"));
        assert_eq!(refusal(r#"{"type":"dance","client_msg_id":"c d"}"#).client_msg_id, None);
        assert_eq!(refusal(r#"{"type":"message.send","content":"x"}"#).code, "missing_field");
        assert_eq!(refusal(r#"{"type":"auth.refresh"}"#).code, "missing_field");
        let blank = refusal(r#"{"type":"ask","client_msg_id":"c","content":" "}"#);
        assert_eq!((blank.code, blank.client_msg_id.as_deref()), ("bad_content", Some("c")));
    }

    #[test]
    fn server_frames_have_the_forms_of_the_contract() {
        let author = Author { id: Uuid::nil(), username: "ann".into(), display_name: "Ann".into() };
        let message = Message {
            id: Uuid::nil(),
            session_id: Uuid::nil(),
            offset: 3,
            role: Role::User,
            author: Some(author.clone()),
            content: "hi".into(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            client_msg_id: Some("c".into()),
            ct: None,
        };
        let nil = Uuid::nil();
        let encoded = [
            ServerFrame::Message(&message).encode(),
            ServerFrame::Welcome { session_id: nil, offset: 3, served_by: "web-1", resumed: true }.encode(),
            ServerFrame::Ack { client_msg_id: "c", offset: 3, ct: None }.encode(),
            ServerFrame::Token { stream_id: nil, i: 0, text: "Hi" }.encode(),
            ServerFrame::StreamDone { stream_id: nil, offset: 4 }.encode(),
            ServerFrame::Typing { author: &author }.encode(),
            ServerFrame::Pong.encode(),
        ];
        assert!(encoded[0].starts_with(r#"{"type":"message","id":"#), "{}", encoded[0]);
        assert_eq!(
            encoded[1],
            format!(
                r#"{{"type":"welcome","session_id":"{nil}","offset":3,"served_by":"web-1","resumed":true}}"#
            )
        );
        assert_eq!(encoded[2], r#"{"type":"ack","client_msg_id":"c","offset":3}"#);
        assert_eq!(encoded[3], format!(r#"{{"type":"token","stream_id":"{nil}","i":0,"text":"Hi"}}"#));
        assert_eq!(encoded[4], format!(r#"{{"type":"stream.done","stream_id":"{nil}","offset":4}}"#));
        assert_eq!(encoded[6], r#"{"type":"pong"}"#);
    }

    /// With the longest names that are accepted.
    fn somebody() -> Author {
        let author =
            Author { id: Uuid::max(), username: "x".repeat(32), display_name: "\u{10ffff}".repeat(80) };
        assert!(accounts::check_username(&author.username).is_ok());
        assert!(accounts::check_display_name(&author.display_name).is_ok());
        author
    }

    #[test]
    fn a_crowd_is_told_in_frames_of_which_each_fits() {
        let joined = vec![somebody(); 1000];
        for (left_len, frames) in [(0, 16), (1, 16), (1100, 18)] {
            let left = vec![somebody(); left_len];
            let told: Vec<ServerFrame<'_>> = presence(&joined, &left, 7).collect();
            assert_eq!(told.len(), frames);
            let (mut came, mut went) = (0, 0);
            for frame in told {
                assert!(frame.encode().len() <= FRAME_LEN_MAX, "{} bytes", frame.encode().len());
                let ServerFrame::Presence { joined, left, count: 7 } = frame else { panic!("{frame:?}") };
                (came, went) = (came + joined.len(), went + left.len());
            }
            assert_eq!((came, went), (1000, left_len));
        }
        assert_eq!(presence(&[], &[], 7).count(), 0);
    }

    proptest! {
        /// Contents near the limits, from letters that JSON makes longer and others.
        #[test]
        fn content_that_is_accepted_fits_a_frame_in_and_out(
            letters in prop::collection::vec(prop::sample::select(vec!['x', '\u{1}', '"', '\n', 'é', '漢', '\u{10ffff}']), 1..4),
            len in 8_000usize..17_000,
        ) {
            let whole: String = letters.iter().cycle().take(len).collect();
            let content = message::within_json_len(&whole, message::CONTENT_JSON_LEN_MAX);
            let message = Message {
                id: Uuid::max(),
                session_id: Uuid::max(),
                offset: Offset::MAX,
                role: Role::Assistant,
                author: Some(somebody()),
                content: content.into(),
                created_at: OffsetDateTime::UNIX_EPOCH,
                client_msg_id: Some("\"".repeat(message::CLIENT_MSG_ID_LEN_MAX)),
                ct: Some("x".repeat(1024)),
            };
            prop_assert!(ServerFrame::Message(&message).encode().len() <= FRAME_LEN_MAX);
            if message::check_content(&whole).is_ok() {
                prop_assert_eq!(content, &whole);
                let id = message.client_msg_id;
                let sent = serde_json::json!({ "type": "message.send", "client_msg_id": id, "content": whole });
                prop_assert!(sent.to_string().len() <= FRAME_LEN_MAX);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = ClientFrame::parse(&text);
        }

        #[test]
        fn a_refusal_fits_a_frame(text in "(\\PC|[\\x01-\\x1f]){0,40}", len in 1usize..400) {
            let long = text.repeat(len);
            let frames = [
                long.clone(),
                serde_json::json!(long).to_string(),
                serde_json::json!({ "type": "dance", "client_msg_id": long }).to_string(),
                serde_json::json!({ "type": long, "content": 7 }).to_string(),
            ];
            for frame in frames.iter().filter(|frame| frame.len() <= FRAME_LEN_MAX) {
                if let Err(refusal) = ClientFrame::parse(frame) {
                    prop_assert!(ServerFrame::from(&refusal).encode().len() < 1024);
                }
            }
        }

        #[test]
        fn no_json_of_our_shape_makes_the_parser_panic(
            kind in "(message.send|ask|typing|ping|auth.refresh|x)",
            id in "\\PC{0,140}",
            content in "\\PC{0,40}",
        ) {
            let text = serde_json::json!({ "type": kind, "client_msg_id": id, "content": content }).to_string();
            if let Ok(ClientFrame::Send(draft) | ClientFrame::Ask(draft)) = ClientFrame::parse(&text) {
                prop_assert_eq!(draft.content, content);
            }
        }
    }
}
