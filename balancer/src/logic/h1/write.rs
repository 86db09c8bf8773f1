//! Writing heads and chunk frames into a buffer. Names and values come from a parsed head or from the configuration;
//! whatever could end a line early is left out here, once and for all.

use super::fields::{Field, Span};
use super::words::find_stop;

/// `Name: value`. A CR, LF or NUL in the value, which a variable could have brought in, becomes a space.
#[inline]
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    let from = out.len();
    out.extend_from_slice(value);
    clean(&mut out[from..]);
    out.extend_from_slice(b"\r\n");
}

/// A field of a head that was parsed. Nearly all come in the form in which we write them, and their line is copied whole.
#[inline]
pub fn copy(out: &mut Vec<u8>, head: &[u8], field: &Field) {
    let (name, value) = (field.name, field.value);
    let line = Span { start: name.start, end: value.end + 2 }.of(head);
    let is_adjacent = value.start == name.end + 2;
    if is_adjacent && line.get(name.len()..name.len() + 2) == Some(b": ") && line.ends_with(b"\r\n") {
        return out.extend_from_slice(line);
    }
    for part in [name.of(head), b": ", value.of(head), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Makes bytes that were rendered from variables safe to stand in one line.
#[inline]
pub fn clean(value: &mut [u8]) {
    let mut from = 0;
    while let Some(at) = find_stop(value, from) {
        value[at] = b' ';
        from = at + 1;
    }
}

/// `Content-Length: n`.
pub fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

pub fn decimal(out: &mut Vec<u8>, number: u64) {
    digits(out, number, 10);
}

/// The line that opens a chunk of `len` bytes. `len` is not 0: that would end the body.
pub fn chunk_size(out: &mut Vec<u8>, len: usize) {
    debug_assert!(len > 0, "a chunk of size 0 is the end of the body");
    digits(out, len as u64, 16);
    out.extend_from_slice(b"\r\n");
}

/// One whole chunk.
pub fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    chunk_size(out, data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The last chunk with its trailer lines (each with CRLF).
pub fn last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

fn digits(out: &mut Vec<u8>, mut number: u64, base: u64) {
    let mut text = [0u8; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b"0123456789abcdef"[(number % base) as usize];
        number /= base;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}
