//! An answer that is being made on this replica: its tokens so far, who has taken them, and how it ended.
//!
//! It is taken by readers on this replica and by the one who records it in Redis. Its maker keeps to the pace of the
//! fastest of them: `logic/lead.rs`.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::logic::lead::Lead;
use crate::logic::message::Message;

pub struct Live {
    pub session: Uuid,
    state: Mutex<State>,
    news: Notify,
    /// Something was taken: the maker may go on.
    taken: Notify,
    /// Nobody has listened for too long.
    pub unheard: CancellationToken,
    /// Another replica makes the answer now.
    pub lost: CancellationToken,
}

#[derive(Default)]
struct State {
    tokens: Vec<Arc<str>>,
    /// Tokens that the fastest has taken.
    taken_len: usize,
    lead: Lead,
    outcome: Option<Outcome>,
}

/// How an answer ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    Done(Box<Message>),
    Failed { code: String, detail: String },
}

impl Live {
    pub fn new(session: Uuid) -> Self {
        let (unheard, lost) = (CancellationToken::new(), CancellationToken::new());
        let (news, taken) = (Notify::new(), Notify::new());
        Self { session, state: Mutex::default(), news, taken, unheard, lost }
    }

    pub fn push(&self, token: String) {
        self.lock().push(token);
        self.news.notify_waiters();
    }

    /// Comes back when the maker may go on: it is not too far ahead, or those behind were waited for long enough.
    pub async fn keep_pace(&self) {
        loop {
            let taken = self.taken.notified();
            let held = self.lock().lead.hold_until(Instant::now().into_std());
            let Some(until) = held else { return };
            // Whether in time or not, the next look tells.
            let _ = tokio::time::timeout_at(until.into(), taken).await;
        }
    }

    pub fn finish(&self, outcome: Outcome) {
        self.lock().outcome = Some(outcome);
        self.news.notify_waiters();
    }

    pub fn has_ended(&self) -> bool {
        self.lock().outcome.is_some()
    }

    /// The tokens from `from` on, and the outcome if it is known. Who asks for them has taken those before.
    pub fn page(&self, from: usize) -> (Vec<Arc<str>>, Option<Outcome>) {
        self.pass(from);
        let state = self.lock();
        (state.tokens.get(from..).unwrap_or_default().to_vec(), state.outcome.clone())
    }

    /// The tokens before `to` are taken, or nobody is waited for to take them.
    pub fn pass(&self, to: usize) {
        let is_news = self.lock().pass(to);
        if is_news {
            self.taken.notify_waiters();
        }
    }

    /// A wake-up for news that come after this call: take it, look, then wait.
    pub fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}

impl State {
    fn push(&mut self, token: String) {
        self.lead.on_made(token.len());
        self.tokens.push(token.into());
    }

    /// Whether the fastest is further than before.
    fn pass(&mut self, to: usize) -> bool {
        let to = to.min(self.tokens.len());
        let Some(passed) = self.tokens.get(self.taken_len..to).filter(|passed| !passed.is_empty()) else {
            return false;
        };
        let bytes = passed.iter().map(|token| token.len()).sum();
        self.taken_len = to;
        self.lead.on_taken(bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::logic::lead::{AHEAD_MAX, WAIT_MAX};

    const TOKEN_LEN: usize = 64;

    /// With so many bytes made.
    fn live(bytes: usize) -> Live {
        let live = Live::new(Uuid::nil());
        for _ in 0..bytes / TOKEN_LEN {
            live.push("x".repeat(TOKEN_LEN));
        }
        live
    }

    fn goes_on(live: &Live) -> bool {
        live.keep_pace().now_or_never().is_some()
    }

    #[tokio::test]
    async fn the_fastest_of_those_who_take_it_sets_the_pace_and_a_slow_one_holds_nobody_up() {
        let live = live(2 * AHEAD_MAX);
        assert!(!goes_on(&live));
        live.page(1);
        assert!(!goes_on(&live), "the slow one");
        live.page(AHEAD_MAX / TOKEN_LEN);
        assert!(goes_on(&live), "the fast one");
        live.page(2);
        assert!(goes_on(&live));
    }

    #[tokio::test]
    async fn who_resumes_behind_the_end_has_taken_what_there_is() {
        let live = live(2 * AHEAD_MAX);
        assert!(live.page(usize::MAX).0.is_empty());
        assert!(goes_on(&live));
        live.push("more".into());
        assert!(goes_on(&live));
    }

    #[tokio::test(start_paused = true)]
    async fn a_maker_that_waits_is_woken_when_something_is_taken() {
        let live = live(2 * AHEAD_MAX);
        let began = Instant::now();
        // It begins to wait before the page is asked for.
        tokio::join!(biased; live.keep_pace(), async { drop(live.page(2 * AHEAD_MAX / TOKEN_LEN)) });
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_goes_on_after_a_while() {
        let live = live(2 * AHEAD_MAX);
        let began = Instant::now();
        live.keep_pace().await;
        assert_eq!(began.elapsed(), WAIT_MAX);
        assert!(goes_on(&live), "it is not held up again");
    }
}
