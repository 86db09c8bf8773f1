//! A chunked body, whole and byte by byte: the same data and the same end.
#![no_main]

use balancer::logic::h1::Framing;
use balancer::logic::h1::body::{BodyReader, Piece};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, PartialEq)]
enum Outcome {
    Refused,
    Unfinished,
    Ended,
}

fn read(bytes: &[u8], step: usize) -> (Vec<u8>, Outcome) {
    let (mut reader, mut data) = (BodyReader::new(Framing::Chunked), Vec::new());
    for piece in bytes.chunks(step.max(1)) {
        let mut rest = piece;
        loop {
            match reader.next(rest) {
                Err(_) => return (data, Outcome::Refused),
                Ok(Piece::More) => break,
                Ok(Piece::End { .. }) => return (data, Outcome::Ended),
                Ok(Piece::Data { start, end }) => {
                    data.extend_from_slice(&rest[start..end]);
                    rest = &rest[end..];
                }
            }
        }
    }
    (data, Outcome::Unfinished)
}

fuzz_target!(|bytes: &[u8]| assert_eq!(read(bytes, bytes.len()), read(bytes, 1)));
