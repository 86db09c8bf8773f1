//! The server's WebSocket frames as bytes (RFC 6455, 5.2): never masked, never in pieces. What comes in is read by
//! tungstenite: see `chat/socket/wire.rs`.

use std::ops::Deref;
use std::sync::Arc;

/// The last frame of a message: all of ours are.
const FIN: u8 = 0x80;
const TEXT: u8 = FIN | 0x1;
const CLOSE: u8 = FIN | 0x8;
const PING: u8 = FIN | 0x9;
/// The longest payload of a control frame.
const CONTROL_LEN_MAX: usize = 125;

/// A frame, head included, as it is written. It is encoded once for all members: clones share the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Arc<[u8]>);

impl Frame {
    pub fn text(payload: &str) -> Self {
        let mut bytes = Vec::with_capacity(payload.len() + 10);
        bytes.push(TEXT);
        match payload.len() {
            len @ 0..=125 => bytes.push(len as u8),
            len @ 126..=0xffff => {
                bytes.push(126);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                bytes.push(127);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload.as_bytes());
        Self(bytes.into())
    }

    pub fn ping() -> Self {
        Self([PING, 0].into())
    }

    /// Code and reason; a reason that is too long for a control frame is cut at a character.
    pub fn close(code: u16, reason: &str) -> Self {
        let reason = &reason[..reason.floor_char_boundary(CONTROL_LEN_MAX - 2)];
        let mut bytes = vec![CLOSE, 2 + reason.len() as u8];
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(reason.as_bytes());
        Self(bytes.into())
    }

    /// Whole frames that somebody else encoded: tungstenite's answers to pings and closes.
    pub fn encoded(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;
    use tungstenite::Message;
    use tungstenite::protocol::{Role, WebSocketContext};

    use super::*;

    /// What a client that knows nothing of us reads.
    fn read(bytes: &[u8]) -> Vec<Message> {
        let mut wire = Cursor::new(bytes.to_vec());
        let mut client = WebSocketContext::new(Role::Client, None);
        let mut found = Vec::new();
        let end = bytes.len() as u64;
        // The client's own answers go behind what it reads.
        while wire.position() < end || found.is_empty() {
            found.push(client.read(&mut wire).expect("a frame of RFC 6455"));
        }
        found
    }

    #[test]
    fn each_form_of_the_length_is_read_back() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 200_000] {
            let payload = "x".repeat(len);
            assert_eq!(read(&Frame::text(&payload)), [Message::text(payload)], "{len} bytes");
        }
    }

    #[test]
    fn a_ping_is_a_ping() {
        assert_eq!(read(&Frame::ping()), [Message::Ping(Default::default())]);
    }

    #[test]
    fn a_close_bears_code_and_reason_and_its_reason_always_fits() {
        for reason in ["", "too slow", &"ä".repeat(100)] {
            let messages = read(&Frame::close(4408, reason));
            let [Message::Close(Some(close))] = &messages[..] else { panic!("{messages:?}") };
            assert_eq!(u16::from(close.code), 4408);
            assert!(reason.starts_with(close.reason.as_str()), "{reason:?}: {:?}", close.reason);
            assert!(close.reason.len() + 1 >= reason.len().min(123), "cut no shorter than needed");
        }
    }

    proptest! {
        #[test]
        fn frames_in_a_row_are_read_back_in_order(texts in prop::collection::vec("\\PC{0,200}", 1..20)) {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| Frame::text(text).to_vec()).collect();
            let expected: Vec<Message> = texts.into_iter().map(Message::text).collect();
            // A context reads ahead: count messages, not bytes.
            let mut wire = Cursor::new(bytes);
            let mut client = WebSocketContext::new(Role::Client, None);
            for message in expected {
                prop_assert_eq!(client.read(&mut wire).expect("a frame of RFC 6455"), message);
            }
        }
    }
}
