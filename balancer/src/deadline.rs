//! One timer per connection, for whatever it waits on. Moving the deadline later costs nothing: the timer fires at the
//! old moment, sees that it is too early and is armed again. So a busy connection touches the timer about once a minute.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Far enough to be never; `Instant` has no such value.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

#[derive(Debug)]
pub struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When `sleep` fires: at or before what is waited for.
    fires: Instant,
    at: Instant,
}

impl Deadline {
    pub fn new(now: Instant) -> Deadline {
        Deadline { sleep: None, fires: now, at: now + NEVER }
    }

    pub fn set(&mut self, now: Instant, timeout: Duration) {
        self.at = now + timeout.min(NEVER);
    }

    pub fn set_at(&mut self, at: Instant) {
        self.at = at;
    }

    pub fn at(&self) -> Instant {
        self.at
    }

    /// Ready once the deadline has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_at(cx, self.at)
    }

    /// Ready once this moment has passed: beside the deadline, which stays where it is. One timer serves both.
    pub fn poll_at(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        loop {
            let sleep = self.sleep.get_or_insert_with(|| {
                self.fires = at;
                Box::pin(tokio::time::sleep_until(at))
            });
            if self.fires > at {
                // Of two moments that are polled in turn the later one would take the timer from the one that has passed.
                if at <= Instant::now() {
                    return Poll::Ready(());
                }
                sleep.as_mut().reset(at);
                self.fires = at;
            }
            ready!(sleep.as_mut().poll(cx));
            if self.fires >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
            self.fires = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moved_later_fires_later_and_one_moved_earlier_earlier() {
        let start = Instant::now();
        let mut deadline = Deadline::new(start);
        deadline.set(start, Duration::from_secs(10));
        assert!(std::future::poll_fn(|cx| Poll::Ready(deadline.poll(cx).is_pending())).await);
        deadline.set(start, Duration::from_secs(30));
        std::future::poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 30);
        let again = Instant::now();
        deadline.set(again, Duration::from_secs(60));
        assert!(std::future::poll_fn(|cx| Poll::Ready(deadline.poll(cx).is_pending())).await);
        deadline.set(again, Duration::from_secs(5));
        std::future::poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(again.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_moments_the_first_wakes_in_whichever_order_they_are_polled() {
        let after = Duration::from_secs;
        for (deadline_in, other_in) in [(10, 20), (20, 10)] {
            let start = Instant::now();
            let mut deadline = Deadline::new(start);
            deadline.set(start, after(deadline_in));
            std::future::poll_fn(|cx| {
                let other = deadline.poll_at(cx, start + after(other_in));
                if other.is_ready() { other } else { deadline.poll(cx) }
            })
            .await;
            assert_eq!(start.elapsed().as_secs(), 10);
            std::future::poll_fn(|cx| {
                ready!(deadline.poll(cx));
                deadline.poll_at(cx, start + after(other_in))
            })
            .await;
            assert_eq!(start.elapsed().as_secs(), 20);
            assert_eq!(deadline.at(), start + after(deadline_in));
        }
    }
}
