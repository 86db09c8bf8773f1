//! What becomes of an answer's body on its last step: packed or unpacked, then framed for the client.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};

use super::inside::{PAGE_LEN_MAX, too_long};
use crate::error::Error;
use crate::logic::h1::{Framing, write};

/// Unpacking may make a thousand bytes of one: it is fed in pieces so small that what comes out stays bounded.
const PACKED_PIECE_LEN: usize = 1024;

#[derive(Debug, Default)]
pub struct Sink {
    framing: Framing,
    coding: Coding,
    /// What the coding was given: of nothing there is nothing to unpack.
    taken_len: u64,
    /// What gzip made of it.
    made_len: u64,
    /// Lengths before and after, once gzip has packed it to its end.
    packed: Option<(u64, u64)>,
    /// A whole page that has to be made before it goes on.
    page: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
pub enum Coding {
    #[default]
    Plain,
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Gunzip(Box<MultiGzDecoder<Vec<u8>>>),
    Held(Box<Held>),
}

/// The text of a page, held back until all of it is here, and how it is coded then.
#[derive(Debug, Default)]
pub struct Held {
    text: Vec<u8>,
    then: Coding,
}

impl Coding {
    pub fn gzip(level: u32) -> Coding {
        Coding::Gzip(Box::new(GzEncoder::new(Vec::new(), Compression::new(level))))
    }

    pub fn held(then: Coding) -> Coding {
        Coding::Held(Box::new(Held { text: Vec::new(), then }))
    }

    pub fn gunzip() -> Coding {
        Coding::Gunzip(Box::new(MultiGzDecoder::new(Vec::new())))
    }
}

impl Sink {
    pub fn begin(&mut self, framing: Framing, coding: Coding) {
        *self = Sink { framing, coding, ..Sink::default() };
    }

    pub fn is_plain(&self) -> bool {
        matches!(self.coding, Coding::Plain)
    }

    /// The length of what was packed, and of what came of it.
    pub fn packed(&self) -> Option<(u64, u64)> {
        self.packed
    }

    /// So many bytes are best given at once.
    pub fn piece_len(&self) -> usize {
        if matches!(self.coding, Coding::Gunzip(_)) { PACKED_PIECE_LEN } else { usize::MAX }
    }

    pub fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        self.taken_len += data.len() as u64;
        let packed = match &mut self.coding {
            Coding::Plain => {
                frame(self.framing, data, out);
                return Ok(());
            }
            Coding::Gzip(encoder) => {
                encoder.write_all(data).map_err(Error::Coding)?;
                self.made_len += encoder.get_ref().len() as u64;
                encoder.get_mut()
            }
            Coding::Gunzip(decoder) => {
                // What is unpacked lies in the decoder until it is flushed.
                decoder.write_all(data).and_then(|()| decoder.flush()).map_err(Error::Coding)?;
                decoder.get_mut()
            }
            Coding::Held(held) => {
                if held.text.len() + data.len() > PAGE_LEN_MAX {
                    return Err(too_long());
                }
                held.text.extend_from_slice(data);
                return Ok(());
            }
        };
        frame(self.framing, packed, out);
        packed.clear();
        Ok(())
    }

    /// What was given so far shall not wait for more.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if let Coding::Gzip(encoder) = &mut self.coding {
            encoder.flush().map_err(Error::Coding)?;
            self.made_len += encoder.get_ref().len() as u64;
            frame(self.framing, encoder.get_ref(), out);
            encoder.get_mut().clear();
        }
        Ok(())
    }

    pub fn holds_page(&self) -> bool {
        self.page.is_some()
    }

    /// The page that has been held back; made, it is pushed and finished again.
    pub fn take_page(&mut self) -> Option<Vec<u8>> {
        self.page.take()
    }

    /// The end. Trailer lines go with chunks only.
    pub fn finish(&mut self, trailers: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let rest = match std::mem::take(&mut self.coding) {
            Coding::Plain => Vec::new(),
            Coding::Gunzip(_) if self.taken_len == 0 => Vec::new(),
            Coding::Gzip(encoder) => {
                let rest = encoder.finish().map_err(Error::Coding)?;
                self.packed = Some((self.taken_len, self.made_len + rest.len() as u64));
                rest
            }
            Coding::Gunzip(decoder) => decoder.finish().map_err(Error::Coding)?,
            Coding::Held(held) => {
                self.coding = held.then;
                self.taken_len = 0;
                self.page = Some(held.text);
                return Ok(());
            }
        };
        frame(self.framing, &rest, out);
        if self.framing == Framing::Chunked {
            write::last_chunk(out, trailers);
        }
        Ok(())
    }
}

fn frame(framing: Framing, data: &[u8], out: &mut Vec<u8>) {
    match framing {
        // A body that nobody is told of is no part of the answer.
        _ if data.is_empty() || framing == Framing::None => {}
        Framing::Chunked => write::chunk(out, data),
        _ => out.extend_from_slice(data),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through(coding: Coding, pieces: &[&[u8]]) -> Vec<u8> {
        let mut sink = Sink::default();
        sink.begin(Framing::UntilClose, coding);
        let mut out = Vec::new();
        for piece in pieces {
            sink.push(piece, &mut out).unwrap();
        }
        sink.finish(b"", &mut out).unwrap();
        out
    }

    #[test]
    fn what_is_flushed_can_be_unpacked_before_the_end() {
        let mut sink = Sink::default();
        sink.begin(Framing::UntilClose, Coding::gzip(1));
        let mut packed = Vec::new();
        sink.push(b"early", &mut packed).unwrap();
        sink.flush(&mut packed).unwrap();
        let mut decoder = MultiGzDecoder::new(Vec::new());
        decoder.write_all(&packed).and_then(|()| decoder.flush()).unwrap();
        assert_eq!(decoder.get_ref(), b"early");
    }

    #[test]
    fn nothing_is_sent_where_there_is_no_body() {
        for coding in [Coding::Plain, Coding::gzip(1)] {
            let mut sink = Sink::default();
            sink.begin(Framing::None, coding);
            let mut out = Vec::new();
            sink.push(b"body", &mut out).unwrap();
            sink.flush(&mut out).unwrap();
            sink.finish(b"X: 1\r\n", &mut out).unwrap();
            assert_eq!(out, b"");
        }
    }

    #[test]
    fn what_gzip_made_of_a_body_is_known_at_its_end() {
        let mut sink = Sink::default();
        sink.begin(Framing::UntilClose, Coding::gzip(6));
        let mut out = Vec::new();
        sink.push(&[b'a'; 1000], &mut out).unwrap();
        sink.flush(&mut out).unwrap();
        sink.push(&[b'b'; 234], &mut out).unwrap();
        assert_eq!(sink.packed(), None);
        sink.finish(b"", &mut out).unwrap();
        assert_eq!(sink.packed(), Some((1234, out.len() as u64)));
        sink.begin(Framing::UntilClose, Coding::Plain);
        assert_eq!(sink.packed(), None);
    }

    #[test]
    fn nothing_unpacked_is_nothing() {
        assert_eq!(through(Coding::gunzip(), &[]), b"");
    }

    #[test]
    fn garbage_and_cut_streams_are_errors() {
        let mut sink = Sink::default();
        sink.begin(Framing::Chunked, Coding::gunzip());
        assert!(sink.push(b"not gzip at all", &mut Vec::new()).is_err());
        let packed = through(Coding::gzip(6), &[b"whole"]);
        sink.begin(Framing::Chunked, Coding::gunzip());
        sink.push(&packed[..packed.len() - 4], &mut Vec::new()).unwrap();
        assert!(sink.finish(b"", &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked_the_same_however_it_is_cut(
            data in proptest::collection::vec(any::<u8>(), 0..2000), cut in 0usize..2000, level in 1u32..10,
        ) {
            let cut = cut.min(data.len());
            let packed = through(Coding::gzip(level), &[&data[..cut], &data[cut..]]);
            let middle = packed.len() / 2;
            let unpacked = through(Coding::gunzip(), &[&packed[..middle], &packed[middle..]]);
            prop_assert_eq!(unpacked, data);
        }
    }
}
