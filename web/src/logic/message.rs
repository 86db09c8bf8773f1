//! A chat message as clients see it, and the limits of what they may send. Storing it: see `store`.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// The position of a message in its session: 1, 2, 3 … without gaps.
pub type Offset = i64;

/// The longest content of a client, in bytes of UTF-8.
pub const CONTENT_LEN_MAX: usize = 16 * 1024;
/// The longest content as JSON without its quotes, of clients and of the responder: of the 64 KiB that a frame of a
/// WebSocket may have, in and out, 4 KiB are left for the rest of it. JSON makes two bytes of a quote, six of most
/// control characters. What a responder says beyond it is cut off.
pub const CONTENT_JSON_LEN_MAX: usize = 60 * 1024;
/// The longest `client_msg_id`.
pub const CLIENT_MSG_ID_LEN_MAX: usize = 128;

/// One stored message of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    pub id: Uuid,
    pub session_id: Uuid,
    /// 1, 2, 3 … without gaps, in commit order.
    pub offset: Offset,
    pub role: Role,
    /// Null where the responder speaks.
    pub author: Option<Author>,
    pub content: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    pub client_msg_id: Option<String>,
    /// The consistency token of the write, where the sender of this form knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ct: Option<String>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    User,
    Assistant,
}

impl Role {
    /// The word that is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }

    /// The role behind a stored word.
    pub fn from_word(word: &str) -> Option<Role> {
        match word {
            "user" => Some(Role::User),
            "assistant" => Some(Role::Assistant),
            _ => None,
        }
    }
}

/// The person behind a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Author {
    pub id: Uuid,
    pub username: String,
    pub display_name: String,
}

/// Is this content that a session accepts? The error is a sentence for the client.
pub fn check_content(content: &str) -> Result<(), &'static str> {
    if content.len() > CONTENT_LEN_MAX {
        return Err("content is longer than 16384 bytes; send it in several messages");
    }
    if json_len(content) > CONTENT_JSON_LEN_MAX {
        return Err("content is longer than 61440 bytes as JSON; send it in several messages");
    }
    if content.trim().is_empty() {
        return Err("content is empty; send at least one visible character");
    }
    // Postgres cannot store NUL in text.
    if content.contains('\0') {
        return Err("content holds a NUL character; remove it");
    }
    Ok(())
}

/// The bytes that a text has as JSON, without its quotes.
pub fn json_len(text: &str) -> usize {
    text.bytes().map(json_len_of).sum()
}

/// The longest beginning of a text that has at most so many bytes as JSON.
pub fn within_json_len(text: &str, len_max: usize) -> &str {
    let mut len = 0;
    let fits = |byte: &u8| {
        len += json_len_of(*byte);
        len <= len_max
    };
    let end = text.bytes().take_while(fits).count();
    &text[..text.floor_char_boundary(end)]
}

/// As serde and browsers write it: nothing is escaped that need not be.
fn json_len_of(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// Is this an id that a client may give its message? The error is a sentence for the client.
pub fn check_client_msg_id(id: &str) -> Result<(), &'static str> {
    if id.is_empty() || id.len() > CLIENT_MSG_ID_LEN_MAX {
        return Err("client_msg_id must have 1 to 128 characters; a UUID is a good choice");
    }
    if !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("client_msg_id may hold visible ASCII characters only; a UUID is a good choice");
    }
    // Answers are stored under ids of this form, which makes storing them idempotent (see `answer_key`).
    if id.starts_with(ANSWER_PREFIX) {
        return Err("client_msg_id must not begin with `answer:`; a UUID is a good choice");
    }
    Ok(())
}

const ANSWER_PREFIX: &str = "answer:";

/// The idempotency key under which the answer to a question is stored: two replicas that both finish the
/// same answer store it once.
pub fn answer_key(question: Uuid) -> String {
    format!("{ANSWER_PREFIX}{question}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_accepted_can_be_stored(content in "(\\PC|\\x00|\n|\"|\\\\){0,200}", id in "\\PC{0,140}") {
            if check_content(&content).is_ok() {
                prop_assert!(!content.contains('\0') && !content.trim().is_empty());
            }
            if check_client_msg_id(&id).is_ok() {
                prop_assert!((1..=CLIENT_MSG_ID_LEN_MAX).contains(&id.len()) && id.is_ascii());
            }
        }

        #[test]
        fn the_length_as_json_is_that_of_the_json(text in "(\\PC|[\\x00-\\x1f\\x7f\"\\\\]){0,100}", len_max in 0usize..200) {
            let of_serde = |text: &str| serde_json::to_string(text).expect("text is JSON").len() - 2;
            prop_assert_eq!(json_len(&text), of_serde(&text));
            let kept = within_json_len(&text, len_max);
            prop_assert!(text.starts_with(kept) && of_serde(kept) <= len_max);
            if let Some(next) = text[kept.len()..].chars().next() {
                prop_assert!(of_serde(&format!("{kept}{next}")) > len_max, "cut no shorter than needed");
            }
        }

        #[test]
        fn a_role_is_read_as_it_was_written(word in "[a-z]{0,12}") {
            if let Some(role) = Role::from_word(&word) {
                prop_assert_eq!(role.as_str(), word);
            }
        }
    }

    #[test]
    fn blank_long_and_nul_contents_are_refused_with_advice() {
        assert!(check_content("hello").is_ok());
        assert!(check_content(" \n\t").is_err());
        assert!(check_content("a\0b").is_err());
        assert!(check_content(&"x".repeat(CONTENT_LEN_MAX)).is_ok());
        assert!(check_content(&"x".repeat(CONTENT_LEN_MAX + 1)).is_err());
        assert!(check_content(&"\n".repeat(CONTENT_LEN_MAX)).is_err_and(|advice| advice.contains("empty")));
        assert!(check_content(&"\"".repeat(CONTENT_LEN_MAX)).is_ok());
        assert!(check_content(&"\u{1}".repeat(CONTENT_JSON_LEN_MAX / 6)).is_ok());
        assert!(check_content(&"\u{1}".repeat(CONTENT_JSON_LEN_MAX / 6 + 1)).is_err());
    }

    #[test]
    fn a_client_cannot_take_the_key_of_an_answer() {
        let key = answer_key(Uuid::nil());
        assert!(check_client_msg_id(&key).is_err());
        assert!(check_client_msg_id("3f0c").is_ok());
        assert!(check_client_msg_id("").is_err());
        assert!(check_client_msg_id("a b").is_err());
    }

    #[test]
    fn a_message_keeps_its_form_on_the_wire() {
        let message = Message {
            id: Uuid::nil(),
            session_id: Uuid::nil(),
            offset: 7,
            role: Role::Assistant,
            author: None,
            content: "hi".into(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            client_msg_id: None,
            ct: None,
        };
        let text = serde_json::to_string(&message).expect("a message is plain data");
        assert!(text.contains(r#""role":"assistant""#), "{text}");
        assert!(text.contains(r#""created_at":"1970-01-01T00:00:00Z""#), "{text}");
        assert!(!text.contains("ct"), "{text}");
        assert_eq!(serde_json::from_str::<Message>(&text).expect("its own form"), message);
    }
}
