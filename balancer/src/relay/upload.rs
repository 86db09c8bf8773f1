//! The request's body on its way up. What is read before the first server is asked is kept, so that it can be sent
//! again to the next one; what is streamed after that is gone once it is sent.

use std::task::{Context, Poll};
use std::time::Instant;

use super::scratch::Scratch;
use super::spool::Spool;
use crate::buffer::BUFFER_LEN;
use crate::downstream::Downstream;
use crate::error::Error;
use crate::http2::is_unsayable;
use crate::logic::h1::{BodyReader, Framing, Piece, write};
use crate::logic::min_rate::{MinRate, Waited};
use crate::wire::Wire;

/// An unwanted body is read to its end up to this length; past it, closing the connection is cheaper.
pub(super) const DISCARD_LEN_MAX: u64 = 1 << 20;

#[derive(Debug, Default)]
pub struct Upload {
    reader: BodyReader,
    /// How an upstream would be told where the client's body ends.
    pub(super) framing: Framing,
    /// Decoded body, read before the first attempt.
    pub(super) kept: Vec<u8>,
    /// The body, where it is wanted in a file; `kept` then holds what is not written to it yet.
    pub spool: Option<Spool>,
    /// Decoded bytes so far: those that are not kept have been sent away.
    pub(super) len: u64,
    pub(super) len_max: u64,
    pub(super) sends: Sends,
    /// Of what the head of this attempt's request announced.
    owed: Owed,
    /// The upstream of this attempt takes no more; its answer may still come.
    is_broken: bool,
    has_begun: bool,
    /// Too long, or no body at all: nothing of it is read or sent any more.
    is_refused: bool,
    /// Bytes moved since the caller looked last: a reason to move the deadline.
    pub moved: bool,
    /// For the client, while it was its turn, and what its body has to bring meanwhile.
    pub(super) waited: Waited,
    pub(super) min_rate: Option<MinRate>,
}

/// Which body the present location's upstream gets. The client's stays what it is: another location may send it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Sends {
    #[default]
    Clients,
    /// `proxy_set_body`.
    Ours(Vec<u8>),
    /// `proxy_pass_request_body off`, or a request that has become a GET.
    Nothing,
}

/// What a connection must still be given before another request may follow on it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Owed {
    #[default]
    Nothing,
    Bytes(u64),
    LastChunk,
    /// More was sent than was announced: nothing makes up for that.
    Overrun,
}

impl Owed {
    fn of(framing: Framing) -> Owed {
        match framing {
            Framing::Length(len) => Owed::Bytes(len),
            Framing::Chunked => Owed::LastChunk,
            Framing::None | Framing::UntilClose => Owed::Nothing,
        }
    }

    /// So many bytes of the body were put behind the head.
    fn on_sent(&mut self, len: usize) {
        *self = match *self {
            Owed::Bytes(owed) => owed.checked_sub(len as u64).map_or(Owed::Overrun, Owed::Bytes),
            Owed::Nothing if len > 0 => Owed::Overrun,
            owed => owed,
        };
        debug_assert_ne!(*self, Owed::Overrun, "a body is longer than its head says");
    }

    fn is_nothing(self) -> bool {
        matches!(self, Owed::Nothing | Owed::Bytes(0))
    }
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

    /// Another location has the body: its limit holds for what is to come.
    pub fn limit(&mut self, len_max: u64) {
        self.len_max = len_max;
    }

    /// Its length was announced, or is known by now.
    pub fn has_len(&self) -> bool {
        matches!(self.framing, Framing::Length(_))
    }

    /// By what was announced or has come.
    pub fn is_too_long(&self) -> bool {
        match self.framing {
            Framing::Length(len) => self.is_over(len.max(self.len)),
            _ => self.is_over(self.len),
        }
    }

    fn is_over(&self, len: u64) -> bool {
        self.len_max > 0 && len > self.len_max
    }

    /// What follows in the connection is in doubt, and who is asked for a page about it does not get it.
    pub fn refuse(&mut self) {
        self.is_refused = true;
        self.kept.clear();
        self.spool = None;
    }

    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// The client's body has come to its end (or there was none).
    pub fn is_read(&self) -> bool {
        self.reader.is_ended()
    }

    /// Nothing of it has been looked at.
    pub(super) fn is_untouched(&self) -> bool {
        self.len == 0 && !self.is_read()
    }

    /// What is left of it can be read away, so that the client's next request can be found behind it.
    pub fn is_rest_short(&self, framing: Framing) -> bool {
        match framing {
            _ if self.is_read() => true,
            Framing::Length(len) => len <= DISCARD_LEN_MAX,
            _ => self.len <= DISCARD_LEN_MAX,
        }
    }

    /// It has come to its end, and there was nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.is_read() && self.len == 0
    }

    pub fn is_replayable(&self) -> bool {
        self.sends != Sends::Clients || !self.is_holed()
    }

    /// Part of the client's body has been sent away and is not kept: nobody can be sent the whole of it any more.
    pub(super) fn is_holed(&self) -> bool {
        self.held_len() < self.len
    }

    fn held_len(&self) -> u64 {
        self.kept.len() as u64 + self.spool.as_ref().map_or(0, Spool::len)
    }

    /// Head and body went out whole, as the head announced them.
    pub fn is_complete(&self) -> bool {
        !self.is_broken && self.owed.is_nothing()
    }

    /// A new attempt begins: what broke was the last one.
    pub fn on_attempt(&mut self) {
        self.is_broken = false;
        self.waited.forget();
        // The end may have come after the first attempt was told that chunks follow.
        if self.is_read() && !self.is_holed() {
            self.on_all_kept();
        }
        if let Some(spool) = &mut self.spool {
            spool.rewind();
        }
    }

    /// The body is known to its end: the upstream can be told its length.
    pub(super) fn on_all_kept(&mut self) {
        self.framing = match self.framing {
            Framing::None => Framing::None,
            _ => Framing::Length(self.held_len()),
        };
    }

    /// `$request_body`: the body where all of it is in memory. A part of it would be taken for the whole.
    pub fn in_memory(&self) -> Option<&[u8]> {
        let is_whole =
            self.is_read() && !self.is_refused && self.len > 0 && self.kept.len() as u64 == self.len;
        is_whole.then_some(&self.kept[..])
    }

    /// It was read to its end for an earlier location of this request, and can be sent as it lies: what is in memory goes
    /// first, so that nothing may wait there for a file that has the beginning.
    pub(super) fn is_all_kept(&self) -> bool {
        self.is_read() && self.len > 0 && !self.is_holed() && (self.spool.is_none() || self.kept.is_empty())
    }

    /// How the upstream is told where the body ends.
    pub fn framing(&self) -> Framing {
        match &self.sends {
            Sends::Clients => self.framing,
            Sends::Ours(body) => Framing::Length(body.len() as u64),
            Sends::Nothing => Framing::None,
        }
    }

    /// Puts what is in memory of the body behind a head that says `framing`.
    pub fn write_kept(&mut self, out: &mut Vec<u8>) {
        self.owed = Owed::of(self.framing());
        let body = match &self.sends {
            Sends::Clients => &self.kept,
            Sends::Ours(body) => body,
            Sends::Nothing => return,
        };
        match self.owed {
            Owed::LastChunk if !body.is_empty() => write::chunk(out, body),
            Owed::Bytes(_) => out.extend_from_slice(body),
            _ => return,
        }
        self.owed.on_sent(body.len());
    }

    fn count(&mut self, len: usize) -> Result<(), Error> {
        self.len += len as u64;
        self.moved = true;
        if self.is_over(self.len) { Err(Error::BodyTooLarge) } else { Ok(()) }
    }
}

impl Scratch {
    /// Decodes what has come into `kept`. True when the body has ended.
    pub(super) fn keep_body(&mut self, len_max: usize) -> Result<bool, Error> {
        let kept = self.decode_body(len_max);
        if kept.is_err() {
            self.upload.refuse();
        }
        kept
    }

    fn decode_body(&mut self, len_max: usize) -> Result<bool, Error> {
        // Cut out at once: chunk by chunk, each would move all that stands behind it.
        let (used, decoded) = self.decode_pieces(len_max);
        self.use_body(used);
        decoded
    }

    /// How much is used up, and whether the body has ended with it.
    fn decode_pieces(&mut self, len_max: usize) -> (usize, Result<bool, Error>) {
        debug_assert!(!self.upload.is_refused, "a refused body is read on");
        let head_len = self.story.request.len;
        let mut at = 0;
        while self.upload.kept.len() < len_max || self.upload.is_read() {
            let body = &self.inbound.unread()[head_len + at..];
            match self.upload.reader.next(body) {
                Ok(Piece::Data { start, end }) => {
                    self.upload.kept.extend_from_slice(&body[start..end]);
                    // Used before it is judged: the reader has gone past it either way.
                    at += end;
                    if let Err(error) = self.upload.count(end - start) {
                        return (at, Err(error));
                    }
                }
                Ok(Piece::More) => return (self.inbound.len() - head_len, Ok(false)),
                Ok(Piece::End { used }) => return (at + used, Ok(true)),
                Err(error) => return (at, Err(Error::ClientBody(error))),
            }
        }
        (at, Ok(false))
    }

    fn use_body(&mut self, len: usize) {
        let head_len = self.story.request.len;
        self.inbound.remove(head_len, head_len + len);
        self.story.request_body_len += len as u64;
    }

    /// Moves all that has come of the body into `to_upstream`, as one chunk where it goes in chunks: what came in one read
    /// goes out in one write. False when more must be read first.
    fn frame_body(&mut self) -> Result<bool, Error> {
        let chunked = self.upload.framing == Framing::Chunked;
        self.pieces.clear();
        let (used, framed) = self.frame_pieces(chunked);
        self.use_body(used);
        let is_ended = framed.inspect_err(|_| self.upload.refuse())?;
        if !self.pieces.is_empty() {
            write::chunk(&mut self.to_upstream.data, &self.pieces);
        }
        if is_ended && chunked {
            write::last_chunk(&mut self.to_upstream.data, b"");
            self.upload.owed = Owed::Nothing;
        }
        Ok(is_ended || !self.to_upstream.is_empty())
    }

    /// How much is used up, and whether the body has ended with it.
    fn frame_pieces(&mut self, chunked: bool) -> (usize, Result<bool, Error>) {
        debug_assert!(!self.upload.is_refused, "a refused body is sent on");
        let head_len = self.story.request.len;
        let mut at = 0;
        loop {
            let body = &self.inbound.unread()[head_len + at..];
            match self.upload.reader.next(body) {
                Ok(Piece::Data { start, end }) => {
                    let out = if chunked { &mut self.pieces } else { &mut self.to_upstream.data };
                    out.extend_from_slice(&body[start..end]);
                    at += end;
                    self.upload.owed.on_sent(end - start);
                    if let Err(error) = self.upload.count(end - start) {
                        return (at, Err(error));
                    }
                }
                Ok(Piece::More) => return (self.inbound.len() - head_len, Ok(false)),
                Ok(Piece::End { used }) => return (at + used, Ok(true)),
                Err(error) => return (at, Err(Error::ClientBody(error))),
            }
        }
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
                    Poll::Ready(Err(error)) if is_unsayable(&error) => return Err(Error::Unsayable(error)),
                    // It may have answered before it closed: that answer counts.
                    Poll::Ready(Err(_)) => self.upload.is_broken = true,
                    Poll::Pending => return Ok(Progress::AwaitsUpstream),
                }
                continue;
            }
            if self.upload.sends != Sends::Clients {
                return Ok(Progress::Sent);
            }
            if let Some(spool) = self.upload.spool.as_mut().filter(|spool| !spool.is_sent()) {
                let len = spool.read(&mut self.to_upstream.data).map_err(Error::Spool)?;
                self.upload.owed.on_sent(len);
                continue;
            }
            if self.upload.is_read() {
                return Ok(Progress::Sent);
            }
            if !self.frame_body()? {
                match down.wire.poll_read(cx, self.inbound.space(BUFFER_LEN + self.story.request.len)) {
                    Poll::Ready(Ok(0) | Err(_)) => return Err(Error::ClientGone),
                    Poll::Ready(Ok(len)) => {
                        self.upload.waited.end(Instant::now);
                        self.inbound.fill(len);
                    }
                    Poll::Pending => return self.await_client(cx, down).map(|()| Progress::AwaitsClient),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_may_be_used_again_once_it_has_been_given_what_the_head_announced() {
        for (framing, kept_len, expected) in [
            (Framing::None, 0, true),
            (Framing::Length(0), 0, true),
            (Framing::Length(10), 4, false),
            (Framing::Length(10), 10, true),
            (Framing::Chunked, 10, false),
        ] {
            let mut upload = Upload::default();
            upload.begin(framing, 0);
            upload.kept = vec![b'x'; kept_len];
            upload.write_kept(&mut Vec::new());
            assert_eq!(upload.is_complete(), expected, "{framing:?} {kept_len}");
            // The client's body has ended, which says nothing about what was sent of it.
            upload.reader = BodyReader::default();
            assert_eq!(upload.is_complete(), expected, "{framing:?} {kept_len}");
            upload.is_broken = true;
            assert!(!upload.is_complete());
        }
    }

    #[test]
    fn a_chunked_body_is_kept_alike_in_one_read_and_split_at_every_byte() {
        let body = b"3\r\nabc\r\n1;x=y\r\nd\r\n1\r\ne\r\n0\r\nX: y\r\n\r\n";
        for (split, len_max) in (0..=body.len()).flat_map(|split| [(split, 100), (split, 2)]) {
            let mut scratch = Scratch::default();
            scratch.upload.begin(Framing::Chunked, 0);
            let (mut is_ended, mut kept) = (false, Vec::new());
            for part in [&body[..split], &body[split..], b"GET"] {
                scratch.inbound.extend(part);
                // As who keeps no more at a time than `len_max` does.
                for _ in 0..body.len() {
                    is_ended = is_ended || scratch.keep_body(len_max).unwrap();
                    kept.append(&mut scratch.upload.kept);
                }
            }
            assert!(is_ended, "{split}");
            assert_eq!(
                (&kept[..], scratch.inbound.unread()),
                (&b"abcde"[..], &b"GET"[..]),
                "{split} {len_max}"
            );
            assert_eq!((scratch.upload.len, scratch.story.request_body_len), (5, body.len() as u64));
        }
    }

    #[test]
    fn another_body_than_the_clients_has_a_length_of_its_own() {
        let mut upload = Upload::default();
        upload.begin(Framing::Length(10), 0);
        upload.kept = b"four".to_vec();
        for (sends, framing, expected) in [
            (Sends::Ours(b"ours!".to_vec()), Framing::Length(5), &b"ours!"[..]),
            (Sends::Nothing, Framing::None, b""),
            (Sends::Clients, Framing::Length(10), b"four"),
        ] {
            upload.sends = sends;
            let mut out = Vec::new();
            upload.write_kept(&mut out);
            assert_eq!((upload.framing(), &out[..]), (framing, expected));
        }
    }

    #[test]
    fn a_body_whose_end_found_no_place_in_its_file_is_not_sent_end_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut upload = Upload::default();
        upload.begin(Framing::Length(8), 0);
        upload.reader = BodyReader::default();
        upload.kept = b"tail".to_vec();
        upload.len = 8;
        let mut spool = Spool::create(folder.path(), 1, false).unwrap();
        spool.append(b"head").unwrap();
        upload.spool = Some(spool);
        assert!(!upload.is_holed() && !upload.is_all_kept());
        upload.spool.as_mut().unwrap().append(&std::mem::take(&mut upload.kept)).unwrap();
        assert!(upload.is_all_kept());
        // Without a file it lies in order.
        upload.spool = None;
        upload.kept = b"headtail".to_vec();
        assert!(upload.is_all_kept());
    }
}
