//! The answer's body on its way down: each piece passes as it comes, a slow reader slows the source, and a body that
//! was cut never looks whole.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Instant as TimerInstant;

use super::scratch::Scratch;
use super::upload::Progress;
use super::{After, Answer, Exchange, Step, place};
use crate::buffer::BUFFER_LEN;
use crate::conf::upstream::UpstreamId;
use crate::error::{Error, Side};
use crate::headers::Delivery;
use crate::logic::choose::Ending;
use crate::logic::h1::{BodyReader, Framing, Known, Piece};
use crate::logic::rate::Rate;
use crate::logic::upstreams::Lease;
use crate::tunnel;
use crate::upstream_conns::UpstreamConn;
use crate::wire::Wire;

/// So much of an answer waits for a slow client; then its source is not read on.
const UNSENT_MAX: usize = 64 * 1024;

/// `limit_rate` and `proxy_limit_rate`, and until when each holds what may move.
#[derive(Debug, Default)]
struct Limits {
    down: Option<Rate>,
    up: Option<Rate>,
    down_until: Option<Instant>,
    up_until: Option<Instant>,
    /// Body bytes that came from the upstream.
    received: u64,
}

/// The state of one body on its way down.
#[derive(Debug)]
pub struct Download {
    reader: BodyReader,
    /// All that the upstream sent of the body is framed for the client, its end too.
    is_finished: bool,
    limits: Limits,
    /// What went wrong on the upstream's side; told to the client by the way the connection ends.
    failed: Option<Error>,
    waits: Option<Waits>,
    passes_trailers: bool,
    /// What has come may wait for more before it is packed.
    is_buffered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Client,
    Upstream,
}

impl Exchange<'_> {
    /// Sends the answer whose head has come, and gives the connection back if nothing is owed on it.
    pub(super) async fn pass_on(
        &mut self,
        mut conn: UpstreamConn,
        lease: Lease<'_>,
        id: Option<UpstreamId>,
    ) -> Step {
        let status = self.scratch.story.response.status;
        if status == 101 {
            return self.tunnel(conn, lease).await;
        }
        if status >= 300 && self.location.proxy.intercept_errors && self.has_error_page(status) {
            self.keep_challenges();
            self.end_attempt();
            self.end_lease(lease, self.answered());
            return Step::Answer(Answer::page(status));
        }
        if self.scratch.story.is_sub {
            self.scratch.story.status = status;
            self.leave_body(conn, lease, id);
            return Step::Ended(After::Close);
        }
        self.obey_limit_rate();
        if let Some(target) = self.accel_redirect() {
            self.leave_body(conn, lease, id);
            return Step::Moved(self.move_to(&target));
        }
        self.scratch.story.status = status;
        let delivery = self.write_response();
        let mut download = Download {
            reader: BodyReader::new(self.scratch.story.response.framing(self.scratch.story.request.method)),
            is_finished: false,
            limits: Limits { down: self.rate_down(), up: self.rate_up(), ..Limits::default() },
            failed: None,
            waits: None,
            passes_trailers: self.location.proxy.pass_trailers,
            is_buffered: self.location.proxy.buffering,
        };
        download.limits.on_received(self.scratch.from_upstream.len() - self.scratch.story.response.len);
        let passed = poll_fn(|cx| self.poll_body(cx, &mut conn, &mut download)).await;
        self.now = Instant::now();
        self.end_attempt();
        if passed.is_ok() && self.is_clean(&download) {
            self.keep_conn(conn, &lease, id);
        }
        if let Err(error) = &passed {
            self.log(error, Some(&lease));
        }
        let is_upstreams_fault = passed.as_ref().is_err_and(|error| error.side() == Side::Upstream);
        self.end_lease(lease, if is_upstreams_fault { Ending::Failed } else { self.answered() });
        Step::Ended(self.after(passed, &delivery))
    }

    fn keep_conn(&mut self, conn: UpstreamConn, lease: &Lease<'_>, id: Option<UpstreamId>) {
        let Some(id) = id else { return };
        let terms = &self.running.settings.http.upstream(id).keepalive;
        if !self.worker.is_draining() && self.location.proxy.bind.is_none() {
            self.worker.idle.give_back(place(id, lease), conn, terms, self.now);
        }
    }

    /// The head has said all that we want to know; a connection that owes a body is closed.
    fn leave_body(&mut self, conn: UpstreamConn, lease: Lease<'_>, id: Option<UpstreamId>) {
        self.end_attempt();
        let framing = self.scratch.story.response.framing(self.scratch.story.request.method);
        let download = Download {
            reader: BodyReader::new(framing),
            is_finished: false,
            limits: Limits::default(),
            failed: None,
            waits: None,
            passes_trailers: false,
            is_buffered: true,
        };
        if self.is_clean(&download) {
            self.keep_conn(conn, &lease, id);
        }
        self.end_lease(lease, self.answered());
    }

    fn after(&mut self, passed: Result<(), Error>, delivery: &Delivery) -> After {
        match passed {
            Err(Error::ClientGone | Error::ClientTimeout) => After::Close,
            Err(_) => After::Abort,
            Ok(()) => {
                self.scratch.story.is_complete = true;
                match delivery.keep_alive {
                    _ if !self.scratch.upload.is_read() => After::Linger(self.location.lingering.clone()),
                    Some(timeout) => After::KeepAlive { timeout },
                    None => self.close_gently(),
                }
            }
        }
    }

    /// The upstream owes nothing and is owed nothing: only then another request may use its connection.
    fn is_clean(&self, download: &Download) -> bool {
        let scratch = &*self.scratch;
        let story = &scratch.story;
        let framing = story.response.framing(story.request.method);
        story.response.keep_alive
            && framing != Framing::UntilClose
            && download.reader.is_ended()
            && scratch.from_upstream.len() == story.response.len
            && scratch.upload.is_complete()
            && scratch.to_upstream.is_empty()
            && !story.is_upgrade_sent
            && !story.is_close_sent
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut UpstreamConn,
        download: &mut Download,
    ) -> Poll<Result<(), Error>> {
        loop {
            let room = self.room_up(download);
            let mut moved = download.take_in(cx, conn, self.scratch, room);
            if download.reader.is_ended() && !download.is_finished && download.failed.is_none() {
                let own = self.trailer_lines();
                download.finish(self.scratch, &own);
                moved = true;
            }
            let room = self.room_down(download);
            let Exchange { down, scratch, location, .. } = self;
            let is_uploading = !scratch.upload.is_complete() || !scratch.to_upstream.is_empty();
            let progress = match is_uploading {
                true => scratch.poll_upload(cx, down, &mut conn.wire)?,
                false => Progress::Sent,
            };
            moved |= std::mem::take(&mut scratch.upload.moved);
            moved |= download.send(cx, &mut down.wire, scratch, room)?;
            if scratch.to_downstream.is_empty() && download.is_over() {
                return Poll::Ready(download.failed.take().map_or(Ok(()), Err));
            }
            let waits = if scratch.to_downstream.is_empty() { Waits::Upstream } else { Waits::Client };
            if moved || download.waits != Some(waits) {
                download.waits = Some(waits);
                let timeout = match waits {
                    Waits::Client => location.send_timeout,
                    Waits::Upstream => location.proxy.read_timeout,
                };
                down.deadline.set(TimerInstant::now(), timeout);
                if moved {
                    continue;
                }
            }
            let is_watched =
                progress == Progress::Sent && scratch.upload.is_read() && waits == Waits::Upstream;
            if is_watched
                && !location.proxy.ignore_client_abort
                && down.poll_gone(cx, &mut scratch.inbound, BUFFER_LEN)
            {
                return Poll::Ready(Err(Error::ClientGone));
            }
            if let Some(until) = download.limits.until() {
                let is_watched = scratch.upload.is_read() && !location.proxy.ignore_client_abort;
                if is_watched && down.poll_gone(cx, &mut scratch.inbound, BUFFER_LEN) {
                    return Poll::Ready(Err(Error::ClientGone));
                }
                down.deadline.set_at(TimerInstant::from_std(until));
                ready!(down.deadline.poll(cx));
                download.waits = None;
                continue;
            }
            ready!(down.deadline.poll(cx));
            return Poll::Ready(Err(match waits {
                Waits::Client => Error::ClientTimeout,
                Waits::Upstream => Error::BodyTimeout,
            }));
        }
    }

    /// The upstream has switched protocols: from here on bytes are bytes.
    async fn tunnel(&mut self, mut conn: UpstreamConn, lease: Lease<'_>) -> Step {
        self.scratch.story.status = 101;
        self.write_switch();
        let idle_timeout = self.location.proxy.read_timeout;
        let ended = tunnel::run(self.down, &mut conn, self.scratch, (self.worker, idle_timeout)).await;
        self.now = Instant::now();
        self.end_attempt();
        self.end_lease(lease, self.answered());
        self.scratch.story.is_complete = ended.is_ok();
        if let Err(error) = ended {
            self.log(&error, None);
        }
        Step::Ended(After::Close)
    }
}

impl Exchange<'_> {
    /// How much `proxy_limit_rate` lets in now.
    fn room_up(&self, download: &mut Download) -> usize {
        let began = self.scratch.story.attempts.last().map_or(self.now, |attempt| attempt.started);
        let limits = &mut download.limits;
        let seconds = limits.up.map_or(0, |_| self.seconds_since(began));
        let room = room(limits.up, &mut limits.up_until, (seconds, limits.received));
        // Small pieces at a time: the pause behind each makes the flow even.
        if limits.up.is_some() { room.min(self.location.proxy.buffer_len) } else { room }
    }

    /// How much `limit_rate` lets out now.
    fn room_down(&self, download: &mut Download) -> usize {
        let began = self.scratch.story.started.unwrap_or(self.now);
        let limits = &mut download.limits;
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
    fn on_sent(&mut self, before: u64, len: usize) {
        let pause = self.down.map_or(Duration::ZERO, |rate| rate.pause(before, len as u64));
        self.down_until = (!pause.is_zero()).then(|| Instant::now() + pause);
    }

    fn on_received(&mut self, len: usize) {
        let pause = self.up.map_or(Duration::ZERO, |rate| rate.pause(self.received, len as u64));
        self.received += len as u64;
        self.up_until = (!pause.is_zero()).then(|| Instant::now() + pause);
    }

    /// The next moment at which something that is held may move.
    fn until(&self) -> Option<Instant> {
        let both = [self.down_until, self.up_until];
        both.into_iter().flatten().min()
    }
}

impl Download {
    fn is_over(&self) -> bool {
        self.is_finished || self.failed.is_some()
    }

    /// Writes what lies ready, `room` bytes at most. True when some of it went.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        scratch: &mut Scratch,
        room: usize,
    ) -> Result<bool, Error> {
        let unsent = scratch.to_downstream.unsent();
        let unsent = &unsent[..unsent.len().min(room)];
        if unsent.is_empty() {
            return Ok(false);
        }
        match wire.poll_write(cx, unsent) {
            Poll::Ready(Ok(len)) => {
                self.limits.on_sent(scratch.story.sent_len, len);
                scratch.to_downstream.advance(len);
                scratch.story.sent_len += len as u64;
                Ok(true)
            }
            Poll::Ready(Err(_)) => Err(Error::ClientGone),
            Poll::Pending => Ok(false),
        }
    }

    /// Moves body from the upstream into `to_downstream` as long as there is some at once and the client keeps up.
    /// No more than `room` is read.
    fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut UpstreamConn,
        scratch: &mut Scratch,
        mut room: usize,
    ) -> bool {
        let mut moved = false;
        while !self.is_over() && scratch.to_downstream.unsent().len() < UNSENT_MAX {
            if let Err(error) = self.frame(scratch) {
                self.failed = Some(error);
                break;
            }
            let head_len = scratch.story.response.len;
            let is_held = scratch.from_upstream.len() > head_len;
            if self.reader.is_ended() || room == 0 || is_held {
                break;
            }
            let space = scratch.from_upstream.space(head_len + BUFFER_LEN);
            let wanted = space.len().min(room);
            match conn.wire.poll_read(cx, &mut space[..wanted]) {
                Poll::Ready(Ok(0)) => {
                    if let Err(error) = self.reader.on_eof() {
                        self.failed = Some(Error::UpstreamBody(error));
                    }
                }
                Poll::Ready(Ok(len)) => {
                    moved = true;
                    self.limits.on_received(len);
                    room = if self.limits.up.is_some() { 0 } else { room };
                    scratch.from_upstream.fill(len);
                    if let Some(attempt) = scratch.story.attempt() {
                        attempt.received_len += len as u64;
                    }
                }
                Poll::Ready(Err(error)) => self.failed = Some(Error::Read(error)),
                Poll::Pending => break,
            }
        }
        moved
    }

    /// Frames all body bytes that have come for the client.
    fn frame(&mut self, scratch: &mut Scratch) -> Result<(), Error> {
        let head_len = scratch.story.response.len;
        let out = &mut scratch.to_downstream.data;
        let mut at = head_len;
        let mut body_len = 0;
        let result = loop {
            let body = &scratch.from_upstream.unread()[at..];
            // Unpacking may make much of little: what it makes waits for the client before there is more.
            if !scratch.sink.is_plain() && out.len() >= UNSENT_MAX && !body.is_empty() {
                break Ok(());
            }
            let body = &body[..body.len().min(scratch.sink.piece_len())];
            match self.reader.next(body) {
                Ok(Piece::Data { start, end }) => {
                    body_len += (end - start) as u64;
                    if let Err(error) = scratch.sink.push(&body[start..end], out) {
                        break Err(error);
                    }
                    at += end;
                    if self.reader.is_ended() {
                        break Ok(());
                    }
                }
                Ok(Piece::More) => {
                    at += body.len();
                    if at == scratch.from_upstream.len() {
                        break Ok(());
                    }
                }
                Ok(Piece::End { used }) => {
                    at += used;
                    break Ok(());
                }
                Err(error) => break Err(Error::UpstreamBody(error)),
            }
        };
        scratch.from_upstream.remove(head_len, at);
        if let Some(attempt) = scratch.story.attempt() {
            attempt.body_len += body_len;
        }
        if !self.is_buffered && result.is_ok() {
            return scratch.sink.flush(&mut scratch.to_downstream.data);
        }
        result
    }

    /// The end of the body, with the upstream's trailers where they pass, and the location's own.
    fn finish(&mut self, scratch: &mut Scratch, own: &[u8]) {
        self.is_finished = true;
        let mut trailers = if self.passes_trailers { passable(self.reader.trailers()) } else { Vec::new() };
        trailers.extend_from_slice(own);
        if let Err(error) = scratch.sink.finish(&trailers, &mut scratch.to_downstream.data) {
            self.failed = Some(error);
        }
    }
}

/// Trailer lines that may be passed on: what a head says about the message, the hop or who may do what, nobody may say
/// again after the body (RFC 9110, section 6.5.1).
fn passable(lines: &[u8]) -> Vec<u8> {
    const NEVER: [&[u8]; 8] = [
        b"authorization",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"set-cookie",
        b"host",
        b"cache-control",
        b"location",
    ];
    let mut kept = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let is_never = NEVER.iter().any(|never| name.eq_ignore_ascii_case(never));
        if !is_never && Known::of(name) == Known::Other {
            kept.extend_from_slice(line);
        }
    }
    kept
}
