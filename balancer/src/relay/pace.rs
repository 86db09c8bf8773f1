//! `limit_rate`: how fast an answer goes out.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::Exchange;
use crate::buffer::BUFFER_LEN;
use crate::conf::template::Template;
use crate::conf::value;
use crate::error::Error;
use crate::logic::rate::Rate;

impl Exchange<'_> {
    /// The limit towards the client.
    pub(super) fn rate_down(&self) -> Option<Rate> {
        let rates = &self.location.rates;
        let per_second = self.scratch.story.limit_rate.or_else(|| self.size(&rates.down))?;
        (per_second > 0).then(|| Rate { per_second, after: self.size(&rates.after).unwrap_or_default() })
    }

    /// `proxy_limit_rate`: the limit from the upstream.
    pub(super) fn rate_up(&self) -> Option<Rate> {
        let per_second = self.size(&self.location.rates.up).filter(|rate| *rate > 0)?;
        Some(Rate { per_second, after: 0 })
    }

    fn size(&self, template: &Template) -> Option<u64> {
        if template.constant() == Some(b"") {
            return None;
        }
        let text = template.to_bytes(&self.facts());
        std::str::from_utf8(&text).ok().and_then(value::size)
    }

    /// Whole seconds of the wall clock since the request began: what nginx counts by.
    pub(super) fn seconds_since(&self, began: Instant) -> u64 {
        let now = Instant::now();
        let wall = self.worker.clock.wall(now).duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_then = wall.saturating_sub(now.saturating_duration_since(began));
        wall.as_secs() - wall_then.as_secs()
    }

    /// Lets time pass; ends early when the client leaves.
    pub(super) async fn pause(&mut self, time: Duration) -> Result<(), Error> {
        let Exchange { down, scratch, .. } = self;
        down.deadline.set(tokio::time::Instant::now(), time);
        poll_fn(|cx| {
            if down.poll_gone(cx, &mut scratch.inbound, BUFFER_LEN) {
                return Poll::Ready(Err(Error::ClientGone));
            }
            down.deadline.poll(cx).map(Ok)
        })
        .await
    }

    /// Writes all of it, no faster than the location allows.
    pub(super) async fn write_paced(&mut self, mut data: &[u8]) -> Result<(), Error> {
        let rate = self.rate_down();
        let began = self.scratch.story.started.unwrap_or(self.now);
        while !data.is_empty() {
            let sent = self.scratch.story.sent_len;
            let allowed = rate.map_or(Ok(usize::MAX), |rate| rate.allowed(self.seconds_since(began), sent));
            let len = match allowed {
                Ok(len) => len.min(data.len()),
                Err(wait) => {
                    self.pause(wait).await?;
                    continue;
                }
            };
            self.down.deadline.set(tokio::time::Instant::now(), self.location.send_timeout);
            self.down.write_all(&data[..len]).await?;
            self.scratch.story.sent_len += len as u64;
            data = &data[len..];
            let pause = rate.map_or(Duration::ZERO, |rate| rate.pause(sent, len as u64));
            if !data.is_empty() && !pause.is_zero() {
                self.pause(pause).await?;
            }
        }
        Ok(())
    }
}
