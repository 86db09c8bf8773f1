//! One question that many ask at once: whoever comes while it is under way shares the next one with all who came since.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// The last answer, and the turn to ask again. `T` is cheap to copy.
pub struct Sounding<T> {
    turn: tokio::sync::Mutex<()>,
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Copy> Sounding<T> {
    pub fn new() -> Self {
        Self { turn: tokio::sync::Mutex::new(()), last: Mutex::new(None) }
    }

    /// The answer to a question that was asked at most `age_max` before now; `ask` is polled where there is none.
    pub async fn within(&self, age_max: Duration, ask: impl Future<Output = T>) -> T {
        let now = Instant::now();
        let since = now.checked_sub(age_max).unwrap_or(now);
        if let Some(answer) = self.since(since) {
            return answer;
        }
        let _turn = self.turn.lock().await;
        if let Some(answer) = self.since(since) {
            return answer;
        }
        let asked = Instant::now();
        let answer = ask.await;
        *self.lock() = Some((asked, answer));
        answer
    }

    fn since(&self, since: Instant) -> Option<T> {
        self.lock().filter(|(asked, _)| *asked >= since).map(|(_, answer)| answer)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, T)>> {
        self.last.lock().expect("nobody panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_it_is_asked_shares_the_next_question() {
        let (sounding, asked) = (Sounding::new(), AtomicUsize::new(0));
        let ask = async || {
            let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
            number
        };
        let late = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            sounding.within(Duration::ZERO, ask()).await
        };
        let later = async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            sounding.within(Duration::ZERO, ask()).await
        };
        let answers = tokio::join!(sounding.within(Duration::ZERO, ask()), late, later);
        // The answer under way may be older than those who came after it began.
        assert_eq!(answers, (1, 2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_young_enough_is_taken_as_it_is() {
        let sounding = Sounding::new();
        assert_eq!(sounding.within(Duration::ZERO, async { 1 }).await, 1);
        tokio::time::advance(Duration::from_millis(40)).await;
        assert_eq!(sounding.within(Duration::from_millis(50), async { 2 }).await, 1);
        assert_eq!(sounding.within(Duration::from_millis(30), async { 3 }).await, 3);
    }
}
