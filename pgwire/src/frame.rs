//! The five-byte head of each message, and the walk from head to head. A message may be longer than what has come.

/// Bytes of a head: the kind, and a length that counts itself but not the kind.
pub const HEAD_LEN: usize = 5;

/// The kind and size of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: u8,
    /// Bytes after the head.
    pub body_len: u32,
}

/// A length that no message can have. The stream cannot be followed beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message kind 0x{kind:02x} has the impossible length {length}")]
pub struct HeadError {
    pub kind: u8,
    pub length: i32,
}

impl Head {
    /// Reads the head at the start of `bytes`; None when fewer than five have come.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<Head>, HeadError> {
        let Some(&[kind, a, b, c, d]) = bytes.first_chunk::<HEAD_LEN>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes([a, b, c, d]);
        if length < 4 {
            return Err(HeadError { kind, length });
        }
        Ok(Some(Head { kind, body_len: length as u32 - 4 }))
    }

    /// Bytes of the whole message.
    #[inline]
    pub fn total_len(self) -> usize {
        HEAD_LEN + self.body_len as usize
    }

    /// The head as bytes.
    pub fn to_bytes(self) -> [u8; HEAD_LEN] {
        let [a, b, c, d] = (self.body_len.saturating_add(4)).to_be_bytes();
        [self.kind, a, b, c, d]
    }
}

/// One message, or the part of it that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub head: Head,
    /// The body as far as it has come.
    pub body: &'a [u8],
}

impl Frame<'_> {
    pub fn is_complete(&self) -> bool {
        self.body.len() == self.head.body_len as usize
    }
}

/// Walks the messages in a buffer. The last may be incomplete; a head that is cut off ends the walk.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Frames { rest: bytes }
    }

    /// What the walk has not passed yet: empty, or a head that is cut off, or what follows an impossible head.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, HeadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let head = match Head::parse(self.rest) {
            Ok(head) => head?,
            Err(error) => return Some(Err(error)),
        };
        let end = head.total_len().min(self.rest.len());
        let frame = Frame { head, body: &self.rest[HEAD_LEN..end] };
        self.rest = &self.rest[end..];
        Some(Ok(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_below_four_is_an_error() {
        for length in [3, 0, -1, i32::MIN] {
            let mut bytes = vec![b'Q'];
            bytes.extend(i32::to_be_bytes(length));
            assert_eq!(Head::parse(&bytes), Err(HeadError { kind: b'Q', length }));
        }
    }

    #[test]
    fn the_largest_length_is_not_an_overflow() {
        let head = Head::parse(&[b'd', 0x7f, 0xff, 0xff, 0xff]).unwrap().unwrap();
        assert_eq!(head.total_len(), i32::MAX as usize + 1);
        assert_eq!(head.to_bytes(), [b'd', 0x7f, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn a_message_may_be_longer_than_what_has_come() {
        let mut walk = Frames::new(&[b'Q', 0, 0, 0, 9, 1, 2]);
        let frame = walk.next().unwrap().unwrap();
        assert_eq!((frame.body, frame.is_complete()), (&[1u8, 2][..], false));
        assert!(walk.next().is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for frame in Frames::new(&bytes).take(100) {
                let Ok(frame) = frame else { break };
                prop_assert!(frame.body.len() <= frame.head.body_len as usize);
            }
        }

        #[test]
        fn messages_split_at_every_byte_are_found_again(
            messages in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)), 1..6)
        ) {
            let mut wire = Vec::new();
            for (kind, body) in &messages {
                wire.extend(Head { kind: *kind, body_len: body.len() as u32 }.to_bytes());
                wire.extend(body);
            }
            for cut in 0..=wire.len() {
                let mut found = 0;
                for frame in Frames::new(&wire[..cut]) {
                    let frame = frame.unwrap();
                    prop_assert_eq!(frame.head.kind, messages[found].0);
                    prop_assert!(messages[found].1.starts_with(frame.body));
                    found += 1;
                }
                prop_assert!(found == messages.len() || cut < wire.len());
            }
        }
    }
}
