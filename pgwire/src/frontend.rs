//! Messages from a client to a server: reading what the pooler has to understand, writing what it sends itself,
//! and giving a prepared statement another name in a message that passes.

use crate::build::{self, message};
use crate::frame::Head;
use crate::read::{Malformed, Reader};

/// Kinds of messages that clients send.
pub mod kind {
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    /// Also SASLInitialResponse and SASLResponse.
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// A Parse message: a statement's name, its text, and the types of its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    pub name: &'a [u8],
    pub query: &'a [u8],
    /// The count and type OIDs as on the wire: with the query they tell statements apart.
    pub types: &'a [u8],
}

impl<'a> Parse<'a> {
    pub fn from_body(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let (name, query) = (reader.cstr()?, reader.cstr()?);
        let types = reader.rest();
        let count = reader.u16()?;
        reader.bytes(usize::from(count) * 4)?;
        reader.end()?;
        Ok(Parse { name, query, types })
    }

    /// Appends it under another name.
    pub fn write_as(&self, name: &[u8], out: &mut Vec<u8>) {
        message(out, kind::PARSE, |out| {
            build::cstr(out, name);
            build::cstr(out, self.query);
            out.extend(self.types);
        });
    }
}

/// The names in a Bind message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindNames<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
}

impl<'a> BindNames<'a> {
    /// Reads the names; the rest of the body need not have come.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        Ok(BindNames { portal: reader.cstr()?, statement: reader.cstr()? })
    }
}

/// What a Describe or Close message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let kind = reader.u8()?;
        let name = reader.cstr()?;
        reader.end()?;
        match kind {
            b'S' => Ok(Target::Statement(name)),
            b'P' => Ok(Target::Portal(name)),
            _ => Err(Malformed("neither a statement nor a portal")),
        }
    }
}

/// An Execute message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    pub portal: &'a [u8],
    /// 0 = all rows.
    pub max_rows: u32,
}

impl<'a> Execute<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let execute = Execute { portal: reader.cstr()?, max_rows: reader.u32()? };
        reader.end()?;
        Ok(execute)
    }
}

/// The text of a Query message.
pub fn parse_query(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body);
    let text = reader.cstr()?;
    reader.end()?;
    Ok(text)
}

/// The password of a PasswordMessage.
pub fn parse_password(body: &[u8]) -> Result<&[u8], Malformed> {
    parse_query(body)
}

/// The first message of a SASL exchange: the mechanism chosen and its data.
pub fn parse_sasl_initial(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let mechanism = reader.cstr()?;
    let data = reader.value()?.unwrap_or_default();
    reader.end()?;
    Ok((mechanism, data))
}

/// A message's beginning under another statement name, in place of the first `replaced` bytes of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renamed {
    pub replaced: usize,
}

/// Appends the head and the first part of a Parse, Bind, Describe or Close with the statement's name replaced.
///
/// The caller sends `body[replaced..]` after it, now or as it comes: the message itself may be larger than any
/// buffer. None when the name has not come whole; a Describe or Close of a portal has no such name and is malformed
/// here. Fails as well when the longer name would push the length over the protocol's limit.
pub fn rename(
    head: Head,
    body_so_far: &[u8],
    name: &[u8],
    out: &mut Vec<u8>,
) -> Result<Option<Renamed>, Malformed> {
    let complete = body_so_far.len() >= head.body_len as usize;
    let body = &body_so_far[..body_so_far.len().min(head.body_len as usize)];
    let Some(before) = name_offset(head.kind, body)? else {
        return if complete { Err(Malformed("a string has no zero byte at its end")) } else { Ok(None) };
    };
    let Some(old_len) = memchr::memchr(0, &body[before..]) else {
        return if complete { Err(Malformed("a string has no zero byte at its end")) } else { Ok(None) };
    };
    let body_len = u64::from(head.body_len) - old_len as u64 + name.len() as u64;
    if body_len > i32::MAX as u64 - 4 {
        return Err(Malformed("a message over 2 GiB"));
    }
    out.extend(Head { kind: head.kind, body_len: body_len as u32 }.to_bytes());
    out.extend(&body[..before]);
    build::cstr(out, name);
    Ok(Some(Renamed { replaced: before + old_len + 1 }))
}

/// Where the statement's name starts; None when that has not come.
fn name_offset(kind: u8, body: &[u8]) -> Result<Option<usize>, Malformed> {
    match kind {
        kind::PARSE => Ok(Some(0)),
        kind::BIND => Ok(memchr::memchr(0, body).map(|end| end + 1)),
        kind::DESCRIBE | kind::CLOSE => match body.first() {
            None => Ok(None),
            Some(b'S') => Ok(Some(1)),
            Some(_) => Err(Malformed("not about a statement")),
        },
        _ => Err(Malformed("a kind of message that names no statement")),
    }
}

pub fn query(out: &mut Vec<u8>, sql: &str) {
    message(out, kind::QUERY, |out| build::cstr(out, sql));
}

pub fn password(out: &mut Vec<u8>, password: impl AsRef<[u8]>) {
    message(out, kind::PASSWORD, |out| build::cstr(out, password));
}

pub fn sasl_initial(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    message(out, kind::PASSWORD, |out| {
        build::cstr(out, mechanism);
        build::value(out, Some(data));
    });
}

pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    message(out, kind::PASSWORD, |out| out.extend(data));
}

/// A Parse whose parameter types the server finds out.
pub fn parse(out: &mut Vec<u8>, name: &str, query: &str) {
    Parse { name: name.as_bytes(), query: query.as_bytes(), types: &[0, 0] }.write_as(name.as_bytes(), out);
}

/// A Bind of the unnamed portal with text parameters and text results.
pub fn bind(out: &mut Vec<u8>, statement: &str, parameters: &[Option<&[u8]>]) {
    message(out, kind::BIND, |out| {
        build::cstr(out, "");
        build::cstr(out, statement);
        build::u16(out, 0);
        build::u16(out, parameters.len() as u16);
        for parameter in parameters {
            build::value(out, *parameter);
        }
        build::u16(out, 0);
    });
}

fn about(out: &mut Vec<u8>, kind: u8, target: Target<'_>) {
    message(out, kind, |out| {
        let (letter, name) = match target {
            Target::Statement(name) => (b'S', name),
            Target::Portal(name) => (b'P', name),
        };
        out.push(letter);
        build::cstr(out, name);
    });
}

pub fn describe(out: &mut Vec<u8>, target: Target<'_>) {
    about(out, kind::DESCRIBE, target);
}

pub fn close(out: &mut Vec<u8>, target: Target<'_>) {
    about(out, kind::CLOSE, target);
}

/// An Execute of the unnamed portal; 0 rows = all.
pub fn execute(out: &mut Vec<u8>, max_rows: u32) {
    message(out, kind::EXECUTE, |out| {
        build::cstr(out, "");
        build::u32(out, max_rows);
    });
}

pub fn sync(out: &mut Vec<u8>) {
    message(out, kind::SYNC, |_| {});
}

pub fn flush(out: &mut Vec<u8>) {
    message(out, kind::FLUSH, |_| {});
}

pub fn terminate(out: &mut Vec<u8>) {
    message(out, kind::TERMINATE, |_| {});
}

pub fn copy_fail(out: &mut Vec<u8>, reason: &str) {
    message(out, kind::COPY_FAIL, |out| build::cstr(out, reason));
}

#[cfg(test)]
#[path = "frontend_tests.rs"]
mod tests;
