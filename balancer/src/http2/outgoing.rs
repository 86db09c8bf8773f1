//! One message's body on its way out: the bytes that the relay writes are read by its own codec and sent as DATA and
//! trailers, as the peer's windows allow.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};

use super::gone;
use crate::logic::h1::{BodyReader, Framing, Piece};
use crate::logic::messages;

/// So much is offered to a window at once: more would only be copied without being sent.
const PIECE_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub struct Outgoing {
    stream: SendStream<Bytes>,
    reader: BodyReader,
    /// Read from the relay, and told to it as written only when the windows have taken it.
    held: Bytes,
    unreported: usize,
    is_ended: bool,
}

impl Outgoing {
    /// `Framing::None`: the stream was ended with its head.
    pub fn new(stream: SendStream<Bytes>, framing: Framing) -> Outgoing {
        let is_ended = is_empty(framing);
        Outgoing { stream, reader: BodyReader::new(framing), held: Bytes::new(), unreported: 0, is_ended }
    }

    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.unreported == 0 {
            let offered = &data[..data.len().min(PIECE_MAX)];
            let piece = self.reader.next(offered).map_err(|error| io::Error::other(error.to_string()))?;
            match piece {
                Piece::Data { start, end } => {
                    self.held = Bytes::copy_from_slice(&offered[start..end]);
                    self.unreported = end;
                }
                Piece::More => return Poll::Ready(Ok(offered.len())),
                Piece::End { used } => {
                    self.end()?;
                    // Bytes past the end belong to nothing; they are the relay's mistake, and go nowhere.
                    return Poll::Ready(Ok(used.max(1).min(data.len())));
                }
            }
        }
        ready!(self.poll_held(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.unreported)))
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            self.stream.reserve_capacity(self.held.len());
            let capacity = match self.stream.capacity() {
                0 => match ready!(self.stream.poll_capacity(cx)) {
                    Some(capacity) => capacity.map_err(gone)?,
                    None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                },
                capacity => capacity,
            };
            let piece = self.held.split_to(self.held.len().min(capacity));
            let is_last = self.held.is_empty() && self.reader.is_ended();
            self.stream.send_data(piece, is_last).map_err(gone)?;
            self.is_ended |= is_last;
        }
        Poll::Ready(Ok(()))
    }

    /// The body has come to its end: so does the stream, with trailers where there are some.
    fn end(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_ended, true) {
            return Ok(());
        }
        let trailers = messages::trailers(self.reader.trailers());
        match trailers.is_empty() {
            true => self.stream.send_data(Bytes::new(), true),
            false => self.stream.send_trailers(trailers),
        }
        .map_err(gone)
    }

    /// A body that lasts until the connection closes has come to its end.
    pub fn on_shutdown(&mut self) {
        if !self.is_ended && self.reader.on_eof().is_ok() {
            // A stream that is gone needs no end.
            let _ = self.end();
        }
    }

    /// Ready with an error once the peer has given the stream up.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match ready!(self.stream.poll_reset(cx)) {
            Ok(reason) => Poll::Ready(gone(reason.into())),
            Err(error) => Poll::Ready(gone(error)),
        }
    }

    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}

/// Whether a head ends its stream.
pub fn is_empty(framing: Framing) -> bool {
    matches!(framing, Framing::None | Framing::Length(0))
}
