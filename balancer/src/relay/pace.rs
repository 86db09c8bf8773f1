//! `limit_rate` and `proxy_limit_rate`: how fast an answer goes out, and how fast it is read.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::Exchange;
use crate::buffer::BUFFER_LEN;
use crate::conf::template::Template;
use crate::conf::value;
use crate::error::Error;
use crate::logic::rate::Rate;

/// `limit_rate` and `proxy_limit_rate`, and until when each holds what may move.
#[derive(Debug, Default)]
pub(super) struct Limits {
    down: Option<Rate>,
    pub up: Option<Rate>,
    pub down_until: Option<Instant>,
    up_until: Option<Instant>,
    /// Body bytes that came from the upstream.
    received: u64,
}

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

impl Exchange<'_> {
    /// How much `proxy_limit_rate` lets in now.
    pub(super) fn room_up(&self, limits: &mut Limits) -> usize {
        let began = self.scratch.story.attempts.last().map_or(self.now, |attempt| attempt.started);
        let seconds = limits.up.map_or(0, |_| self.seconds_since(began));
        let room = room(limits.up, &mut limits.up_until, (seconds, limits.received));
        // Small pieces at a time: the pause behind each makes the flow even.
        if limits.up.is_some() { room.min(self.location.proxy.buffer_len) } else { room }
    }

    /// How much `limit_rate` lets out now.
    pub(super) fn room_down(&self, limits: &mut Limits) -> usize {
        let began = self.scratch.story.started.unwrap_or(self.now);
        let seconds = limits.down.map_or(0, |_| self.seconds_since(began));
        room(limits.down, &mut limits.down_until, (seconds, self.scratch.story.sent_len))
    }
}

fn room(rate: Option<Rate>, until: &mut Option<Instant>, (seconds, moved): (u64, u64)) -> usize {
    let Some(rate) = rate else { return usize::MAX };
    if until.is_some_and(|until| Instant::now() < until) {
        return 0;
    }
    *until = None;
    rate.allowed(seconds, moved).unwrap_or_else(|wait| {
        *until = Some(Instant::now() + wait);
        0
    })
}

impl Limits {
    pub fn new(down: Option<Rate>, up: Option<Rate>) -> Limits {
        Limits { down, up, ..Limits::default() }
    }

    pub fn on_sent(&mut self, before: u64, len: usize) {
        let pause = self.down.map_or(Duration::ZERO, |rate| rate.pause(before, len as u64));
        self.down_until = (!pause.is_zero()).then(|| Instant::now() + pause);
    }

    pub fn on_received(&mut self, len: usize) {
        let pause = self.up.map_or(Duration::ZERO, |rate| rate.pause(self.received, len as u64));
        self.received += len as u64;
        self.up_until = (!pause.is_zero()).then(|| Instant::now() + pause);
    }

    /// The next moment at which something that is held may move.
    pub fn until(&self) -> Option<Instant> {
        let both = [self.down_until, self.up_until];
        both.into_iter().flatten().min()
    }
}
