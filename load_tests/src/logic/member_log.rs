//! What one member was sent, in order, over all its connections, and how that is compared with what is stored.

use crate::logic::fault::Fault;
use std::collections::HashMap;
use uuid::Uuid;

/// One member's log: it begins behind the offset of its first welcome.
#[derive(Debug, Clone, Default)]
pub struct MemberLog {
    first: Option<i64>,
    ids: Vec<Uuid>,
}

/// What the database holds of one session, in the order of offsets.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    ids: Vec<Uuid>,
    offsets_by_key: HashMap<String, i64>,
}

impl MemberLog {
    /// What to resume from; `None` before the first welcome.
    pub fn since(&self) -> Option<i64> {
        self.first.map(|first| first + self.ids.len() as i64)
    }

    /// The offset up to which everything has come.
    pub fn last(&self) -> i64 {
        self.since().unwrap_or(0)
    }

    /// The first welcome says where the log begins; later ones must not be behind it.
    pub fn on_welcome(&mut self, room_offset: i64) -> Result<(), Fault> {
        match self.since() {
            None => self.first = Some(room_offset),
            Some(last) if room_offset < last => {
                let detail = format!("offset {room_offset} at a member that has {last}");
                return Err(Fault::order("the room went back", detail));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// A message has come: it must be the next one.
    pub fn on_message(&mut self, offset: i64, id: Uuid) -> Result<(), Fault> {
        let expected = self.last() + 1;
        if offset != expected {
            let rule =
                if offset > expected { "an offset was left out" } else { "an offset came twice or late" };
            return Err(Fault::order(rule, format!("{offset} came for {expected}")));
        }
        self.ids.push(id);
        Ok(())
    }

    /// The log equals what is stored behind its beginning.
    pub fn check(&self, stored: &Stored) -> Result<(), Fault> {
        let first = usize::try_from(self.first.unwrap_or(0)).unwrap_or(usize::MAX);
        let expected = stored.ids.get(first..).unwrap_or_default();
        if self.ids.len() != expected.len() {
            let detail = format!("{} came, {} are stored", self.ids.len(), expected.len());
            return Err(Fault::order("a log is not as long as the room", detail));
        }
        match self.ids.iter().zip(expected).position(|(came, stored)| came != stored) {
            Some(at) => {
                Err(Fault::order("a log names another message", format!("offset {}", first + at + 1)))
            }
            None => Ok(()),
        }
    }
}

impl Stored {
    /// The next row in the order of offsets; they are 1, 2, 3 … without a gap.
    pub fn on_row(&mut self, offset: i64, id: Uuid, key: Option<String>) -> Result<(), Fault> {
        let expected = self.last() + 1;
        if offset != expected {
            return Err(Fault::order("stored offsets have a gap", format!("{offset} for {expected}")));
        }
        self.ids.push(id);
        if let Some(key) = key
            && self.offsets_by_key.insert(key.clone(), offset).is_some()
        {
            return Err(Fault::order("a message is stored twice", key));
        }
        Ok(())
    }

    pub fn last(&self) -> i64 {
        self.ids.len() as i64
    }

    /// How many messages bear a key of their sender.
    pub fn keys(&self) -> usize {
        self.offsets_by_key.len()
    }

    /// What was acknowledged is there, at the offset that the acknowledgement told.
    pub fn check_ack(&self, key: &str, offset: i64) -> Result<(), Fault> {
        match self.offsets_by_key.get(key) {
            Some(stored) if *stored == offset => Ok(()),
            Some(stored) => {
                let detail = format!("{key}: {offset} acknowledged, {stored} stored");
                Err(Fault::order("acknowledged at another offset", detail))
            }
            None => Err(Fault::order("acknowledged and lost", key.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: i64) -> Uuid {
        Uuid::from_u128(n as u128)
    }

    fn stored(count: i64) -> Stored {
        let mut stored = Stored::default();
        for n in 1..=count {
            stored.on_row(n, id(n), Some(format!("k{n}"))).expect("rows in order");
        }
        stored
    }

    fn log(first: i64, offsets: impl IntoIterator<Item = i64>) -> MemberLog {
        let mut log = MemberLog::default();
        log.on_welcome(first).expect("the first welcome");
        for n in offsets {
            log.on_message(n, id(n)).expect("the next offset");
        }
        log
    }

    #[test]
    fn a_log_that_equals_the_database_passes_wherever_it_began() {
        assert_eq!(log(0, 1..=5).check(&stored(5)), Ok(()));
        assert_eq!(log(3, 4..=5).check(&stored(5)), Ok(()));
        assert_eq!(log(5, []).check(&stored(5)), Ok(()));
    }

    #[test]
    fn a_resumption_goes_on_where_the_log_ended_and_a_room_never_goes_back() {
        let mut log = log(2, 3..=4);
        assert_eq!(log.since(), Some(4));
        log.on_welcome(7).expect("a room that has gone on");
        assert_eq!(log.last(), 4, "a welcome is no message");
        assert!(log.on_welcome(3).is_err());
    }

    #[test]
    fn acknowledged_messages_must_be_where_they_were_told_to_be() {
        assert_eq!(stored(3).check_ack("k2", 2), Ok(()));
        assert!(stored(3).check_ack("k2", 3).is_err());
        assert!(stored(3).check_ack("k4", 4).expect_err("not stored").to_string().contains("lost"));
    }

    #[test]
    fn gaps_and_doubles_in_the_database_are_found() {
        assert!(stored(2).on_row(4, id(4), None).is_err());
        assert!(stored(2).on_row(3, id(3), Some("k1".into())).is_err());
    }

    proptest! {
        #[test]
        fn a_lost_doubled_or_exchanged_message_never_passes(count in 2i64..20, at in 1i64..19, change in 0u8..3) {
            let at = at.min(count - 1);
            let mut offsets: Vec<i64> = (1..=count).collect();
            let index = at as usize - 1;
            match change {
                0 => { offsets.remove(index); }
                1 => offsets.insert(index, at),
                _ => offsets.swap(index, index + 1),
            }
            let mut log = log(0, []);
            let told = offsets.iter().try_for_each(|n| log.on_message(*n, id(*n)));
            prop_assert!(told.is_err());
        }

        #[test]
        fn a_log_with_another_messages_id_never_passes(count in 1i64..20, at in 0i64..19) {
            let mut log = log(0, []);
            for n in 1..=count {
                log.on_message(n, id(if n == at % count + 1 { 1000 } else { n })).expect("the next offset");
            }
            prop_assert!(log.check(&stored(count)).is_err());
        }
    }
}
