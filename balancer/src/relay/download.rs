//! The answer's body on its way down: each piece passes as it comes, a slow reader slows the source, and a body that
//! was cut never looks whole.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::Instant as TimerInstant;

use super::aside::aside;
use super::backlog::Backlog;
use super::inside::Inside;
use super::pace::Limits;
use super::scratch::Scratch;
use super::upload::Progress;
use super::{After, Answer, Exchange, Step, place};
use crate::buffer::BUFFER_LEN;
use crate::conf::proxy::Version;
use crate::conf::settings::ErrorLevel;
use crate::conf::upstream::UpstreamId;
use crate::error::{Error, Side};
use crate::headers::Delivery;
use crate::logic::h1::{BodyReader, Framing, Known, Piece};
use crate::logic::upstreams::Lease;
use crate::upstream_conns::UpstreamConn;
use crate::wire::Wire;

/// So much of an answer waits in memory for a slow client where `proxy_buffers` says nothing else; then its source is
/// not read on, or the rest goes to a file.
const UNSENT_MAX: usize = 64 * 1024;

/// The state of one body on its way down.
#[derive(Debug)]
pub struct Download {
    reader: BodyReader,
    /// All that the upstream sent of the body is framed for the client, its end too.
    pub(super) is_finished: bool,
    /// The client gets no body. What did not come with the head is not waited for: its connection is closed.
    is_unwanted: bool,
    pub(super) limits: Limits,
    /// What went wrong on the upstream's side; told to the client by the way the connection ends.
    failed: Option<Error>,
    pub(super) waits: Option<Waits>,
    passes_trailers: bool,
    measure: Measure,
    /// What has come may wait for more before it is packed, and what the client is slow to take for the client.
    pub(super) is_buffered: bool,
    /// So much waits in memory.
    pub(super) memory_len: usize,
    /// What the wire has looked at and not yet taken: it is to be offered no less again.
    offered_len: usize,
    /// What memory may not hold: older than what is in `to_downstream`.
    pub(super) backlog: Option<Box<Backlog>>,
}

/// What of a body `$upstream_response_length` counts, as nginx does.
#[derive(Debug, Clone, Copy)]
enum Measure {
    /// The client gets no body.
    Nothing,
    /// Frames are no bytes of ours.
    Data,
    /// As it came, with the lines of its chunks.
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
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
        if status == 101 && !self.scratch.story.is_sub() {
            return aside(self.tunnel(conn, lease)).await;
        }
        self.obey_charset();
        if status >= 300 && self.location.proxy.intercept_errors && self.has_error_page(status) {
            self.keep_challenges();
            self.end_attempt();
            self.end_lease(lease, self.answered());
            return Step::Answer(Answer::page(status));
        }
        match self.scratch.story.inside {
            Inside::No => {}
            Inside::Status => {
                self.scratch.story.status = status;
                self.leave_body(conn, lease, id);
                return Step::Ended(After::Close);
            }
            Inside::Body(_) => return aside(self.collect_from(conn, lease, id)).await,
        }
        self.obey_limit_rate();
        if let Some(target) = self.accel_redirect() {
            self.leave_body(conn, lease, id);
            return Step::Moved(self.move_to(&target));
        }
        self.scratch.story.status = status;
        let delivery = self.write_response();
        let mut download = self.download(&delivery);
        download.limits.on_received(self.scratch.from_upstream.len() - self.scratch.story.response.len);
        let came = poll_fn(|cx| self.poll_body(cx, &mut conn, &mut download)).await;
        let came = came.and_then(|()| download.failed.take().map_or(Ok(()), Err));
        self.now = Instant::now();
        self.end_attempt();
        match &came {
            Ok(()) => self.part_with(conn, &lease, (id, &download)),
            Err(error) => {
                drop(conn);
                self.log(error, Some(&lease));
            }
        }
        let is_upstreams_fault = came.as_ref().is_err_and(|error| error.side() == Side::Upstream);
        let ending = self.ending(came.as_ref().err());
        self.end_lease(lease, ending);
        let passed = match came {
            Err(error) if !is_upstreams_fault => Err(error),
            came if !self.has_rest(&download) => came,
            came => aside(self.pass_rest(&mut download)).await.and(came),
        };
        Step::Ended(self.after(passed, &delivery).await)
    }

    fn download(&self, delivery: &Delivery) -> Download {
        let is_buffered = self.is_buffered();
        let is_unwanted = delivery.framing == Framing::None;
        let common = Download::of(self);
        Download {
            limits: Limits::new(self.rate_down(), self.rate_up()),
            passes_trailers: self.location.proxy.pass_trailers,
            is_buffered,
            is_unwanted,
            measure: if is_unwanted { Measure::Nothing } else { common.measure },
            memory_len: if is_buffered { self.location.proxy.backlog.memory_len } else { UNSENT_MAX },
            ..common
        }
    }

    /// The answer has come, or as much of it as is wanted: keeps the connection if nothing is owed on it.
    pub(super) fn part_with(
        &mut self,
        conn: UpstreamConn,
        lease: &Lease<'_>,
        (id, download): (Option<UpstreamId>, &Download),
    ) {
        let Some(id) = id else { return };
        if self.is_clean(download) {
            let terms = &self.running.settings.http.upstream(id).keepalive;
            if !self.worker.is_draining() && !self.location.proxy.is_bound_to_client() {
                self.worker.idle.give_back(place(id, lease), conn, terms, self.now);
            }
        } else if self.has_surplus(download) && self.worker.idle.distrust(place(id, lease), self.now) {
            let what =
                "upstream sent more data than its answer has: none of its connections is kept for a while";
            self.tell(ErrorLevel::Warn, Some(lease), format_args!("{what}"));
        }
    }

    /// The head has said all that we want to know; a connection that owes a body is closed.
    fn leave_body(&mut self, conn: UpstreamConn, lease: Lease<'_>, id: Option<UpstreamId>) {
        self.end_attempt();
        let download = Download::of(self);
        self.part_with(conn, &lease, (id, &download));
        self.end_lease(lease, self.answered());
    }

    async fn after(&mut self, passed: Result<(), Error>, delivery: &Delivery) -> After {
        match passed {
            Err(Error::ClientGone | Error::ClientTimeout) => After::Close,
            Err(_) => After::Abort,
            Ok(()) => {
                self.scratch.story.is_complete = true;
                match delivery.keep_alive {
                    Some(idle_time) if self.scratch.upload.is_read() => After::KeepAlive(idle_time),
                    // The answer came before the request's end.
                    Some(_) => aside(self.after_answer(delivery)).await,
                    None => self.close_gently(),
                }
            }
        }
    }

    /// More came than the answer that was asked for.
    fn has_surplus(&self, download: &Download) -> bool {
        download.reader.is_ended() && self.scratch.from_upstream.len() > self.scratch.story.response.len
    }

    /// The upstream owes nothing and is owed nothing: only then another request may use its connection.
    fn is_clean(&self, download: &Download) -> bool {
        let scratch = &*self.scratch;
        let story = &scratch.story;
        let framing = story.answer_framing();
        story.response.keep_alive
            && framing != Framing::UntilClose
            && download.reader.is_ended()
            && !self.has_surplus(download)
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
            let room = self.room_up(&mut download.limits);
            let mut moved = download.take_in(cx, conn, self.scratch, room);
            if download.has_all() && !download.is_over() {
                self.note_trailers(download);
                let own = self.trailer_lines();
                download.finish(self.scratch, &own);
                moved = true;
            }
            let room = self.room_down(&mut download.limits);
            let Exchange { down, scratch, .. } = self;
            let is_uploading = !scratch.upload.is_complete() || !scratch.to_upstream.is_empty();
            let progress = match is_uploading {
                true => scratch.poll_upload(cx, down, &mut conn.wire)?,
                false => Progress::Sent,
            };
            moved |= std::mem::take(&mut scratch.upload.moved);
            let sent = download.send(cx, &mut down.wire, scratch, room)?;
            if download.is_over() {
                return Poll::Ready(Ok(()));
            }
            moved |= sent || self.spill(download);
            let Exchange { down, scratch, location, .. } = self;
            let waits = if download.has_unsent(scratch) { Waits::Client } else { Waits::Upstream };
            // What comes from the upstream must not make a client look alive that takes nothing.
            let is_alive = if waits == Waits::Client { sent } else { moved };
            if is_alive || download.waits != Some(waits) {
                download.waits = Some(waits);
                let timeout = match waits {
                    Waits::Client => location.send_timeout,
                    Waits::Upstream => location.proxy.read_timeout,
                };
                down.deadline.set(TimerInstant::now(), timeout);
            }
            if moved {
                continue;
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

    /// As nginx: what no client may get is read in HTTP/2 only.
    fn note_trailers(&mut self, download: &Download) {
        let proxy = &self.location.proxy;
        if proxy.pass_trailers || proxy.version == Version::Http2 {
            self.scratch.story.upstream_trailers.extend_from_slice(download.reader.trailers());
        }
    }
}

impl Download {
    /// Of the answer whose head has come, as it comes.
    pub(super) fn of(x: &Exchange<'_>) -> Download {
        Download {
            reader: BodyReader::new(x.scratch.story.answer_framing()),
            is_finished: false,
            is_unwanted: false,
            limits: Limits::default(),
            failed: None,
            waits: None,
            passes_trailers: false,
            measure: match x.location.proxy.version {
                Version::Http2 => Measure::Data,
                Version::Http10 | Version::Http11 => Measure::Raw,
            },
            is_buffered: true,
            memory_len: UNSENT_MAX,
            offered_len: 0,
            backlog: None,
        }
    }

    /// Whether all of the body has come, or nothing more will.
    pub(super) fn ended(&mut self) -> Option<Result<(), Error>> {
        match self.failed.take() {
            Some(error) => Some(Err(error)),
            None => self.reader.is_ended().then_some(Ok(())),
        }
    }

    pub(super) fn has_unsent(&self, scratch: &Scratch) -> bool {
        !scratch.to_downstream.is_empty() || self.backlog.as_ref().is_some_and(|backlog| !backlog.is_empty())
    }

    /// All has come that the client gets.
    fn has_all(&self) -> bool {
        self.is_unwanted || self.reader.is_ended()
    }

    fn is_over(&self) -> bool {
        self.is_finished || self.failed.is_some()
    }

    /// Writes what lies ready, `room` bytes at most. True when some of it went.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        scratch: &mut Scratch,
        room: usize,
    ) -> Result<bool, Error> {
        let unsent = match &mut self.backlog {
            Some(backlog) if !backlog.is_empty() => backlog.front(self.offered_len).map_err(Error::Spool)?,
            _ => scratch.to_downstream.unsent(),
        };
        let unsent = &unsent[..unsent.len().min(room)];
        if unsent.is_empty() {
            return Ok(false);
        }
        let sent = wire.poll_write(cx, unsent);
        self.offered_len = if sent.is_pending() { unsent.len() } else { 0 };
        let backlog = self.backlog.as_mut().filter(|backlog| !backlog.is_empty());
        match sent {
            Poll::Ready(Ok(len)) => {
                self.limits.on_sent(scratch.story.sent_len, len);
                match backlog {
                    Some(backlog) => backlog.advance(len).map_err(Error::Spool)?,
                    None => scratch.to_downstream.advance(len),
                }
                scratch.story.sent_len += len as u64;
                Ok(true)
            }
            Poll::Ready(Err(_)) => Err(Error::ClientGone),
            Poll::Pending => {
                backlog.into_iter().for_each(|backlog| backlog.rest());
                Ok(false)
            }
        }
    }

    /// Moves body from the upstream into `to_downstream` as long as there is some at once and the client keeps up.
    /// No more than `room` is read.
    pub(super) fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut UpstreamConn,
        scratch: &mut Scratch,
        mut room: usize,
    ) -> bool {
        let mut moved = false;
        while !self.is_over() && scratch.to_downstream.unsent().len() < self.memory_len {
            if let Err(error) = self.frame(scratch) {
                self.failed = Some(error);
                break;
            }
            let head_len = scratch.story.response.len;
            let is_held = scratch.from_upstream.len() > head_len;
            if self.has_all() || room == 0 || is_held {
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
        let mut data_len = 0;
        let result = loop {
            let body = &scratch.from_upstream.unread()[at..];
            // Unpacking may make much of little: what it makes waits for the client before there is more.
            if !scratch.sink.is_plain() && out.len() >= UNSENT_MAX && !body.is_empty() {
                break Ok(());
            }
            let body = &body[..body.len().min(scratch.sink.piece_len())];
            match self.reader.next(body) {
                Ok(Piece::Data { start, end }) => {
                    data_len += end - start;
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
            attempt.body_len += match self.measure {
                Measure::Nothing => 0,
                Measure::Data => data_len as u64,
                Measure::Raw => (at - head_len) as u64,
            };
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
