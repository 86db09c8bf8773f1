//! What a slow client has yet to take of its answer: held in memory, then in a file, while the upstream goes on; sent
//! without the upstream once that is done.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::Instant as TimerInstant;

use super::Exchange;
use super::backlog::Backlog;
use super::download::{Download, Waits};
use crate::buffer::BUFFER_LEN;
use crate::conf::settings::ErrorLevel;
use crate::error::Error;

impl Exchange<'_> {
    /// Whether there is anything for `pass_rest` to do.
    pub(super) fn has_rest(&self, download: &Download) -> bool {
        download.has_unsent(self.scratch) || self.scratch.sink.holds_page()
    }

    /// Sends what the client has yet to take. The upstream has no part in that any more.
    pub(super) async fn pass_rest(&mut self, download: &mut Download) -> Result<(), Error> {
        let mut passed = Ok(());
        if download.has_unsent(self.scratch) {
            self.set_aside(download);
            download.waits = None;
            passed = poll_fn(|cx| self.poll_rest(cx, download)).await;
            self.now = Instant::now();
        }
        if passed.is_ok() && download.is_finished {
            passed = self.pass_page().await;
        }
        if let Err(error) = &passed {
            self.log(error, None);
        }
        passed
    }

    async fn pass_page(&mut self) -> Result<(), Error> {
        let mut out = Vec::new();
        self.finish_page(&mut out).await?;
        if out.is_empty() { Ok(()) } else { self.write_paced(&out).await }
    }

    /// As `poll_body`, when nothing more comes from the upstream.
    fn poll_rest(&mut self, cx: &mut Context<'_>, download: &mut Download) -> Poll<Result<(), Error>> {
        loop {
            let room = self.room_down(&mut download.limits);
            let Exchange { down, scratch, location, .. } = self;
            let sent = download.send(cx, &mut down.wire, scratch, room)?;
            if !download.has_unsent(scratch) {
                return Poll::Ready(Ok(()));
            }
            if let Some(until) = download.limits.down_until {
                let is_watched = scratch.upload.is_read();
                if is_watched && down.poll_gone(cx, &mut scratch.inbound, BUFFER_LEN) {
                    return Poll::Ready(Err(Error::ClientGone));
                }
                down.deadline.set_at(TimerInstant::from_std(until));
                ready!(down.deadline.poll(cx));
                download.waits = None;
                continue;
            }
            if sent || download.waits.is_none() {
                download.waits = Some(Waits::Client);
                down.deadline.set(TimerInstant::now(), location.send_timeout);
            }
            if !sent {
                ready!(down.deadline.poll(cx));
                return Poll::Ready(Err(Error::ClientTimeout));
            }
        }
    }

    /// What memory may not hold of what the client is slow to take goes to a file, as far as that may grow. True when
    /// there is room again. Without a file the client's pace is the upstream's.
    pub(super) fn spill(&mut self, download: &mut Download) -> bool {
        let terms = &self.location.proxy.backlog;
        let len = self.scratch.to_downstream.unsent().len();
        let held = download.backlog.as_ref().map_or(0, |backlog| backlog.file_len());
        if !download.is_buffered || len < download.memory_len || held + len as u64 > terms.file_len_max {
            return false;
        }
        let is_held = self.hold(download);
        if let Err(cause) = &is_held {
            let what = format_args!("holding an answer for a slow client failed: {cause}");
            self.tell(ErrorLevel::Crit, None, what);
            download.is_buffered = false;
        }
        is_held.is_ok()
    }

    /// All that waits in memory goes behind what waits in the file.
    fn hold(&mut self, download: &mut Download) -> io::Result<()> {
        let folder = &self.location.proxy.backlog.folder;
        let backlog = match &mut download.backlog {
            Some(backlog) => backlog,
            None => download.backlog.insert(Box::new(Backlog::create(folder, self.worker.random())?)),
        };
        backlog.push(self.scratch.to_downstream.unsent())?;
        self.scratch.to_downstream.clear();
        Ok(())
    }

    /// Only the client is waited for, and it is slow: with a file at hand it need not hold any memory.
    fn set_aside(&mut self, download: &mut Download) {
        // What the file cannot take stays where it is.
        if download.backlog.is_some() && self.hold(download).is_ok() {
            self.scratch.release(&self.worker.spare);
        }
    }
}
