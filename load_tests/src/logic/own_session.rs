//! What a user knows of the session that only it writes to: each answer can be foretold, retries included.

use crate::logic::content;
use crate::logic::fault::Fault;
use crate::logic::shape::{Message, Page};

/// The writer's own record of its session.
#[derive(Debug, Clone)]
pub struct OwnSession {
    pub id: String,
    seed: u64,
    user: u32,
    stored: u64,
    post: Post,
}

/// What became of the newest message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Post {
    Known,
    /// Sent, and no answer came: it may be stored or not. The next try bears the same key.
    Open,
}

impl OwnSession {
    pub fn new(id: String, seed: u64, user: u32) -> Self {
        Self { id, seed, user, stored: 0, post: Post::Known }
    }

    /// How many messages are known to be stored; also the newest known offset.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// The newest message that was sent is known to be stored.
    pub fn is_known(&self) -> bool {
        self.post == Post::Known
    }

    /// Key and text of message `n` (from 1).
    pub fn message(&self, n: u64) -> (String, String) {
        (format!("{}-{n}", self.user), content::message(self.seed, self.user, n))
    }

    /// The next message goes out.
    pub fn on_send(&mut self) -> (String, String) {
        self.post = Post::Open;
        self.message(self.stored + 1)
    }

    /// Statuses that are right for the newest message: a retry may find its first try stored.
    pub fn on_posted(&mut self, status: u16, replayed: bool, message: &Message) -> Result<(), Fault> {
        debug_assert_eq!(self.post, Post::Open);
        self.post = Post::Known;
        self.stored += 1;
        if (status == 200) != replayed {
            let detail = format!("status {status}, Idempotency-Replayed {replayed}");
            return Err(Fault::shape("status and Idempotency-Replayed disagree", detail));
        }
        self.check(message, self.stored)
    }

    /// The newest message was sent once more with its key.
    pub fn on_repeated(&self, status: u16, replayed: bool, message: &Message) -> Result<(), Fault> {
        if status != 200 || !replayed {
            let detail = format!("status {status}, Idempotency-Replayed {replayed}");
            return Err(Fault::order("a repeated message was not told as a replay", detail));
        }
        self.check(message, self.stored)
    }

    /// A page of `after=`: what was stored must be there, in order, whole and nothing else.
    pub fn on_page(&self, after: u64, limit: usize, page: &Page<Message>) -> Result<(), Fault> {
        for (expected, message) in (after + 1..).zip(&page.items) {
            self.check(message, expected)?;
        }
        // One more than known may be there when an answer was lost on its way.
        let least = usize::try_from(self.stored.saturating_sub(after)).unwrap_or(limit).min(limit);
        let most = (least + usize::from(self.post == Post::Open)).min(limit);
        if !(least..=most).contains(&page.items.len()) {
            let detail = format!("{} after {after}, {} stored", page.items.len(), self.stored);
            let rule = if page.items.len() < least {
                "a stored message is missing"
            } else {
                "a message nobody sent"
            };
            return Err(Fault::order(rule, detail));
        }
        Ok(())
    }

    fn check(&self, message: &Message, n: u64) -> Result<(), Fault> {
        let (key, text) = self.message(n);
        if u64::try_from(message.offset) != Ok(n) {
            return Err(Fault::order("an offset is not the next one", format!("{} for {n}", message.offset)));
        }
        if message.content != text || message.client_msg_id.as_deref() != Some(&key) {
            return Err(Fault::order("another message at this offset", format!("offset {n}")));
        }
        if message.role != "user" || message.session_id != self.id {
            return Err(Fault::shape("role or session_id is wrong", format!("role {}", message.role)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(session: &OwnSession, n: u64) -> Message {
        let (key, content) = session.message(n);
        Message {
            id: format!("m{n}"),
            session_id: session.id.clone(),
            offset: n as i64,
            role: "user".into(),
            author: None,
            content,
            created_at: String::new(),
            client_msg_id: Some(key),
        }
    }

    fn page(session: &OwnSession, numbers: std::ops::RangeInclusive<u64>) -> Page<Message> {
        Page { items: numbers.map(|n| stored(session, n)).collect(), has_more: false, next: None }
    }

    fn with_stored(count: u64) -> OwnSession {
        let mut session = OwnSession::new("s".into(), 1, 2);
        for n in 1..=count {
            session.on_send();
            session.on_posted(201, false, &stored(&session, n)).expect("as sent");
        }
        session
    }

    #[test]
    fn a_lost_answer_may_show_in_a_page_and_its_retry_is_a_replay() {
        let mut session = with_stored(2);
        session.on_send();
        assert_eq!(session.on_page(0, 20, &page(&session, 1..=2)), Ok(()));
        assert_eq!(session.on_page(0, 20, &page(&session, 1..=3)), Ok(()));
        session.on_send();
        assert_eq!(session.on_posted(200, true, &stored(&session, 3)), Ok(()));
        assert!(session.on_page(0, 20, &page(&session, 1..=2)).is_err(), "now it must be there");
    }

    #[test]
    fn a_replay_that_is_not_told_or_tells_another_message_is_wrong() {
        let session = with_stored(2);
        assert_eq!(session.on_repeated(200, true, &stored(&session, 2)), Ok(()));
        assert!(session.on_repeated(201, false, &stored(&session, 3)).is_err());
        assert!(session.on_repeated(200, true, &stored(&session, 1)).is_err());
    }

    proptest! {
        #[test]
        fn a_page_passes_only_when_it_is_the_stored_run(count in 0u64..30, after in 0u64..30, limit in 1usize..25, got in 0u64..35) {
            let after = after.min(count);
            let session = with_stored(count);
            let answer = page(&session, after + 1..=after + got);
            let right = (count - after).min(limit as u64);
            prop_assert_eq!(session.on_page(after, limit, &answer).is_ok(), got == right);
        }

        #[test]
        fn swapped_messages_never_pass(count in 2u64..20, at in 0usize..18) {
            let session = with_stored(count);
            let mut answer = page(&session, 1..=count);
            let at = at.min(answer.items.len() - 2);
            answer.items.swap(at, at + 1);
            prop_assert!(session.on_page(0, 50, &answer).is_err());
        }
    }
}
