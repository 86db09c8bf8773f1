//! Where a body ends: content length, chunks, or the end of the connection. Says which bytes of the input are body;
//! copies none but trailer lines. The strictness of chunk lines is that of nginx since December 2025: CRLF only.

use super::Framing;
use super::fields::{Line, field_in};

/// Longest chunk line: a size and whatever extensions. Nobody reads extensions; long ones only burn our time.
const CHUNK_LINE_LEN_MAX: u32 = 4096;
/// All trailer lines together.
const TRAILERS_LEN_MAX: usize = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    #[error("invalid chunk size")]
    ChunkSize,
    #[error("chunk line is too long")]
    ChunkLineTooLong,
    #[error("chunk does not end where its size says")]
    ChunkEnd,
    #[error("invalid trailer line")]
    Trailer,
    #[error("trailers are too large")]
    TrailersTooLarge,
    #[error("connection ended inside the body")]
    Truncated,
}

/// What the next bytes of the input are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `input[start..end]` is body; everything up to `end` is used up.
    Data { start: usize, end: usize },
    /// All of the input is used up and the body goes on.
    More,
    /// The body ended; `used` bytes of the input belonged to it.
    End { used: usize },
}

#[derive(Debug, Default)]
pub struct BodyReader {
    state: State,
    /// Length of the chunk line so far; chunk extensions count.
    line_len: u32,
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ended,
    Length(u64),
    UntilClose,
    SizeFirst,
    Size(u64),
    SizeLf(u64),
    PaddingOf(u64),
    ExtensionOf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
}

impl BodyReader {
    pub fn new(framing: Framing) -> BodyReader {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Ended,
            Framing::Length(left) => State::Length(left),
            Framing::Chunked => State::SizeFirst,
            Framing::UntilClose => State::UntilClose,
        };
        BodyReader { state, line_len: 0, trailers: Vec::new() }
    }

    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Trailer lines, each with CRLF, once the body has ended.
    pub fn trailers(&self) -> &[u8] {
        if self.is_ended() { self.trailers.strip_suffix(b"\r\n").unwrap_or_default() } else { &[] }
    }

    /// The peer closed its side: right after a body that lasts until then, a cut one otherwise.
    pub fn on_eof(&mut self) -> Result<(), BadBody> {
        match self.state {
            State::Ended | State::UntilClose => {
                self.state = State::Ended;
                Ok(())
            }
            _ => Err(BadBody::Truncated),
        }
    }

    /// Looks at `input`, which begins where the last piece ended.
    pub fn next(&mut self, input: &[u8]) -> Result<Piece, BadBody> {
        let mut at = 0;
        loop {
            match self.state {
                State::Ended => return Ok(Piece::End { used: at }),
                _ if at == input.len() => return Ok(Piece::More),
                State::UntilClose => return Ok(Piece::Data { start: at, end: input.len() }),
                State::Length(left) | State::Data(left) => return Ok(self.take(input, at, left)),
                State::Trailers => match self.on_trailer_bytes(&input[at..])? {
                    Some(used) => at += used,
                    None => return Ok(Piece::More),
                },
                _ => {
                    self.state = self.on_chunk_byte(input[at])?;
                    at += 1;
                }
            }
        }
    }

    fn take(&mut self, input: &[u8], start: usize, left: u64) -> Piece {
        let have = (input.len() - start) as u64;
        let taken = have.min(left);
        let rest = left - taken;
        self.state = match self.state {
            State::Length(_) if rest == 0 => State::Ended,
            State::Length(_) => State::Length(rest),
            _ if rest == 0 => State::DataCr,
            _ => State::Data(rest),
        };
        Piece::Data { start, end: start + taken as usize }
    }

    /// One byte of chunk framing (RFC 9112, section 7.1).
    fn on_chunk_byte(&mut self, byte: u8) -> Result<State, BadBody> {
        self.line_len += 1;
        if self.line_len > CHUNK_LINE_LEN_MAX {
            return Err(BadBody::ChunkLineTooLong);
        }
        match (self.state, byte) {
            (State::SizeFirst, _) => {
                hex(byte).map(|digit| State::Size(u64::from(digit))).ok_or(BadBody::ChunkSize)
            }
            (State::Size(size), b'\r') | (State::PaddingOf(size), b'\r') => Ok(State::SizeLf(size)),
            (State::Size(size), b' ' | b'\t') | (State::PaddingOf(size), b' ' | b'\t') => {
                Ok(State::PaddingOf(size))
            }
            (State::Size(size), b';') | (State::PaddingOf(size), b';') => Ok(State::ExtensionOf(size)),
            (State::Size(size), _) => larger(size, byte),
            (State::ExtensionOf(size), b'\r') => Ok(State::SizeLf(size)),
            (State::ExtensionOf(size), b'\t' | 0x20..=0x7e | 0x80..=0xff) => Ok(State::ExtensionOf(size)),
            (State::SizeLf(0), b'\n') => {
                self.line_len = 0;
                Ok(State::Trailers)
            }
            (State::SizeLf(size), b'\n') => {
                self.line_len = 0;
                Ok(State::Data(size))
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line_len = 0;
                Ok(State::SizeFirst)
            }
            (State::DataCr | State::DataLf, _) => Err(BadBody::ChunkEnd),
            _ => Err(BadBody::ChunkSize),
        }
    }

    /// Collects trailer lines; `None` while the blank line has not come.
    fn on_trailer_bytes(&mut self, input: &[u8]) -> Result<Option<usize>, BadBody> {
        for (i, &byte) in input.iter().enumerate() {
            self.trailers.push(byte);
            if self.trailers.len() > TRAILERS_LEN_MAX {
                return Err(BadBody::TrailersTooLarge);
            }
            if byte == b'\n' && self.on_trailer_line()? {
                self.state = State::Ended;
                return Ok(Some(i + 1));
            }
        }
        Ok(None)
    }

    /// Checks the line that has just ended; true for the blank one.
    fn on_trailer_line(&mut self) -> Result<bool, BadBody> {
        let start =
            self.trailers[..self.trailers.len() - 1].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let end = self.trailers.len() - 2.min(self.trailers.len());
        if end < start || self.trailers[end] != b'\r' {
            return Err(BadBody::Trailer);
        }
        if start == end {
            return Ok(true);
        }
        let line = Line { start, end, next: self.trailers.len() };
        field_in(&self.trailers, line).map_err(|_| BadBody::Trailer)?;
        Ok(false)
    }
}

fn larger(size: u64, byte: u8) -> Result<State, BadBody> {
    let digit = hex(byte).ok_or(BadBody::ChunkSize)?;
    // Signed 64 bits, as most origins count: what they would wrap around on is refused here.
    size.checked_mul(16)
        .map(|size| size + u64::from(digit))
        .filter(|size| *size <= i64::MAX as u64)
        .map(State::Size)
        .ok_or(BadBody::ChunkSize)
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
