//! An answer that is being made on this replica: its tokens so far and how it ended.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::logic::message::Message;

pub struct Live {
    pub session: Uuid,
    state: Mutex<State>,
    news: Notify,
    /// Nobody has listened for too long.
    pub unheard: CancellationToken,
    /// Another replica makes the answer now.
    pub lost: CancellationToken,
}

#[derive(Default)]
struct State {
    tokens: Vec<Arc<str>>,
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
        Self { session, state: Mutex::default(), news: Notify::new(), unheard, lost }
    }

    pub fn push(&self, token: String) {
        self.lock().tokens.push(token.into());
        self.news.notify_waiters();
    }

    pub fn finish(&self, outcome: Outcome) {
        self.lock().outcome = Some(outcome);
        self.news.notify_waiters();
    }

    pub fn has_ended(&self) -> bool {
        self.lock().outcome.is_some()
    }

    /// The tokens from `from` on, and the outcome if it is known.
    pub fn page(&self, from: usize) -> (Vec<Arc<str>>, Option<Outcome>) {
        let state = self.lock();
        (state.tokens.get(from..).unwrap_or_default().to_vec(), state.outcome.clone())
    }

    /// A wake-up for news that come after this call: take it, look, then wait.
    pub fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}
