//! The request's body on its way up. What is read before the first server is asked is kept, so that it can be sent
//! again to the next one; what is streamed after that is gone once it is sent.

use std::io;
use std::task::{Context, Poll};

use super::Exchange;
use super::scratch::Scratch;
use super::spool::Spool;
use crate::buffer::BUFFER_LEN;
use crate::downstream::Downstream;
use crate::error::Error;
use crate::logic::h1::{BodyReader, Framing, Piece, write};
use crate::wire::Wire;

/// An unwanted body is read to its end up to this length; past it, closing the connection is cheaper.
const DISCARD_LEN_MAX: u64 = 1 << 20;

#[derive(Debug, Default)]
pub struct Upload {
    reader: BodyReader,
    /// How the upstream is told where the body ends.
    pub framing: Framing,
    /// Decoded body, read before the first attempt.
    pub kept: Vec<u8>,
    /// The body, where it is wanted in a file; `kept` then holds what is not written to it yet.
    pub spool: Option<Spool>,
    /// Decoded bytes so far.
    len: u64,
    len_max: u64,
    /// More than what is kept has been sent: an attempt cannot be repeated.
    is_streamed: bool,
    /// The upstream of this attempt takes no more; its answer may still come.
    is_broken: bool,
    /// The client's own body is not sent.
    is_replaced: bool,
    has_begun: bool,
    /// Bytes moved since the caller looked last: a reason to move the deadline.
    pub moved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All is sent, or the upstream takes no more.
    Sent,
    AwaitsClient,
    AwaitsUpstream,
}

impl Upload {
    pub fn clear(&mut self) {
        self.kept.clear();
        if self.kept.capacity() > 4 * BUFFER_LEN {
            self.kept = Vec::new();
        }
        let kept = std::mem::take(&mut self.kept);
        *self = Upload { kept, ..Upload::default() };
    }

    pub fn begin(&mut self, framing: Framing, len_max: u64) {
        self.clear();
        self.reader = BodyReader::new(framing);
        self.framing = framing;
        self.len_max = len_max;
        self.has_begun = true;
    }

    /// The body is being read: an internal move to another location does not begin it again.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The client's body has come to its end (or there was none).
    pub fn is_read(&self) -> bool {
        self.reader.is_ended()
    }

    /// Nothing of it has been looked at.
    fn is_untouched(&self) -> bool {
        self.len == 0 && !self.is_read() && !self.is_replaced
    }

    /// What is left of it can be read away, so that the client's next request can be found behind it.
    pub fn is_rest_short(&self, framing: Framing) -> bool {
        match framing {
            _ if self.is_read() => true,
            Framing::Length(len) => len <= DISCARD_LEN_MAX,
            _ => self.len <= DISCARD_LEN_MAX,
        }
    }

    pub fn is_replayable(&self) -> bool {
        !self.is_streamed
    }

    /// Head and body went out whole.
    pub fn is_complete(&self) -> bool {
        self.is_read() && !self.is_broken && self.spool.as_ref().is_none_or(Spool::is_sent)
    }

    /// A new attempt begins: what broke was the last one.
    pub fn on_attempt(&mut self) {
        self.is_broken = false;
        if let Some(spool) = &mut self.spool {
            spool.rewind();
        }
    }

    /// The body is known to its end: the upstream can be told its length.
    fn on_all_kept(&mut self) {
        self.framing = match self.framing {
            Framing::None => Framing::None,
            _ => Framing::Length(self.spool.as_ref().map_or(self.kept.len() as u64, Spool::len)),
        };
    }

    /// `$request_body`: the body where all of it is in memory. A part of it would be taken for the whole.
    pub fn in_memory(&self) -> Option<&[u8]> {
        let is_whole = self.is_replaced || self.is_read() && !self.is_streamed && self.spool.is_none();
        is_whole.then_some(&self.kept[..])
    }

    /// It was read to its end for an earlier location of this request.
    fn is_all_kept(&self) -> bool {
        self.is_read() && self.len > 0 && !self.is_streamed
    }

    /// `proxy_set_body`, `proxy_pass_request_body off`: another body is sent than the one that came.
    fn replace(&mut self, body: Option<Vec<u8>>) {
        self.framing = body.as_ref().map_or(Framing::None, |body| Framing::Length(body.len() as u64));
        self.kept = body.unwrap_or_default();
        self.spool = None;
        self.is_replaced = true;
    }

    fn count(&mut self, len: usize) -> Result<(), Error> {
        self.len += len as u64;
        self.moved = true;
        if self.len_max > 0 && self.len > self.len_max { Err(Error::BodyTooLarge) } else { Ok(()) }
    }
}

impl Scratch {
    /// Decodes what has come into `kept`. True when the body has ended.
    fn keep_body(&mut self, len_max: usize) -> Result<bool, Error> {
        let head_len = self.story.request.len;
        while self.upload.kept.len() < len_max || self.upload.is_read() {
            let body = &self.inbound.unread()[head_len..];
            match self.upload.reader.next(body).map_err(Error::ClientBody)? {
                Piece::Data { start, end } => {
                    self.upload.kept.extend_from_slice(&body[start..end]);
                    self.upload.count(end - start)?;
                    self.use_body(end);
                }
                Piece::More => {
                    self.use_body(self.inbound.len() - head_len);
                    return Ok(false);
                }
                Piece::End { used } => {
                    self.use_body(used);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn use_body(&mut self, len: usize) {
        let head_len = self.story.request.len;
        self.inbound.remove(head_len, head_len + len);
        self.story.request_body_len += len as u64;
    }

    /// Moves all that has come of the body into `to_upstream`, as one chunk where it goes in chunks: what came in one read
    /// goes out in one write. False when more must be read first.
    fn frame_body(&mut self) -> Result<bool, Error> {
        let head_len = self.story.request.len;
        let chunked = self.upload.framing == Framing::Chunked;
        self.pieces.clear();
        let mut at = 0;
        let is_ended = loop {
            let body = &self.inbound.unread()[head_len + at..];
            match self.upload.reader.next(body).map_err(Error::ClientBody)? {
                Piece::Data { start, end } => {
                    let out = if chunked { &mut self.pieces } else { &mut self.to_upstream.data };
                    out.extend_from_slice(&body[start..end]);
                    self.upload.is_streamed = true;
                    self.upload.count(end - start)?;
                    at += end;
                }
                Piece::More => {
                    at = self.inbound.len() - head_len;
                    break false;
                }
                Piece::End { used } => {
                    at += used;
                    break true;
                }
            }
        };
        self.use_body(at);
        if !self.pieces.is_empty() {
            write::chunk(&mut self.to_upstream.data, &self.pieces);
        }
        if is_ended && chunked {
            write::last_chunk(&mut self.to_upstream.data, b"");
        }
        Ok(is_ended || !self.to_upstream.is_empty())
    }

    /// Sends what it can.
    pub fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut Downstream,
        up: &mut Wire,
    ) -> Result<Progress, Error> {
        loop {
            if self.upload.is_broken {
                return Ok(Progress::Sent);
            }
            if !self.to_upstream.is_empty() {
                match up.poll_write(cx, self.to_upstream.unsent()) {
                    Poll::Ready(Ok(len)) => {
                        self.to_upstream.advance(len);
                        self.upload.moved = true;
                        if let Some(attempt) = self.story.attempt() {
                            attempt.sent_len += len as u64;
                        }
                    }
                    // It may have answered before it closed: that answer counts.
                    Poll::Ready(Err(_)) => self.upload.is_broken = true,
                    Poll::Pending => return Ok(Progress::AwaitsUpstream),
                }
                continue;
            }
            if let Some(spool) = self.upload.spool.as_mut().filter(|spool| !spool.is_sent()) {
                spool.read(&mut self.to_upstream.data).map_err(Error::Spool)?;
                continue;
            }
            if self.upload.is_read() || self.upload.is_replaced {
                return Ok(Progress::Sent);
            }
            if !self.frame_body()? {
                match down.wire.poll_read(cx, self.inbound.space(BUFFER_LEN + self.story.request.len)) {
                    Poll::Ready(Ok(0) | Err(_)) => return Err(Error::ClientGone),
                    Poll::Ready(Ok(len)) => self.inbound.fill(len),
                    Poll::Pending => return Ok(Progress::AwaitsClient),
                }
            }
        }
    }
}

impl Exchange<'_> {
    /// Before the first server is asked: answers `Expect`, and reads the body as far as it is kept. A slow upload of
    /// ordinary size so holds no upstream, and a retry can send it again.
    pub async fn read_ahead(&mut self) -> Result<(), Error> {
        let location = self.location;
        let body = location.proxy.body.as_ref();
        if body.is_some() || self.scratch.story.as_get || !location.proxy.pass_request_body {
            let body = body.map(|template| template.to_bytes(&self.facts()));
            self.scratch.upload.replace(body);
            return Ok(());
        }
        if self.scratch.story.request.framing == Framing::None || self.scratch.upload.is_all_kept() {
            return self.invite_body().await;
        }
        if location.proxy.request_buffering && location.body.spool.is_wanted() {
            return self.read_into_file().await;
        }
        let kept_max = if location.proxy.request_buffering { location.body.buffer_len } else { BUFFER_LEN };
        if self.scratch.keep_body(kept_max)? {
            self.scratch.upload.on_all_kept();
            return self.invite_body().await;
        }
        self.invite_body().await?;
        while location.proxy.request_buffering && self.scratch.upload.kept.len() < kept_max {
            self.read_more_body().await?;
            if self.scratch.keep_body(kept_max)? {
                self.scratch.upload.on_all_kept();
                break;
            }
        }
        Ok(())
    }

    /// The whole body: in memory where it is short and no file is demanded, else in a file.
    async fn read_into_file(&mut self) -> Result<(), Error> {
        let terms = &self.location.body;
        let mut is_whole = self.scratch.keep_body(terms.buffer_len)?;
        self.invite_body().await?;
        loop {
            let upload = &mut self.scratch.upload;
            let is_due = upload.kept.len() >= terms.buffer_len;
            if is_due || is_whole && (upload.spool.is_some() || terms.spool.is_demanded()) {
                self.write_kept().map_err(Error::Spool)?;
            }
            if is_whole {
                self.scratch.upload.on_all_kept();
                return Ok(());
            }
            if !is_due {
                self.read_more_body().await?;
            }
            is_whole = self.scratch.keep_body(terms.buffer_len)?;
        }
    }

    fn write_kept(&mut self) -> io::Result<()> {
        let terms = &self.location.body.spool;
        let number = self.worker.random();
        let upload = &mut self.scratch.upload;
        if upload.spool.is_none() {
            upload.spool = Some(Spool::create(&terms.folder, number, terms.is_kept())?);
        }
        if let Some(spool) = &mut upload.spool {
            spool.append(&upload.kept)?;
        }
        upload.kept.clear();
        Ok(())
    }

    /// `100 Continue`, when the client waits for it before it sends its body.
    async fn invite_body(&mut self) -> Result<(), Error> {
        let Exchange { down, scratch, .. } = self;
        if !std::mem::take(&mut scratch.story.request.expects_continue)
            || scratch.upload.is_read() && scratch.upload.len > 0
        {
            return Ok(());
        }
        down.deadline.set(tokio::time::Instant::now(), self.location.send_timeout);
        down.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await
    }

    /// Reads the next bytes of the body into `inbound`.
    pub async fn read_more_body(&mut self) -> Result<(), Error> {
        let Exchange { down, scratch, location, .. } = self;
        down.deadline.set(tokio::time::Instant::now(), location.body.timeout);
        let len_max = BUFFER_LEN + scratch.story.request.len;
        down.read_into(&mut scratch.inbound, len_max).await
    }

    /// Before an answer of our own to a request whose body nobody reads: what has come of it must at least be one.
    pub fn is_body_sound(&mut self) -> bool {
        if !self.scratch.upload.has_begun() {
            self.scratch.upload.begin(self.scratch.story.request.framing, 0);
        }
        if !self.scratch.upload.is_untouched() {
            return true;
        }
        let decoded = self.scratch.keep_body(usize::MAX);
        self.scratch.upload.kept.clear();
        !matches!(decoded, Err(Error::ClientBody(_)))
    }

    /// Reads and forgets the rest of a body that nobody wants, so that the next request can be found. False when it
    /// is not worth while or does not end in time.
    pub async fn discard_body(&mut self) -> bool {
        self.scratch.upload.len_max = DISCARD_LEN_MAX;
        let awaited = self.scratch.story.request.expects_continue && self.scratch.story.request_body_len == 0;
        let end = tokio::time::Instant::now() + self.location.lingering.time;
        loop {
            let before = self.scratch.upload.len;
            self.scratch.upload.kept.clear();
            match self.scratch.keep_body(BUFFER_LEN) {
                Ok(true) => return true,
                Ok(false) if self.scratch.upload.len > before => continue,
                Ok(false) if awaited => return false,
                Ok(false) => {}
                Err(_) => return false,
            }
            if self.read_rest(end).await.is_err() {
                return false;
            }
        }
    }

    /// As `read_more_body`, with the patience of `lingering_timeout` and `lingering_time`.
    async fn read_rest(&mut self, end: tokio::time::Instant) -> Result<(), Error> {
        let Exchange { down, scratch, location, .. } = self;
        down.deadline.set_at(end.min(tokio::time::Instant::now() + location.lingering.timeout));
        let len_max = BUFFER_LEN + scratch.story.request.len;
        down.read_into(&mut scratch.inbound, len_max).await
    }
}
