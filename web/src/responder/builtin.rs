//! The built-in responder: needs nothing, says the same to the same question, at the pace of somebody who thinks.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::{Pieces, Prompt, Respond};
use crate::logic::{builtin_answer, tokens_out};

#[derive(Debug, Clone)]
pub struct Builtin {
    pace: Duration,
}

impl Builtin {
    /// `pace` is the pause before each token.
    pub fn new(pace: Duration) -> Self {
        Self { pace }
    }
}

impl Respond for Builtin {
    fn answer(&self, prompt: Prompt) -> Pieces {
        let question = prompt.turns.last().map(|turn| turn.content.as_str()).unwrap_or_default();
        let tokens = tokens_out::split(&builtin_answer::answer(question));
        let (pace, known_len) = (self.pace, prompt.known_len);
        let paced = stream::iter(tokens.into_iter().enumerate()).then(move |(i, token)| async move {
            if i >= known_len && !pace.is_zero() {
                tokio::time::sleep(pace).await;
            }
            Ok(token)
        });
        paced.boxed()
    }

    fn is_repeatable(&self) -> bool {
        true
    }
}
