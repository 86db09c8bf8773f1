//! What replicas tell each other over Redis: one header line, then the frame exactly as members get it.
//!
//! The publisher encodes a message once for the whole fleet; a subscriber reads the header and hands the rest on.

use uuid::Uuid;

use crate::logic::message::Offset;

/// Sessions are spread over this many channels, so that a replica may listen to a part of them only.
pub const PARTITION_COUNT: u8 = 64;

/// One published thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope<'a> {
    /// A stored message: `frame` is its `message` frame.
    Message { session: Uuid, offset: Offset, frame: &'a str },
    /// A frame that may be lost: typing, presence.
    Passing { session: Uuid, frame: &'a str },
    /// A user, or everybody, is not a member any more.
    Removed { session: Uuid, user: Option<Uuid> },
    /// A frame of a streamed answer, which may be lost; those who serve the stream look again.
    Token { session: Uuid, stream: Uuid, frame: &'a str },
}

impl<'a> Envelope<'a> {
    pub fn session(&self) -> Uuid {
        match *self {
            Envelope::Message { session, .. }
            | Envelope::Passing { session, .. }
            | Envelope::Removed { session, .. }
            | Envelope::Token { session, .. } => session,
        }
    }

    pub fn encode(&self) -> String {
        match self {
            Envelope::Message { session, offset, frame } => format!("m {session} {offset}\n{frame}"),
            Envelope::Passing { session, frame } => format!("p {session}\n{frame}"),
            Envelope::Removed { session, user: Some(user) } => format!("r {session} {user}\n"),
            Envelope::Removed { session, user: None } => format!("r {session}\n"),
            Envelope::Token { session, stream, frame } => format!("t {session} {stream}\n{frame}"),
        }
    }

    /// `None` for what no replica of this version writes: another version's news are not for us.
    pub fn decode(text: &'a str) -> Option<Envelope<'a>> {
        let (head, frame) = text.split_once('\n')?;
        let mut words = head.split(' ');
        let kind = words.next()?;
        let session = Uuid::try_parse(words.next()?).ok()?;
        let argument = words.next();
        if words.next().is_some() {
            return None;
        }
        match (kind, argument) {
            ("m", Some(offset)) => {
                let offset = offset.parse().ok().filter(|offset| *offset > 0)?;
                Some(Envelope::Message { session, offset, frame })
            }
            ("p", None) => Some(Envelope::Passing { session, frame }),
            ("r", None) => Some(Envelope::Removed { session, user: None }),
            ("r", Some(user)) => Some(Envelope::Removed { session, user: Some(Uuid::try_parse(user).ok()?) }),
            ("t", Some(stream)) => {
                Some(Envelope::Token { session, stream: Uuid::try_parse(stream).ok()?, frame })
            }
            _ => None,
        }
    }
}

/// The partition of a session. UUIDv7 has its time in front and chance at the end: the last byte is even enough.
pub fn partition(session: Uuid) -> u8 {
    session.as_bytes()[15] % PARTITION_COUNT
}

/// The channel of a partition.
pub fn channel(partition: u8) -> String {
    format!("arena:chat:{partition}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uuid() -> impl Strategy<Value = Uuid> {
        any::<u128>().prop_map(Uuid::from_u128)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(a in uuid(), b in uuid(), offset in 1i64.., frame in "\\PC*\n?\\PC*") {
            let all = [
                Envelope::Message { session: a, offset, frame: &frame },
                Envelope::Passing { session: a, frame: &frame },
                Envelope::Removed { session: a, user: None },
                Envelope::Removed { session: a, user: Some(b) },
                Envelope::Token { session: a, stream: b, frame: &frame },
            ];
            for envelope in all {
                let text = envelope.encode();
                prop_assert_eq!(Envelope::decode(&text), Some(envelope));
            }
            prop_assert!(partition(a) < PARTITION_COUNT);
        }

        #[test]
        fn anything_else_is_refused_without_a_panic(text in "\\PC*\n?\\PC*") {
            if let Some(envelope) = Envelope::decode(&text) {
                prop_assert_eq!(envelope.session(), envelope.session());
            }
        }
    }
}
