//! What one member has seen of a room: every offset once, in order, none left out.

use crate::logic::fault::Fault;
use std::time::Duration;

/// One member's view of a room over one connection and its resumptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomView {
    last: i64,
}

impl RoomView {
    /// A member that has seen all up to `offset`.
    pub fn at(offset: i64) -> Self {
        Self { last: offset }
    }

    /// The offset up to which everything has come.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// A message has come. After a fault the view goes on from there, so that one loss is told once.
    pub fn on_message(&mut self, offset: i64) -> Result<(), Fault> {
        let expected = self.last + 1;
        let verdict = match offset {
            _ if offset == expected => Ok(()),
            _ if offset > expected => {
                Err(Fault::order("an offset was left out", format!("{offset} came for {expected}")))
            }
            _ => Err(Fault::order("an offset came twice or late", format!("{offset} came for {expected}"))),
        };
        self.last = self.last.max(offset);
        verdict
    }

    /// The room's greeting: with `since`, nothing may be skipped; without, the view begins at the room's offset.
    pub fn on_welcome(since: Option<i64>, room_offset: i64) -> Result<Self, Fault> {
        match since {
            None => Ok(Self::at(room_offset)),
            Some(since) if room_offset < since => Err(Fault::order(
                "the room went back",
                format!("offset {room_offset} at a member that has {since}"),
            )),
            Some(since) => Ok(Self::at(since)),
        }
    }
}

/// A message that was sent into a room: its ack and its own delivery must come, once, and agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub client_msg_id: String,
    pub content: String,
    pub at: Duration,
    acked: Option<i64>,
    delivered: Option<i64>,
}

impl Sent {
    pub fn new(client_msg_id: String, content: String, at: Duration) -> Self {
        Self { client_msg_id, content, at, acked: None, delivered: None }
    }

    pub fn on_ack(&mut self, offset: i64) -> Result<(), Fault> {
        if self.acked.replace(offset).is_some() {
            return Err(Fault::order("a message was acknowledged twice", format!("offset {offset}")));
        }
        self.agree()
    }

    pub fn on_delivery(&mut self, offset: i64, content: &str) -> Result<(), Fault> {
        if self.delivered.replace(offset).is_some() {
            return Err(Fault::order("a message came twice to its sender", format!("offset {offset}")));
        }
        if content != self.content {
            return Err(Fault::order("a message came with another text", format!("offset {offset}")));
        }
        self.agree()
    }

    /// Both ack and delivery are in.
    pub fn is_settled(&self) -> bool {
        self.acked.is_some() && self.delivered.is_some()
    }

    pub fn is_acked(&self) -> bool {
        self.acked.is_some()
    }

    fn agree(&self) -> Result<(), Fault> {
        match (self.acked, self.delivered) {
            (Some(acked), Some(delivered)) if acked != delivered => Err(Fault::order(
                "ack and delivery name different offsets",
                format!("{acked} acknowledged, {delivered} delivered"),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_resumed_member_misses_nothing_and_a_new_one_starts_at_the_room() {
        assert_eq!(RoomView::on_welcome(Some(4), 9), Ok(RoomView::at(4)));
        assert_eq!(RoomView::on_welcome(None, 9), Ok(RoomView::at(9)));
        assert!(RoomView::on_welcome(Some(10), 9).is_err());
    }

    #[test]
    fn one_loss_is_told_once() {
        let mut view = RoomView::at(0);
        assert!(view.on_message(3).is_err());
        assert_eq!(view.on_message(4), Ok(()));
    }

    #[test]
    fn a_sent_message_settles_once_with_one_offset() {
        let sent = || Sent::new("a".into(), "text".into(), Duration::ZERO);
        let mut good = sent();
        assert_eq!(good.on_delivery(7, "text"), Ok(()));
        assert!(!good.is_settled());
        assert_eq!(good.on_ack(7), Ok(()));
        assert!(good.is_settled());
        assert!(good.on_ack(7).is_err(), "acked twice");
        let mut other = sent();
        assert_eq!(other.on_ack(7), Ok(()));
        assert!(other.on_delivery(8, "text").is_err(), "another offset");
        assert!(sent().on_delivery(7, "texx").is_err(), "another text");
    }

    proptest! {
        #[test]
        fn only_the_gapless_row_passes(start in 0i64..1000, offsets in proptest::collection::vec(0i64..8, 0..8)) {
            let mut view = RoomView::at(start);
            let passed = offsets.iter().all(|step| view.on_message(start + step).is_ok());
            let gapless = offsets.iter().enumerate().all(|(i, step)| *step == i as i64 + 1);
            prop_assert_eq!(passed, gapless);
        }
    }
}
